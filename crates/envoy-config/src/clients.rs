//! Who may use the gateway: clients with a key of their own, or with a token of the company's.
//!
//! Envoy's own filters decide that, in front of the filter. Keys are in a file that Envoy watches, and
//! never in the configuration; neither keys nor tokens reach an upstream. Both ways give each client a
//! name that it cannot choose, and sessions of different names never meet.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::input::AbsolutePath;
use super::socket_address::SocketAddress;
use super::split::{File, resource};
use super::upstream::{Host, Upstream};

/// The header in which Envoy names a client to the filter.
const NAME: &str = "x-gateway-client";
/// The filter that asks for keys.
const API_KEYS: &str = "envoy.filters.http.api_key_auth";
/// Headers in which clients send what they take for the provider's key.
const KEY_SOURCES: [&str; 4] = ["x-api-key", "authorization", "x-goog-api-key", "api-key"];

/// Who may use the gateway.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Clients {
    /// Whoever has a key of this file.
    ApiKeys(AbsolutePath),
    /// Whoever has a token of this issuer.
    Jwt(Jwt),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Jwt {
    issuer: Name,
    #[serde(default)]
    audiences: Vec<Name>,
    /// Where the issuer's public keys are.
    jwks: Jwks,
    /// The claim that names the tenant.
    #[serde(default = "default_claim")]
    claim: Name,
}

/// A text that is not empty: of an issuer without a name Envoy would take every token.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
struct Name(String);

/// A URL, or the path of a file.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
enum Jwks {
    File(String),
    Url(String, Box<Upstream>),
}

/// As the templates read it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Gate {
    /// The file with keys.
    pub(super) keys: Option<String>,
    keys_directory: Option<String>,
    /// The header that names a client, which goes no further than the filter.
    name: &'static str,
    token: Option<Token>,
    /// Whether files are not there yet: Envoy only reads the configuration.
    is_trial: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Token {
    issuer: Name,
    audiences: Vec<Name>,
    file: Option<String>,
    service: Option<Service>,
}

/// Where public keys are fetched.
#[derive(Clone, Debug, Serialize)]
struct Service {
    url: String,
    endpoint: SocketAddress,
    discovery: &'static str,
    tls_name: Option<String>,
}

impl Clients {
    /// What Envoy is going to ask clients for.
    pub(super) fn gate(&self) -> Gate {
        let (keys, token) = match self {
            Self::ApiKeys(path) => (Some(path.0.clone()), None),
            Self::Jwt(jwt) => (None, Some(jwt.token())),
        };
        let directory =
            |path: &String| path.rsplit_once('/').map_or("/", |(parent, _)| parent).to_owned();
        let keys_directory = keys.as_ref().map(directory);
        let keys_directory =
            keys_directory.map(|it| if it.is_empty() { "/".to_owned() } else { it });
        Gate { keys, keys_directory, name: NAME, token, is_trial: false }
    }

    /// Separates the sessions of different clients, unless the input says what separates them.
    pub(super) fn scope(&self, filter: &mut Map<String, Value>) {
        let part = match self {
            Self::ApiKeys(_) => json!({"header": NAME, "required": true}),
            Self::Jwt(jwt) => {
                let payload =
                    ["metadata", "filter_metadata", "envoy.filters.http.jwt_authn", "payload"];
                let path: Vec<_> = payload.into_iter().chain([jwt.claim.0.as_str()]).collect();
                json!({"property": path, "required": true})
            }
        };
        let session = filter.entry("session").or_insert_with(|| json!({}));
        if let Some(session) = session.as_object_mut() {
            session.entry("scope").or_insert_with(|| json!([part]));
        }
    }
}

impl Jwt {
    fn token(&self) -> Token {
        let (file, service) = match &self.jwks {
            Jwks::File(path) => (Some(path.clone()), None),
            Jwks::Url(url, upstream) => (None, Some(Service::of(url, upstream))),
        };
        Token { issuer: self.issuer.clone(), audiences: self.audiences.clone(), file, service }
    }
}

impl Service {
    fn of(url: &str, upstream: &Upstream) -> Self {
        Self {
            url: url.to_owned(),
            endpoint: SocketAddress::new(&upstream.host, upstream.port),
            discovery: match upstream.host {
                Host::Address(_) => "STATIC",
                Host::Name(_) => "LOGICAL_DNS",
            },
            tls_name: upstream.tls.as_ref().map(|tls| tls.name.clone()),
        }
    }
}

impl Gate {
    /// The same for an Envoy that has not its files.
    pub(super) fn on_trial(&self) -> Self {
        Self { is_trial: true, ..self.clone() }
    }
}

impl TryFrom<String> for Jwks {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.starts_with('/') {
            return Ok(Self::File(text));
        }
        let upstream = Upstream::of_url(&text)?;
        Ok(Self::Url(text, Box::new(upstream)))
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.trim().is_empty() {
            Err("expected a name that is not empty")
        } else {
            Ok(Self(text))
        }
    }
}

fn default_claim() -> Name {
    Name("sub".to_owned())
}

/// The file with the keys of clients: each with the name of its client.
pub fn file<'a>(clients: impl IntoIterator<Item = (&'a str, &'a str)>) -> File {
    let credentials: Vec<_> =
        clients.into_iter().map(|(client, key)| json!({"client": client, "key": key})).collect();
    let sources: Vec<_> = KEY_SOURCES.iter().map(|name| json!({"header": name})).collect();
    let filter = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth",
        "credentials": credentials,
        "key_sources": sources,
        "forwarding": {"header": NAME, "hide_credentials": true},
    });
    let extension = json!({"name": API_KEYS, "typed_config": filter});
    let extension = resource("envoy.config.core.v3.TypedExtensionConfig", extension);
    File::of_resources("clients.yaml", vec![extension])
}
