//! The filter's configuration: read once, checked whole, then true.
//!
//! What was typed becomes what the filter needs in one step; after it nothing is checked again. All problems are found
//! at once, each with its path, and with any of them the filter refuses to start.

mod duration;
mod envoy_struct;
mod fields;
mod pool;

use serde_json::Value;

use fields::Fields;
pub use fields::Problems;
pub use pool::{Credential, Match, Pattern, Pool, State};

/// A configuration without a problem.
#[derive(Debug)]
pub struct Config {
    /// How credentials are chosen, and how the choice is told to Envoy.
    pub routing: Routing,
    /// The most bindings that are kept; the least recently used of a row gives way. 16 to 16,777,216, default 65,536.
    pub max_bindings: u32,
    /// Bytes of a request body that are held and read. 1 to 1 GiB, default 8 MiB.
    pub body_max_bytes: usize,
    /// The pools, in the order in which they are tried.
    pub pools: Vec<Pool>,
    /// What works, but should be written otherwise: for the log.
    pub warnings: Vec<String>,
}

/// The section `routing`.
#[derive(Debug)]
pub struct Routing {
    /// How the credential of a new session is chosen.
    pub strategy: Strategy,
    /// Whether sessions keep their credential.
    pub session_affinity: bool,
    /// Milliseconds after its last use at which a binding ends. At least 1, default one hour.
    pub ttl: u64,
    /// The request header that names the cluster.
    pub header: String,
    /// The filter state that names the cluster; Envoy shows it as `wasm.<name>`.
    pub filter_state: String,
}

/// How the credential of a new session is chosen among the ready ones of the highest priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Each in turn, for every provider and model apart.
    RoundRobin,
    /// Always the first by id, until it is not ready.
    FillFirst,
}

impl Config {
    /// Reads what Envoy hands over: JSON, or the bytes of a `google.protobuf.Struct`.
    ///
    /// # Errors
    /// Every problem there is.
    pub fn parse(bytes: &[u8]) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        // No message is also JSON: a `Struct` begins with a line feed and a length, and no length goes on as JSON does.
        let value = serde_json::from_slice(bytes).or_else(|error| envoy_struct::decode(bytes).ok_or(error));
        let config = match value {
            Ok(value) => Self::read(value, &mut problems),
            Err(error) => {
                problems.add("", format!("not JSON: {error}"));
                return Err(problems);
            }
        };
        if problems.lines().is_empty() { Ok(config) } else { Err(problems) }
    }

    fn read(value: Value, problems: &mut Problems) -> Self {
        let mut warnings = Vec::new();
        let mut fields = Fields::new(String::new(), value, problems);
        let routing = Routing::read(fields.object("routing"), &mut warnings);

        let mut session = fields.object("session");
        let max_bindings = session.integer_within("max_bindings", 16, 1 << 24).unwrap_or(65_536);
        session.finish();

        let mut body = fields.object("body");
        let body_max_bytes = body.integer_within("max_bytes", 1, 1 << 30).unwrap_or(8 << 20);
        body.finish();

        let pools = pool::read_all(&mut fields);
        fields.finish();
        Self { routing, max_bindings: max_bindings as u32, body_max_bytes: body_max_bytes as usize, pools, warnings }
    }
}

impl Routing {
    fn read(mut fields: Fields<'_>, warnings: &mut Vec<String>) -> Self {
        let strategy = fields.string("strategy").and_then(|name| match name.trim().to_ascii_lowercase().as_str() {
            "round-robin" | "round_robin" | "roundrobin" | "rr" => Some(Strategy::RoundRobin),
            "fill-first" | "fill_first" | "fillfirst" | "ff" => Some(Strategy::FillFirst),
            _ => {
                fields.problem("strategy", format!("expected round-robin or fill-first, found {name:?}"));
                None
            }
        });
        let affinity = fields.boolean("session_affinity");
        let deprecated = fields.boolean("claude_code_session_affinity");
        if deprecated.is_some() {
            warnings
                .push("routing.claude_code_session_affinity is deprecated: use routing.session_affinity".to_owned());
        }
        let ttl = fields.string("session_affinity_ttl").and_then(|text| match duration::milliseconds(text.trim()) {
            Some(ttl) if ttl > 0 => Some(ttl),
            _ => {
                fields.problem(
                    "session_affinity_ttl",
                    format!("expected a duration such as 1h, 90s or 1h30m, found {text:?}"),
                );
                None
            }
        });
        let header = fields.string("header").map(|name| name.to_ascii_lowercase());
        if header.as_deref().is_some_and(|name| !is_header_name(name)) {
            fields.problem("header", "expected the name of a request header");
        }
        let filter_state = fields.word("filter_state");
        fields.finish();
        Self {
            strategy: strategy.unwrap_or(Strategy::RoundRobin),
            session_affinity: match (affinity, deprecated) {
                (None, None) => true,
                (affinity, deprecated) => affinity.unwrap_or(false) || deprecated.unwrap_or(false),
            },
            ttl: ttl.unwrap_or(3_600_000),
            header: header.unwrap_or_else(|| "x-session-affinity-cluster".to_owned()),
            filter_state: filter_state.unwrap_or_else(|| "session_affinity.cluster".to_owned()),
        }
    }
}

/// Whether a name is a header's that a filter may set: a token of RFC 9110, and no pseudo header.
fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
