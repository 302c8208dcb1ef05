//! Pools: which requests they serve, and the credentials they serve them with.

use std::time::Duration;

use serde_json::Value;

use super::Setting;
use super::credential::{Credential, CredentialId, fingerprint};
use super::fields::{Fields, Problems};

/// Identifies a pool in plans of failover: a hash of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolId(pub u64);

/// Credentials that serve the same requests.
#[derive(Debug)]
pub struct Pool {
    /// Unique among the pools.
    pub name: String,
    /// The provider, as in replies and in the key of bindings. `None`: what path and host of the
    /// request tell.
    pub provider: Option<String>,
    /// The requests it serves: those that meet any of these; all requests, if there is none.
    pub matches: Vec<Match>,
    /// Whether its sessions are served by their home or not at all.
    pub strict: bool,
    /// For how long its provider keeps a prompt cached after the last use; `None`: as the
    /// provider's documentation says.
    pub cache_lifetime: Option<Duration>,
    /// What plans of failover call it.
    pub fingerprint: PoolId,
    /// The request headers that carry its credentials: what clients send under these names goes no
    /// further.
    pub key_headers: Vec<String>,
    /// The request headers that keys of credentials are taken from, which go no further either.
    pub source_headers: Vec<String>,
    /// At least one, sorted by id (bytes): ties are resolved in this order.
    pub credentials: Vec<Credential>,
}

/// Requests that a pool serves: those that meet every part that is given. A part that lists
/// several values is met by any of them.
#[derive(Debug, Default)]
pub struct Match {
    /// Beginnings of the path, as whole segments.
    pub path_prefixes: Vec<String>,
    /// Methods, in upper case. An upgrade to a WebSocket is served whatever its method.
    pub methods: Vec<String>,
    /// Hosts, without a port; `*.example.com` matches every name below.
    pub hosts: Vec<String>,
    /// Request headers, with the value they must have, or only present.
    pub headers: Vec<(String, Option<String>)>,
    /// Patterns of model names, `*` standing for any text. A request whose model is not known meets
    /// none.
    pub models: Vec<Pattern>,
}

pub(super) fn read_all(fields: &mut Fields<'_>, setting: &Setting<'_>) -> Vec<Pool> {
    let elements = fields.array("pools");
    if elements.is_empty() {
        fields.problem("pools", "expected at least one pool");
    }
    let mut pools: Vec<Pool> = Vec::new();
    for (path, value) in elements {
        let pool = Pool::read(path.clone(), value, setting, fields.problems());
        if pools.iter().any(|other| !pool.name.is_empty() && other.name == pool.name) {
            fields.problems().add(
                &format!("{path}.name"),
                format!("{:?} is the name of an earlier pool", pool.name),
            );
        }
        pools.push(pool);
    }
    pools
}

impl Pool {
    fn read(path: String, value: Value, setting: &Setting<'_>, problems: &mut Problems) -> Self {
        let mut fields = Fields::new(path, value, problems);
        let name = fields.required_word("name");
        let provider = fields.word("provider");
        let matches = fields.one_or_more("match");
        let matches = matches
            .into_iter()
            .map(|(path, value)| Match::read(Fields::new(path, value, fields.problems())))
            .collect();
        let elements = fields.array("credentials");
        if elements.is_empty() {
            fields.problem("credentials", "expected at least one credential");
        }
        let mut credentials: Vec<Credential> = Vec::new();
        for (path, value) in elements {
            let credential =
                Credential::read(path.clone(), value, setting, &name, fields.problems());
            if credentials
                .iter()
                .any(|other| !other.id.is_empty() && other.fingerprint == credential.fingerprint)
            {
                let problem =
                    format!("{:?} is the id of an earlier credential of this pool", credential.id);
                fields.problems().add(&format!("{path}.id"), problem);
            }
            let at = credentials.partition_point(|other| other.id < credential.id);
            credentials.insert(at, credential);
        }
        let mut session = fields.object("session");
        let strict = session.boolean("strict").unwrap_or(setting.strict);
        session.finish();
        let cache_lifetime = fields.duration("cache_lifetime");
        fields.finish();
        let headers: Vec<_> = credentials.iter().flat_map(|it| &it.headers).collect();
        let key_headers = distinct(headers.iter().map(|header| header.name.as_str()));
        let source_headers = distinct(headers.iter().filter_map(|header| header.value.source()));
        Self {
            fingerprint: PoolId(fingerprint(&[&name])),
            name,
            provider,
            matches,
            strict,
            cache_lifetime,
            key_headers,
            source_headers,
            credentials,
        }
    }

    /// The credential that bindings and plans know by this fingerprint.
    pub fn credential(&self, id: CredentialId) -> Option<&Credential> {
        self.credentials.iter().find(|credential| credential.fingerprint == id)
    }
}

impl Pool {
    /// Whether the filter puts keys into requests.
    pub fn injects_keys(&self) -> bool {
        !self.key_headers.is_empty()
    }

    /// Whether a credential is reached as another one of the pool is: what fails below the
    /// credentials is not theirs.
    pub fn shares_endpoint(&self, credential: &Credential) -> bool {
        self.credentials.iter().any(|other| {
            other.fingerprint != credential.fingerprint
                && other.cluster == credential.cluster
                && other.endpoint == credential.endpoint
        })
    }

    /// The credential that is a cluster by itself; `None` if several share it, or it is another's.
    pub fn only_credential_of(&self, cluster: &str) -> Option<&Credential> {
        let mut members = self.credentials.iter().filter(|it| it.cluster == cluster);
        members.next().filter(|_| members.next().is_none())
    }
}

impl Match {
    fn read(mut fields: Fields<'_>) -> Self {
        let path_prefixes = fields.strings("path_prefixes");
        let methods = fields.strings("methods").iter().map(|it| it.to_ascii_uppercase()).collect();
        let hosts = fields.strings("hosts").iter().map(|host| host.to_ascii_lowercase()).collect();
        let headers = fields.array("headers").into_iter().map(|(path, value)| {
            let mut header = Fields::new(path, value, fields.problems());
            let matcher =
                (header.required_string("name").to_ascii_lowercase(), header.string("value"));
            header.finish();
            matcher
        });
        let headers = headers.collect();
        let models = fields.strings("models").into_iter().map(Pattern).collect();
        fields.finish();
        Self { path_prefixes, methods, hosts, headers, models }
    }
}

fn distinct<'t>(names: impl Iterator<Item = &'t str>) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::new();
    for name in names {
        if distinct.iter().all(|known| known != name) {
            distinct.push(name.to_owned());
        }
    }
    distinct
}

/// A text in which `*` matches any text, also an empty one.
#[derive(Debug)]
pub struct Pattern(pub(super) String);

impl Pattern {
    /// The only text that fits, if there is only one.
    pub fn literal(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(self.0.as_str())
    }

    /// Whether the whole of a text fits.
    pub fn is_match(&self, text: &str) -> bool {
        let Some((beginning, rest)) = self.0.split_once('*') else {
            return self.0 == text;
        };
        let (middles, ending) = rest.rsplit_once('*').unwrap_or(("", rest));
        let Some(mut text) =
            text.strip_prefix(beginning).and_then(|text| text.strip_suffix(ending))
        else {
            return false;
        };
        // The first place at which a part fits leaves the most room for those behind it.
        middles.split('*').all(|part| match text.split_once(part) {
            Some((_, behind)) => {
                text = behind;
                true
            }
            None => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_the_regular_expression_that_it_abbreviates() {
        let texts = [
            "",
            "a",
            "b",
            "ab",
            "aba",
            "abab",
            "claude-opus-4",
            "claude-",
            "gpt-5.4",
            "gpt-5x4",
            "a*b",
            "ba",
            "aab",
        ];
        for pattern in [
            "", "*", "**", "a", "a*", "*a", "a*a", "*a*", "a*b*a", "a**b", "claude-*", "gpt-5.*",
            "ab*ab", "*ab*b",
        ] {
            let parts: Vec<_> = pattern.split('*').map(regex::escape).collect();
            let expression = regex::Regex::new(&format!("^{}$", parts.join(".*"))).unwrap();
            for text in texts {
                assert_eq!(
                    Pattern(pattern.to_owned()).is_match(text),
                    expression.is_match(text),
                    "{pattern:?} {text:?}"
                );
            }
        }
    }
}
