//! Groups: credentials of one organization and workspace (or project).
//!
//! Such credentials share what the provider keeps: prompt caches, files, threads, encrypted
//! reasoning. So a request that cannot be served by its credential is better served by a sibling
//! than by any other. But they share limits too: the rate limits of Anthropic and OpenAI are those
//! of the organization, Gemini's those of the project. After a limit siblings come last.
//!
//! The operator names groups (`credentials[].group`), or they are learned: responses of Anthropic
//! and OpenAI name organization and workspace. Only a hash of them is kept.

use crate::config::{Credential, Pool};
use crate::hash::Seed;
use crate::request::Headers;
use crate::shared::{self, SharedData};

/// What a group is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupId(u64);

/// The response headers that name an organization and a part of it. Sources: the SDKs of Anthropic
/// and OpenAI.
const HEADERS: [(&str, &str); 2] = [
    ("anthropic-organization-id", "anthropic-workspace-id"),
    ("openai-organization", "openai-project"),
];

impl GroupId {
    /// The group that the operator gave a name.
    pub fn named(name: &str) -> Self {
        Self::of_parts(Seed::STABLE, &[b"named", name.as_bytes()])
    }

    /// The group that the headers of a response name; `None` if they name none. An organization
    /// alone is no group: what it keeps may be another workspace's.
    pub fn of_response(headers: &Headers, seed: Seed) -> Option<Self> {
        HEADERS.iter().find_map(|(organization, part)| {
            let (organization, part) = (headers.first(organization)?, headers.first(part)?);
            Some(Self::of_parts(seed, &[b"learned", organization, part]))
        })
    }

    /// A few digits by which the operator's page tells groups apart.
    pub fn tag(self) -> u32 {
        self.0 as u32
    }

    fn of_parts(seed: Seed, parts: &[&[u8]]) -> Self {
        Self(seed.hash(parts).0 as u64)
    }
}

/// The group of a credential, as far as it is known.
pub fn of(credential: &Credential, shared: &impl SharedData) -> Option<GroupId> {
    credential.group.or_else(|| {
        let stored = shared.get(&credential.group_key).value;
        stored.try_into().ok().map(|bytes| GroupId(u64::from_le_bytes(bytes)))
    })
}

/// Keeps the group that a response of a credential named. Returns whether that could be written.
pub fn learn(credential: &Credential, group: GroupId, shared: &impl SharedData) -> bool {
    if credential.group.is_some() {
        return true;
    }
    let bytes = group.0.to_le_bytes();
    let learned = shared::update(shared, &credential.group_key, |known| {
        ((known != bytes).then(|| bytes.to_vec()), ())
    });
    learned.written
}

/// Every key of shared data that groups of a pool use.
pub fn keys(pool: &Pool) -> impl Iterator<Item = String> + '_ {
    pool.credentials.iter().map(|credential| credential.group_key.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(headers: &[(&str, &str)]) -> Option<GroupId> {
        GroupId::of_response(&headers.iter().copied().collect(), Seed::STABLE)
    }

    #[test]
    fn organization_and_workspace_together_are_a_group() {
        let group = |organization, workspace| {
            learned(&[
                ("anthropic-organization-id", organization),
                ("anthropic-workspace-id", workspace),
            ])
        };
        assert!(group("o", "w").is_some());
        assert_eq!(group("o", "w"), group("o", "w"));
        assert_ne!(group("o", "w"), group("o", "x"));
        assert_ne!(group("o", "w"), group("p", "w"));
        assert_eq!(learned(&[("anthropic-organization-id", "o")]), None);
        assert_ne!(
            learned(&[("openai-organization", "o"), ("openai-project", "w")]),
            None,
            "OpenAI names a project"
        );
        assert_eq!(learned(&[]), None);
    }
}
