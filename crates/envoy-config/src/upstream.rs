//! Where a provider is: a URL, and what else a connection to it needs.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// `https://api.anthropic.com`, or an object with the URL and more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) tls: Option<Tls>,
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) base: Option<BasePath>,
    pub(super) http2: bool,
    /// How long a connection without a request is kept.
    pub(super) idle_timeout: Option<String>,
}

/// What a certificate has to show, and who has to have signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tls {
    /// The name that is asked for and that the certificate has to have.
    pub(super) name: String,
    /// The file of the certificates that are trusted, if not those of the whole input.
    pub(super) ca_certificates: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Address(IpAddr),
    Name(String),
}

/// How the path of a request changes on its way to the upstream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BasePath {
    /// What it begins with, ending with `/`; a request that begins otherwise keeps its path.
    pub(super) from: String,
    /// What stands there instead.
    pub(super) to: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    url: String,
    sni: Option<String>,
    ca_certificates: Option<String>,
    #[serde(default)]
    http2: bool,
    replaces: Option<String>,
    idle_timeout: Option<String>,
}

const EXPECTED: &str =
    "expected http or https, a host and perhaps a port, such as https://api.anthropic.com";

impl Upstream {
    /// That of a URL alone.
    pub(super) fn of_url(url: &str) -> Result<Self, &'static str> {
        Self::new(Object { url: url.to_owned(), ..Object::default() })
    }

    fn new(object: Object) -> Result<Self, &'static str> {
        let uri: Uri = object.url.parse().map_err(|_| EXPECTED)?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(EXPECTED),
        };
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'))
            .ok_or(EXPECTED)?;
        if uri.query().is_some() {
            return Err("expected no query: that of a request does not change");
        }
        let host = match authority.host().trim_matches(['[', ']']).parse() {
            Ok(address) => Host::Address(address),
            Err(_) => Host::Name(authority.host().to_ascii_lowercase()),
        };
        let port = match (authority.as_str().ends_with(authority.host()), authority.port_u16()) {
            (true, _) if is_https => 443,
            (true, _) => 80,
            (false, port) => port.ok_or(EXPECTED)?,
        };
        let tls = match (&host, object.sni) {
            (_, None) if !is_https && object.ca_certificates.is_none() => None,
            _ if !is_https => return Err("expected https: without it there is no certificate"),
            (_, Some(name)) if name.is_empty() => return Err("expected a name for `sni`"),
            (_, Some(name)) => Some(name),
            (Host::Name(name), None) => Some(name.clone()),
            (Host::Address(_), None) => {
                return Err(
                    "expected a name for https, because certificates are issued for names: as the host, or \
                     as `sni` beside an address",
                );
            }
        };
        let ca_certificates = object.ca_certificates;
        let tls = tls.map(|name| Tls { name, ca_certificates });
        let base = BasePath::new(uri.path(), object.replaces)?;
        let idle_timeout = object.idle_timeout;
        if idle_timeout.as_deref().is_some_and(|text| !is_seconds(text)) {
            return Err("expected seconds for `idle_timeout`, such as 4s");
        }
        Ok(Self { tls, host, port, base, http2: object.http2, idle_timeout })
    }
}

impl BasePath {
    /// That of a URL as providers document it for their SDKs. Where it ends with a version, the path
    /// of a request has one, too, in the same place.
    fn new(path: &str, replaces: Option<String>) -> Result<Option<Self>, &'static str> {
        const REPLACES: &str = "expected the beginning of a path for `replaces`, such as /v1";
        let base = path.trim_end_matches('/');
        let last = base.rsplit('/').next().unwrap_or_default();
        let is_version = last
            .strip_prefix('v')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let from = match replaces {
            Some(from) if from.starts_with('/') => from.trim_end_matches('/').to_owned(),
            Some(_) => return Err(REPLACES),
            None if is_version => "/v1".to_owned(),
            None => String::new(),
        };
        let (from, to) = (format!("{from}/"), format!("{base}/"));
        Ok((from != to).then_some(Self { from, to }))
    }
}

/// Whether a text is a time as Envoy writes it.
fn is_seconds(text: &str) -> bool {
    let digits = text.strip_suffix('s').unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UrlOrObject;

        impl<'de> Visitor<'de> for UrlOrObject {
            type Value = Object;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a URL, or an object with a `url`")
            }

            fn visit_str<E: Error>(self, url: &str) -> Result<Object, E> {
                let url = url.to_owned();
                Ok(Object { url, ..Object::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object, A::Error> {
                Object::deserialize(MapAccessDeserializer::new(map))
            }
        }

        let object = deserializer.deserialize_any(UrlOrObject)?;
        Self::new(object).map_err(D::Error::custom)
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<Upstream, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

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
            let upstream = read(json!(text)).unwrap();
            let name = tls.then(|| host.to_owned());
            assert_eq!(upstream.tls.map(|tls| tls.name), name, "{text}");
            let host = host.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Address);
            assert_eq!((upstream.host, upstream.port), (host, port), "{text}");
            assert_eq!((upstream.base, upstream.http2), (None, false), "{text}");
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
            "https://host?key=1",
            "http://[::1",
        ] {
            assert!(read(json!(text)).is_err(), "{text}");
        }
        for object in [
            json!({"sni": "a"}),
            json!({"url": "http://a", "sni": "a"}),
            json!({"url": "http://a", "ca_certificates": "/ca.pem"}),
            json!({"url": "https://a", "replaces": "v1"}),
            json!({"url": "https://a", "port": 1}),
            json!({"url": "https://a", "idle_timeout": "4m"}),
            json!(7),
        ] {
            assert!(read(object.clone()).is_err(), "{object}");
        }
    }

    #[test]
    fn a_base_path_is_what_sdks_are_given() {
        for (url, replaces, expected) in [
            ("https://host", None, None),
            ("https://host/", None, None),
            ("https://host/v1", None, None),
            ("https://openrouter.example/api/v1", None, Some(("/v1/", "/api/v1/"))),
            ("https://openrouter.example/api", None, Some(("/", "/api/"))),
            ("https://zhipu.example/api/paas/v4/", None, Some(("/v1/", "/api/paas/v4/"))),
            ("https://azure.example/openai/v1", None, Some(("/v1/", "/openai/v1/"))),
            (
                "https://google.example/v1beta/openai",
                Some("/v1"),
                Some(("/v1/", "/v1beta/openai/")),
            ),
        ] {
            let upstream = read(json!({"url": url, "replaces": replaces})).unwrap();
            let base = upstream.base.as_ref().map(|it| (it.from.as_str(), it.to.as_str()));
            assert_eq!(base, expected, "{url}");
        }
    }

    #[test]
    fn a_certificate_may_have_another_name_and_another_signer() {
        let own = json!({"url": "https://10.0.0.1:8443", "sni": "llm.internal", "ca_certificates": "/ca.pem"});
        let tls =
            Tls { name: "llm.internal".to_owned(), ca_certificates: Some("/ca.pem".to_owned()) };
        assert_eq!(read(own).unwrap().tls, Some(tls));
    }
}
