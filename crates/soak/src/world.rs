//! The pools and credentials of a run.

use envoy_harness::Mode;

use crate::history::Name;

/// A pool, and the dialects that it serves.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) name: &'static str,
    pub(crate) provider: &'static str,
    pub(crate) api: &'static str,
    pub(crate) key_header: &'static str,
    pub(crate) credentials: &'static [Name],
    pub(crate) dialects: &'static [Dialect],
    pub(crate) models: &'static [&'static str],
}

/// A way to talk to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Chat,
    Responses,
    Messages,
    Gemini,
}

/// All pools of a configuration with keys.
pub(crate) static POOLS: [Pool; 3] = [
    Pool {
        name: "openai",
        provider: "openai",
        api: "openai",
        key_header: "authorization",
        credentials: &["openai-a", "openai-b", "openai-c", "openai-d"],
        dialects: &[Dialect::Chat, Dialect::Responses],
        models: &["gpt-5.6", "gpt-5.6-mini"],
    },
    Pool {
        name: "anthropic",
        provider: "claude",
        api: "anthropic",
        key_header: "x-api-key",
        credentials: &["anthropic-a", "anthropic-b", "anthropic-c", "anthropic-d"],
        dialects: &[Dialect::Messages],
        models: &["claude-sonnet-4-5", "claude-haiku-4-5"],
    },
    Pool {
        name: "gemini",
        provider: "gemini",
        api: "gemini",
        key_header: "x-goog-api-key",
        credentials: &["gemini-a", "gemini-b", "gemini-c"],
        dialects: &[Dialect::Gemini],
        models: &["gemini-2.5-pro", "gemini-2.5-flash"],
    },
];

/// The pool of self-hosted servers, which have addresses in place of keys.
pub(crate) static REPLICAS: [Pool; 1] = [Pool {
    name: "replicas",
    provider: "openai",
    api: "openai",
    key_header: "",
    credentials: &["replica-a", "replica-b", "replica-c", "replica-d"],
    dialects: &[Dialect::Chat, Dialect::Responses],
    models: &["llama-4", "qwen-3"],
}];

/// The pools of a way.
pub(crate) fn pools(mode: Mode) -> &'static [Pool] {
    if mode == Mode::Replicas { &REPLICAS } else { &POOLS }
}

/// Whether all credentials of a pool are behind one port.
pub(crate) fn shares_port(mode: Mode) -> bool {
    mode == Mode::Keys
}

/// The pool of a credential.
pub(crate) fn pool_of(credential: &str) -> Option<&'static Pool> {
    let mut all = POOLS.iter().chain(&REPLICAS);
    all.find(|pool| pool.credentials.contains(&credential))
}

/// The key of a credential, as it stands in its header.
pub(crate) fn key(credential: &str) -> String {
    let key = format!("sk-soak-{credential}");
    if credential.starts_with("openai") { format!("Bearer {key}") } else { key }
}

/// The credential that has this key.
pub(crate) fn owner(key: &[u8]) -> Option<Name> {
    let key = std::str::from_utf8(key).ok()?;
    let name = key.strip_prefix("Bearer ").unwrap_or(key).strip_prefix("sk-soak-")?;
    POOLS.iter().flat_map(|pool| pool.credentials).find(|it| **it == name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lead_back_to_their_credentials() {
        for credential in POOLS.iter().flat_map(|pool| pool.credentials) {
            assert_eq!(owner(key(credential).as_bytes()), Some(*credential));
            assert!(pool_of(credential).is_some());
        }
        assert_eq!(owner(b"Bearer sk-client"), None);
    }
}
