//! The input of the generator: pools as the filter knows them, and how to reach their providers.
//!
//! Fields of the filter pass through, and the filter itself validates them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};

use hyper::Uri;
use hyper::header::HeaderName;
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    /// Where Envoy listens for clients.
    #[serde(default = "default_listener")]
    pub(super) listener: SocketAddr,
    /// Where its admin interface listens.
    #[serde(default = "default_admin")]
    pub(super) admin: SocketAddr,
    /// The path of the module, relative to where Envoy is started.
    #[serde(default = "default_module")]
    pub(super) module: String,
    /// The certificates by which Envoy trusts providers.
    #[serde(default = "default_ca_certificates")]
    pub(super) ca_certificates: String,
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
    #[serde(rename = "match")]
    pub(super) matches: Option<Value>,
    pub(super) session: Option<Value>,
    pub(super) cache_lifetime: Option<Value>,
    /// The address of its provider.
    pub(super) upstream: Option<Upstream>,
    /// The request header that carries a key.
    pub(super) key_header: Option<KeyHeader>,
    pub(super) credentials: Vec<Credential>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credential {
    pub(super) id: String,
    pub(super) priority: Option<Value>,
    pub(super) weight: Option<Value>,
    pub(super) parent: Option<Value>,
    pub(super) group: Option<Value>,
    pub(super) websockets: Option<Value>,
    pub(super) state: Option<Value>,
    pub(super) disable_cooling: Option<Value>,
    /// The variable with the value of its header.
    pub(super) key: Option<Variable>,
    /// The address of its replica.
    pub(super) endpoint: Option<SocketAddr>,
}

/// `http://127.0.0.1:18001` or `https://api.anthropic.com`: a host, a port, with TLS or without.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Upstream {
    pub(super) tls: bool,
    pub(super) host: Host,
    pub(super) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Address(IpAddr),
    Name(String),
}

/// The name of a request header, in lower case.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct KeyHeader(pub(super) String);

/// The name of an environment variable. A key in its place would be written into a file, so
/// anything else is refused, and not shown.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Variable(pub(super) String);

impl TryFrom<String> for Upstream {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const EXPECTED: &str =
            "expected http or https, a host and perhaps a port, such as https://api.anthropic.com";
        let uri: Uri = text.parse().map_err(|_| EXPECTED)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(EXPECTED),
        };
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'))
            .ok_or(EXPECTED)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err("expected no path: the path of a request does not change");
        }
        let host = match authority.host().trim_matches(['[', ']']).parse() {
            Ok(_) if tls => {
                return Err("expected a name for https: certificates are issued for names");
            }
            Ok(address) => Host::Address(address),
            Err(_) => Host::Name(authority.host().to_ascii_lowercase()),
        };
        let port = match (authority.as_str().ends_with(authority.host()), authority.port_u16()) {
            (true, _) => {
                if tls {
                    443
                } else {
                    80
                }
            }
            (false, port) => port.ok_or(EXPECTED)?,
        };
        Ok(Self { tls, host, port })
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

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::Name(name) => name.fmt(formatter),
        }
    }
}

fn default_listener() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 10000))
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

fn default_module() -> String {
    "dist/session_affinity.wasm".to_owned()
}

/// Where Debian and its derivatives have them, and so the images of Envoy.
fn default_ca_certificates() -> String {
    "/etc/ssl/certs/ca-certificates.crt".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_a_scheme_a_host_and_a_port() {
        for (text, tls, host, port) in [
            ("http://127.0.0.1:18001", false, "127.0.0.1", 18001),
            ("http://[::1]:18001/", false, "::1", 18001),
            ("http://[::1]", false, "::1", 80),
            ("https://API.Anthropic.com", true, "api.anthropic.com", 443),
            ("https://gateway.example:8443", true, "gateway.example", 8443),
            ("http://vllm", false, "vllm", 80),
        ] {
            let host = host.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Address);
            let upstream = Upstream { tls, host, port };
            assert_eq!(Upstream::try_from(text.to_owned()), Ok(upstream), "{text}");
        }
    }

    #[test]
    fn anything_else_is_not_an_upstream() {
        for text in [
            "",
            "api.anthropic.com",
            "//host",
            "ftp://host",
            "http://",
            "http://a b",
            "http://user:key@host",
            "http://host:x",
            "http://host:99999",
            "http://host:",
            "https://127.0.0.1",
            "https://host/v1",
            "https://host?key=1",
            "http://[::1",
        ] {
            assert!(Upstream::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

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
