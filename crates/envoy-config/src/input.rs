//! The input of the generator: pools as the filter knows them, and how to reach their providers.
//!
//! Fields of the filter pass through, and the filter itself validates them.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use envoy_harness::Mode;
use hyper::header::HeaderName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::apis::Api;
use super::aws::Signing;
use super::clients::Clients;
use super::comments;
use super::upstream::Upstream;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    /// For editors.
    #[serde(rename = "$schema")]
    _schema: Option<String>,
    /// Where Envoy listens for clients.
    pub(super) listener: Option<SocketAddr>,
    /// Where its admin interface listens.
    #[serde(default = "default_admin")]
    pub(super) admin: SocketAddr,
    /// Where the operator's page listens; without it there is none.
    pub(super) operator: Option<SocketAddr>,
    /// Where metrics and readiness can be asked for, and nothing else of the admin interface.
    pub(super) stats: Option<SocketAddr>,
    /// The path of the module, relative to where Envoy is started.
    pub(super) module: Option<String>,
    /// The certificates by which Envoy trusts providers.
    #[serde(default = "default_ca_certificates")]
    pub(super) ca_certificates: String,
    /// The directory in which Envoy finds a file with each key; without it, keys are in its
    /// environment.
    pub(super) secrets: Option<String>,
    /// Who may use the gateway; everyone who reaches it if absent.
    pub(super) clients: Option<Clients>,
    /// Whether clients see in a response header what the filter decided.
    #[serde(default)]
    pub(super) show_decision: bool,
    /// How many connections clients may have.
    #[serde(default = "default_max_connections")]
    pub(super) max_connections: NonZeroU32,
    /// How large Envoy's heap may get.
    #[serde(default = "default_max_heap_bytes")]
    pub(super) max_heap_bytes: NonZeroU64,
    /// The configuration of the filter without its pools.
    #[serde(default)]
    pub(super) filter: Map<String, Value>,
    pub(super) pools: Vec<Pool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) provider: Option<Value>,
    /// The API whose paths it serves, which `match` narrows.
    pub(super) api: Option<Api>,
    #[serde(rename = "match")]
    pub(super) matches: Option<Value>,
    pub(super) session: Option<Value>,
    pub(super) cache_lifetime: Option<Value>,
    /// How Envoy learns which of its credentials serves a request, if not as in other pools.
    pub(super) mode: Option<ModeName>,
    /// Where its provider is.
    pub(super) upstream: Option<Upstream>,
    /// The request header that carries a key; without it requests keep what the client sent.
    pub(super) key_header: Option<KeyHeader>,
    pub(super) credentials: Vec<Credential>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credential {
    pub(super) id: String,
    pub(super) priority: Option<Value>,
    pub(super) weight: Option<Value>,
    pub(super) max_concurrent: Option<Value>,
    pub(super) parent: Option<Value>,
    pub(super) group: Option<Value>,
    pub(super) websockets: Option<Value>,
    pub(super) state: Option<Value>,
    pub(super) disable_cooling: Option<Value>,
    /// Where its provider is, if not where that of the pool is.
    pub(super) upstream: Option<Upstream>,
    /// The variable with the value of its header.
    pub(super) key: Option<Variable>,
    /// How Envoy signs its requests, in place of a key.
    pub(super) aws: Option<Signing>,
    /// The address of its replica.
    pub(super) endpoint: Option<SocketAddr>,
}

/// The name of a mode.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct ModeName(pub(super) Mode);

/// The path of a file, as Envoy sees it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(super) struct AbsolutePath(pub(super) String);

/// The name of a request header, in lower case.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct KeyHeader(pub(super) String);

/// The name of an environment variable. A key in its place would be written into a file, so
/// anything else is refused, and not shown.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Variable(pub(super) String);

impl Input {
    /// Reads JSON, in which comments are allowed.
    ///
    /// # Errors
    /// What is wrong, with its path.
    pub(super) fn from_json(text: &str) -> Result<Self> {
        let json = comments::blank(text);
        let mut deserializer = serde_json::Deserializer::from_str(&json);
        let input = serde_path_to_error::deserialize(&mut deserializer).map_err(problem)?;
        deserializer.end()?;
        Ok(input)
    }

    /// Reads YAML.
    ///
    /// # Errors
    /// What is wrong, with its place or its path.
    pub(super) fn from_yaml(text: &str) -> Result<Self> {
        let value: Value = serde_saphyr::from_str(text).map_err(|error| anyhow!("{error}"))?;
        serde_path_to_error::deserialize(value).map_err(problem)
    }
}

fn problem(error: serde_path_to_error::Error<serde_json::Error>) -> anyhow::Error {
    match error.path().to_string().as_str() {
        "." | "?" => anyhow!("{}", error.inner()),
        path => anyhow!("{path}: {}", error.inner()),
    }
}

impl TryFrom<String> for ModeName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mode = Mode::from_str(&text, false);
        mode.map(Self).map_err(|_| "expected clusters, keys, replicas or next-request")
    }
}

impl TryFrom<String> for AbsolutePath {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.starts_with('/') && !text.ends_with('/') {
            true => Ok(Self(text)),
            false => Err("expected the absolute path of a file"),
        }
    }
}

impl TryFrom<String> for KeyHeader {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let name = HeaderName::from_bytes(text.as_bytes())
            .map_err(|_| "expected the name of a request header")?;
        Ok(Self(name.as_str().to_owned()))
    }
}

impl TryFrom<String> for Variable {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let begins_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if begins_well && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            Ok(Self(text))
        } else {
            Err("expected the name of an environment variable that holds the key, not the key")
        }
    }
}

fn default_admin() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9901))
}

/// Each needs a file descriptor, and one more for its request to a provider.
fn default_max_connections() -> NonZeroU32 {
    const { NonZeroU32::new(10_000).unwrap() }
}

/// Room for fifty of the longest requests at once, or for some thousands of usual ones.
fn default_max_heap_bytes() -> NonZeroU64 {
    const { NonZeroU64::new(2 << 30).unwrap() }
}

/// Where Debian and its derivatives have them, and so the images of Envoy.
fn default_ca_certificates() -> String {
    "/etc/ssl/certs/ca-certificates.crt".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_place_of_its_variable_is_refused_and_not_shown() {
        for text in ["sk-ant-1", "", "1A", "A KEY", "Bearer x"] {
            let problem = Variable::try_from(text.to_owned()).unwrap_err();
            assert_eq!(
                problem,
                "expected the name of an environment variable that holds the key, not the key"
            );
        }
        assert!(Variable::try_from("ANTHROPIC_A_KEY".to_owned()).is_ok());
    }
}
