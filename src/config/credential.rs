//! Credentials: one way to a provider each.

use std::hash::Hasher;
use std::net::SocketAddr;

use fnv::FnvHasher;
use serde_json::Value;

use super::fields::{Fields, Problems};
use super::{Profile, Secret, Setting};
use crate::group::GroupId;

/// Identifies a credential within its pool, in bindings and plans: a hash of its id. It outlives
/// reorderings of the configuration, and listener and clusters agree on it without being updated at
/// the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CredentialId(pub u64);

/// One way to a provider: an API key, a subscription, a workspace, a replica.
#[derive(Debug)]
pub struct Credential {
    /// Unique in its pool. Bindings name it, so it should outlive reorderings of the configuration.
    pub id: String,
    /// The cluster that serves it.
    pub cluster: String,
    /// The endpoint that it is, an IP address with its port, in a cluster of the type ORIGINAL_DST;
    /// `None` in any other.
    pub endpoint: Option<String>,
    /// The request headers that carry it, for clusters that several credentials share.
    pub headers: Vec<CredentialHeader>,
    /// Higher goes first. Envoy's own priorities run the other way.
    pub priority: i64,
    /// Credentials of one parent (an account, say) share a turn in round-robin.
    pub parent: Option<String>,
    /// Its share among credentials that take turns, 0 to 1,000,000; 0 takes no new session. Default
    /// 1.
    pub weight: u32,
    /// Whether errors block it; `None`: as `disable_cooling` at the top says.
    pub disable_cooling: Option<bool>,
    /// Preferred for WebSocket streams.
    pub websockets: bool,
    /// Whether it serves.
    pub availability: Availability,
    /// The group that the operator says it belongs to.
    pub group: Option<GroupId>,
    /// The key of shared data under which the group is kept that responses name.
    pub group_key: String,
    /// The most requests at once: beyond it new sessions go elsewhere.
    pub max_concurrent: Option<u32>,
    /// The keys of shared data under which its load and its requests in flight are kept.
    pub load_key: String,
    pub flights_key: String,
    /// What bindings and plans store in place of the id.
    pub fingerprint: CredentialId,
    /// The key of shared data under which its cooldowns are kept.
    pub cooldown_key: String,
    /// A hash of what the credential is: with another cluster, endpoint or key header it starts
    /// without cooldowns.
    pub entry: u32,
}

/// Whether a credential serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Serves bound and new sessions.
    Active,
    /// Serves the sessions bound to it until they go idle, and takes no new one.
    Drain,
    /// Serves none.
    Disabled,
}

/// A request header that carries a credential.
#[derive(Debug)]
pub struct CredentialHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: HeaderValue,
}

/// The value of a credential's header.
#[derive(Debug)]
pub enum HeaderValue {
    /// From an environment variable of the VM, read when the filter starts.
    Secret(Secret),
    /// From a request header that a filter in front fills for every attempt, and that goes no
    /// further.
    Header {
        /// Its name.
        name: String,
        /// What the credential's header has in front of it, such as `Bearer `.
        prefix: String,
    },
}

impl HeaderValue {
    /// The request header that it is taken from, if it is.
    pub fn source(&self) -> Option<&str> {
        match self {
            Self::Secret(_) => None,
            Self::Header { name, .. } => Some(name),
        }
    }
}

impl Credential {
    pub(super) fn read(
        path: String,
        value: Value,
        setting: &Setting<'_>,
        pool: &str,
        problems: &mut Problems,
    ) -> Self {
        let mut fields = Fields::new(path, value, problems);
        let id = fields.required_word("id");
        let cluster = fields.required_word("cluster");
        let priority = match setting.profile {
            Profile::Recommended => fields.integer("priority"),
            Profile::Reference => {
                fields.attribute("priority").map(|text| reference_priority(&text))
            }
        };
        let weight = fields.integer_within("weight", 0, 1_000_000).unwrap_or(1) as u32;
        let disable_cooling = fields.boolean("disable_cooling");
        let max_concurrent = fields.integer_within("max_concurrent", 1, 65_535);
        if max_concurrent.is_some() && setting.profile == Profile::Reference {
            fields.problem("max_concurrent", "the profile reference counts no requests");
        }
        let parent = fields
            .string("parent")
            .map(|parent| parent.trim().to_owned())
            .filter(|parent| !parent.is_empty());
        let websockets = fields.boolean("websockets").unwrap_or(false);
        let endpoint = fields.word("endpoint");
        if endpoint.as_deref().is_some_and(|endpoint| endpoint.parse::<SocketAddr>().is_err()) {
            fields.problem("endpoint", "expected an IP address and a port, such as 10.0.0.1:8000");
        }
        let mut headers: Vec<CredentialHeader> = Vec::new();
        for (path, value) in fields.array("headers") {
            let Some(header) =
                CredentialHeader::read(path.clone(), value, setting, fields.problems())
            else {
                continue;
            };
            if headers.iter().any(|other| other.name == header.name) {
                fields.problems().add(
                    &format!("{path}.name"),
                    "an earlier header of this credential has this name",
                );
            }
            headers.push(header);
        }
        let states = [
            ("active", Availability::Active),
            ("drain", Availability::Drain),
            ("disabled", Availability::Disabled),
        ];
        let availability = fields.one_of("state", &states);
        let group = fields.word("group").as_deref().map(GroupId::named);
        fields.finish();
        let digits = fingerprint(&[pool, "\0", &id]);
        Self {
            fingerprint: CredentialId(fingerprint(&[&id])),
            entry: entry(&cluster, endpoint.as_deref(), &headers),
            cooldown_key: format!("session_affinity/credential/{digits:016x}"),
            group_key: format!("session_affinity/group/{digits:016x}"),
            load_key: format!("session_affinity/load/{digits:016x}"),
            flights_key: format!("session_affinity/flights/{digits:016x}"),
            max_concurrent: max_concurrent.map(|most| most as u32),
            group,
            id,
            cluster,
            endpoint,
            headers,
            priority: priority.unwrap_or(0),
            parent,
            weight,
            disable_cooling,
            websockets,
            availability: availability.unwrap_or(Availability::Active),
        }
    }
}

impl CredentialHeader {
    fn read(
        path: String,
        value: Value,
        setting: &Setting<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let mut fields = Fields::new(path, value, problems);
        let name = fields.required_header_name("name");
        let prefix = fields.string("prefix").unwrap_or_default();
        if !prefix.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            fields.problem("prefix", "expected visible ASCII characters and spaces");
        }
        let value = match (fields.string("environment"), fields.header_name("header")) {
            (Some(variable), None) => match Secret::read(&variable, &prefix, setting.environment) {
                Ok(secret) => Some(HeaderValue::Secret(secret)),
                Err(problem) => fields.wrong("environment", problem),
            },
            (None, Some(name)) => Some(HeaderValue::Header { name, prefix }),
            _ => fields.wrong("", "expected either `environment` or `header`"),
        };
        fields.finish();
        Some(Self { name, value: value? })
    }
}

/// What distinguishes one entry of a credential from another. The keys themselves do not count:
/// they are read from the environment when Envoy starts, and shared data ends with it.
fn entry(cluster: &str, endpoint: Option<&str>, headers: &[CredentialHeader]) -> u32 {
    let mut parts = vec![cluster, "\0", endpoint.unwrap_or_default()];
    for header in headers {
        parts.extend(["\0", &header.name, "\0", header.value.source().unwrap_or_default()]);
    }
    fingerprint(&parts) as u32
}

/// FNV-1a. Ids are the operator's, so no client gains by finding two that collide; that none of one
/// pool do is checked where the pool is read.
pub(super) fn fingerprint(parts: &[&str]) -> u64 {
    let mut hasher = FnvHasher::default();
    parts.iter().for_each(|part| hasher.write(part.as_bytes()));
    hasher.finish()
}

/// A priority as the reference reads its attribute: a decimal number with an optional sign, spaces
/// around it ignored; anything else is 0.
fn reference_priority(text: &str) -> i64 {
    text.trim().parse().unwrap_or(0)
}
