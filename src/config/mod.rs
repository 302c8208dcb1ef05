//! The filter's configuration: read once, checked whole, then true.
//!
//! What was typed becomes what the filter needs in one step; after it nothing is checked again. All
//! problems are found at once, each with its path, and with any of them the filter refuses to
//! start.

mod credential;
mod envoy_struct;
mod fields;
mod observe;
mod pins;
mod pool;
mod prices;
mod rule;
mod secret;
mod session;

use std::time::Duration;

use serde_json::Value;

pub use credential::{Availability, Credential, CredentialHeader, CredentialId, HeaderValue};
use fields::Fields;
pub use fields::{Problem, Problems};
pub use observe::{ObserveConfig, UsageReading, Words};
pub use pins::{PinConfig, WhenBlocked};
pub use pool::{Match, Pattern, Pool, PoolId};
pub use prices::{Price, Prices};
pub use secret::Secret;
pub use session::SessionConfig;

use crate::api::Api;
use crate::body::{Body, PathId, Paths};
use crate::json::{Kind, has_name};
use crate::signals::{Class, Rule};

/// Members of a body that refer to state of the provider: OpenAI's stored responses and
/// conversations, Anthropic's threads and code execution containers, Gemini's cached content and
/// interactions. Encrypted reasoning counts as well, wherever in the body it is.
const STATE: [&str; 7] = [
    "previous_response_id",
    "conversation",
    "container",
    "cachedContent",
    "thread",
    "previous_interaction_id",
    "continuation_token",
];

/// Whether a request carries what only the account can read that wrote it: OpenAI's encrypted
/// reasoning and compactions, Anthropic's signed thinking, Gemini's thought signatures. In a text
/// the quotation marks would be escaped.
pub fn carries_ciphertext(api: Api, body: &Body<'_>) -> bool {
    let names: &[&[u8]] = match api {
        Api::Anthropic | Api::Bedrock => &[br#""signature""#, br#""redacted_thinking""#],
        Api::Gemini => &[br#""thoughtSignature""#, br#""thought_signature""#, br#""signature""#],
        Api::OpenAi | Api::Azure => {
            &[br#""encrypted_content""#, br#""reasoning.encrypted""#, br#""thought_signature""#]
        }
    };
    has_name(names, body.bytes())
}

/// Filter states that the filter uses for itself.
const RESERVED_STATES: [&str; 4] = [
    "session_affinity.plan",
    "session_affinity.decision",
    "session_affinity.first_response",
    "session_affinity.usage",
];

/// Headers with a meaning of their own, which cannot name a cluster as well.
const RESERVED_HEADERS: [&str; 14] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "accept",
    "accept-encoding",
    "authorization",
    "cookie",
    "origin",
    "x-request-id",
];

fn is_reserved(header: &str) -> bool {
    RESERVED_HEADERS.contains(&header) || header.starts_with("x-envoy-")
}

/// A configuration without a problem.
#[derive(Debug)]
pub struct Config {
    /// Whose rules are followed.
    pub profile: Profile,
    /// Whether requests go where they went without the filter, and are only watched.
    pub is_shadow: bool,
    /// How credentials are chosen, and how Envoy learns the choice.
    pub routing: Routing,
    /// How sessions are recognized and kept.
    pub session: SessionConfig,
    /// How bodies are read.
    pub body: BodyConfig,
    /// What responses lead to.
    pub cooldown: CooldownConfig,
    /// What happens when a credential fails.
    pub failover: FailoverConfig,
    /// Which state of providers is followed.
    pub pins: PinConfig,
    /// What is shown of what the filter does.
    pub observe: ObserveConfig,
    /// Hosts, besides those of the loopback interface, by which the operator's page may be called.
    pub operator_hosts: Vec<String>,
    /// Whether response headers that name the provider's account are removed.
    pub hides_account_headers: bool,
    /// The pools, in the order in which they are tried.
    pub pools: Vec<Pool>,
    /// What works, but should be written otherwise: for the log.
    pub warnings: Vec<String>,
}

/// Whose rules are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The rules of this filter, which improve on the reference.
    Recommended,
    /// The rules of the reference, byte for byte.
    Reference,
}

/// The section `body`, and what is looked for in a body.
#[derive(Debug)]
pub struct BodyConfig {
    /// Bytes of a request body that are held and read. 1 to 1 GiB, default 8 MiB.
    pub max_bytes: usize,
    /// Whether a body is read even if headers settle the session: for the model in the keys of
    /// bindings and cursors.
    pub always_read: bool,
    /// Where to look.
    pub paths: Paths,
    /// Where the model is.
    pub model: PathId,
    /// Where a request refers to state that only the credential of its session has.
    pub state: Vec<PathId>,
}

/// The section `routing`.
#[derive(Debug)]
pub struct Routing {
    /// How the credential of a new session is chosen.
    pub strategy: Strategy,
    /// The part of a limit, in thousandths, from which on a credential gets no new session while
    /// another one is below. Default 900 with the strategy `headroom`, else never; at most
    /// `shed_at`.
    pub spare_at: Option<u16>,
    /// The part of a limit, in thousandths, from which on a session leaves its credential that has
    /// no prompt cached there any more. Default never.
    pub shed_at: Option<u16>,
    /// Whether sessions keep their credential.
    pub session_affinity: bool,
    /// The time after its last use at which a binding ends. At least 1 ms, default one hour.
    pub ttl: Duration,
    /// The most cursors of round-robin, in the profile `reference`, where all start over beyond it.
    /// Default 4096.
    pub max_rotations: u32,
    /// The request header that names the cluster.
    pub header: String,
    /// The secret that keys the strategy `consistent`; empty by default. The same on every Envoy of
    /// a fleet, or they find different homes.
    pub seed: String,
    /// The filter state that names the cluster; Envoy shows it as `wasm.<name>`.
    pub filter_state: String,
    /// Whether the configuration names that filter state: then a route follows it.
    pub names_filter_state: bool,
}

/// The section `cooldown`, and `disable_cooling`.
#[derive(Clone, Debug)]
pub struct CooldownConfig {
    /// Whether errors start no cooldown, except when an account lacks the model.
    pub cooling_disabled: bool,
    /// The longest cooldown of a rate limit whose end was not announced, and the time between
    /// probes of one whose end was. Default 30 minutes.
    pub max: Duration,
    /// The longest cooldown that a provider may announce. Default 7 days.
    pub max_told: Duration,
    /// The longest cooldown after overloads, server errors and failed connections. Default one
    /// minute.
    pub transient: Duration,
    /// The longest cooldown after a refused key. Default 30 minutes.
    pub denied: Duration,
    /// The longest cooldown of a model that is missing. Default 12 hours.
    pub not_found: Duration,
    /// Statuses that have another class than usual.
    pub statuses: Vec<(u16, Class)>,
    /// Responses that mean something else than usual.
    pub rules: Vec<Rule>,
}

/// The section `failover`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailoverConfig {
    /// The most credentials that one request is sent to. 1 to 16, default 3.
    pub max_attempts: usize,
    /// When a session that has a substitute goes back to its home.
    pub returns: Return,
    /// A failure that comes later than this after the request is passed on. Default two minutes.
    pub give_up_after: Duration,
    /// How long a stream may be held until its first event with content.
    pub first_event: FirstEventConfig,
    /// Whether a request with ciphertext may leave the group of its home.
    pub ciphertext: Ciphertext,
}

/// Whether a request that carries what only the group of its home can read (encrypted reasoning,
/// signed thinking) may leave that group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ciphertext {
    /// If nobody in the group can serve.
    PreferGroup,
    /// No.
    SameGroup,
    /// Yes, like any other request: groups do not count.
    Any,
}

/// The section `failover.first_event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstEventConfig {
    /// The longest time for which a stream is held. Default 3 seconds.
    pub wait: Duration,
    /// The most bytes that are held; with 0 nothing is. 0 to 65,536, default 16,384.
    pub bytes: usize,
}

/// When a session that has a substitute goes back to its home, once that is ready again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// If its prompt is still cached there; else the substitute becomes its home.
    WhileWarm,
    /// In any case.
    Always,
    /// Never: whatever serves it is its home.
    Never,
}

/// How the credential of a new session is chosen among the ready ones of the highest priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// By a hash of session and credential, so that every Envoy comes to the same.
    Consistent,
    /// Each in turn, for every provider and model apart; by weight, if weights differ.
    RoundRobin,
    /// Always the first by id, until it is not ready.
    FillFirst,
    /// The one with the most room: see [`crate::headroom`].
    Headroom,
}

impl Config {
    /// Reads what Envoy hands over: JSON, or the bytes of a `google.protobuf.Struct`.
    ///
    /// # Errors
    /// Every problem there is.
    pub fn parse(bytes: &[u8]) -> Result<Self, Problems> {
        Self::parse_with(bytes, &|_| None)
    }

    /// As [`Self::parse`], with the environment variables that keys may be in.
    ///
    /// # Errors
    /// Every problem there is.
    pub fn parse_with(
        bytes: &[u8],
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        // No message is also JSON: a `Struct` begins with a line feed and a length, and no length
        // goes on as JSON does.
        let value =
            serde_json::from_slice(bytes).or_else(|error| envoy_struct::decode(bytes).ok_or(error));
        let config = match value {
            Ok(value) => Self::read(value, environment, &mut problems),
            Err(error) => {
                problems.add("", format!("not JSON: {error}"));
                return Err(problems);
            }
        };
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    fn read(
        value: Value,
        environment: &dyn Fn(&str) -> Option<String>,
        problems: &mut Problems,
    ) -> Self {
        let mut warnings = Vec::new();
        let mut fields = Fields::new(String::new(), value, problems);
        let profile = fields.one_of(
            "profile",
            &[("recommended", Profile::Recommended), ("reference", Profile::Reference)],
        );
        let profile = profile.unwrap_or(Profile::Recommended);
        let routing = Routing::read(fields.object("routing"), profile, &mut warnings);
        let modes = [("route", false), ("shadow", true)];
        let is_shadow = fields.one_of("mode", &modes).unwrap_or(false);
        let mut paths = Paths::default();
        let session = SessionConfig::read(fields.object("session"), profile, &mut paths);
        let pins = PinConfig::read(fields.object("pins"), profile, &mut paths);
        let body = BodyConfig::read(fields.object("body"), profile, paths);
        let disabled = fields.boolean("disable_cooling").unwrap_or(false);
        let cooldown = CooldownConfig::read(fields.object("cooldown"), disabled);
        let failover = FailoverConfig::read(fields.object("failover"), profile);
        let mut privacy = fields.object("privacy");
        let hides_account_headers = privacy.boolean("hide_account_headers").unwrap_or(false);
        privacy.finish();
        let observe = observe::Written::read(fields.object("observe"), profile);
        let mut operator = fields.object("operator");
        let operator_hosts =
            operator.strings("hosts").iter().map(|host| host.to_ascii_lowercase()).collect();
        operator.finish();
        let setting = Setting { profile, strict: session.strict, environment };
        let pools = pool::read_all(&mut fields, &setting);
        if is_shadow && let Some(shared) = shared_cluster(&pools) {
            fields.problem("mode", shared);
        }
        fields.finish();
        let observe = observe.settle(&pools, problems);
        Self {
            profile,
            is_shadow,
            routing,
            session,
            body,
            cooldown,
            failover,
            pins,
            observe,
            operator_hosts,
            hides_account_headers,
            pools,
            warnings,
        }
    }
}

/// In the mode `shadow` it is seen by the cluster who served a request.
fn shared_cluster(pools: &[Pool]) -> Option<String> {
    pools.iter().find_map(|pool| {
        let shared = |it: &&Credential| pool.only_credential_of(&it.cluster).is_none();
        let credential = pool.credentials.iter().find(shared)?;
        Some(format!(
            "the mode shadow needs a cluster for each credential: several of pool {} have {}",
            pool.name, credential.cluster
        ))
    })
}

/// What the rest of the configuration says to pools and credentials.
struct Setting<'a> {
    profile: Profile,
    strict: bool,
    environment: &'a dyn Fn(&str) -> Option<String>,
}

impl FailoverConfig {
    fn read(mut fields: Fields<'_>, profile: Profile) -> Self {
        let max_attempts = fields.integer_within("max_attempts", 1, 16).unwrap_or(3) as usize;
        let words = [
            ("while-warm", Return::WhileWarm),
            ("always", Return::Always),
            ("never", Return::Never),
        ];
        let returns = fields.one_of("return", &words);
        if profile == Profile::Reference && returns.is_some_and(|returns| returns != Return::Never)
        {
            fields.problem(
                "return",
                "in the profile reference a session that has moved never returns",
            );
        }
        let give_up_after = fields.duration("give_up_after").unwrap_or(Duration::from_mins(2));
        let mut first_event = fields.object("first_event");
        let wait = first_event.duration("wait").unwrap_or(Duration::from_secs(3));
        let bytes = first_event.integer_within("bytes", 0, 1 << 16).unwrap_or(16 << 10) as usize;
        first_event.finish();
        let words = [
            ("prefer_group", Ciphertext::PreferGroup),
            ("same_group", Ciphertext::SameGroup),
            ("any", Ciphertext::Any),
        ];
        let ciphertext = fields.one_of("ciphertext", &words).unwrap_or(Ciphertext::PreferGroup);
        fields.finish();
        let first_event = FirstEventConfig { wait, bytes };
        let returns = match profile {
            Profile::Recommended => returns.unwrap_or(Return::WhileWarm),
            Profile::Reference => Return::Never,
        };
        Self { max_attempts, returns, give_up_after, first_event, ciphertext }
    }
}

impl BodyConfig {
    /// Whether a request refers to state that only the credential of its session has.
    pub fn refers_to_state(&self, body: &Body<'_>) -> bool {
        self.state.iter().any(|&path| body.get(path).is_some_and(|it| it.kind() != Kind::Null))
    }

    fn read(mut fields: Fields<'_>, profile: Profile, mut paths: Paths) -> Self {
        let max_bytes = fields.integer_within("max_bytes", 1, 1 << 30).unwrap_or(8 << 20) as usize;
        let always_read = fields.one_of("read", &[("needed", false), ("always", true)]);
        // In the reference the model, which is in the body, is always part of the key.
        let always_read = always_read.unwrap_or(profile == Profile::Reference);
        fields.finish();
        let model = paths.add(["model"]);
        let state = STATE.map(|name| paths.add([name])).to_vec();
        Self { max_bytes, always_read, paths, model, state }
    }
}

impl CooldownConfig {
    fn read(mut fields: Fields<'_>, cooling_disabled: bool) -> Self {
        let max = fields.duration("max").unwrap_or(Duration::from_mins(30));
        let max_told = fields.duration("max_told").unwrap_or(Duration::from_hours(7 * 24));
        let transient = fields.duration("transient").unwrap_or(Duration::from_mins(1));
        let denied = fields.duration("denied").unwrap_or(Duration::from_mins(30));
        let not_found = fields.duration("not_found").unwrap_or(Duration::from_hours(12));
        let mut by_status = fields.object("statuses");
        let mut statuses = Vec::new();
        for name in by_status.names() {
            let class = by_status.one_of(&name, &rule::classes());
            match name.parse() {
                Ok(status @ (0 | 400..=599)) if name.bytes().all(|it| it.is_ascii_digit()) => {
                    statuses.extend(class.map(|class| (status, class)));
                }
                _ => by_status.problem(
                    &name,
                    "expected a status from 400 to 599, or 0 for an attempt without a response",
                ),
            }
        }
        by_status.finish();
        let rules = rule::read_all(&mut fields);
        fields.finish();
        Self { cooling_disabled, max, max_told, transient, denied, not_found, statuses, rules }
    }

    /// The class that is configured for a status.
    pub fn class_of_status(&self, status: u16) -> Option<Class> {
        self.statuses.iter().find(|(other, _)| *other == status).map(|(_, class)| *class)
    }
}

/// What is spared with the strategy `headroom`, in thousandths.
const SPARED_BY_DEFAULT: u16 = 900;

/// A part of a limit, in thousandths.
fn share(fields: &mut Fields<'_>, name: &str, knows_room: bool) -> Option<u16> {
    let share = fields.number_within(name, 0.01, 1.0)?;
    if !knows_room {
        return fields.wrong(
            name,
            "not with the profile reference, which reads no limits of responses, nor with the \
             strategy consistent, by which every Envoy finds the same home",
        );
    }
    Some((share * 1000.0 + 0.5) as u16)
}

impl Routing {
    fn read(mut fields: Fields<'_>, profile: Profile, warnings: &mut Vec<String>) -> Self {
        let strategy = fields.string("strategy").and_then(|name| {
            match name.trim().to_ascii_lowercase().as_str() {
                "round-robin" | "round_robin" | "roundrobin" | "rr" => Some(Strategy::RoundRobin),
                "weighted-round-robin" | "weightedroundrobin" | "wrr" => Some(Strategy::RoundRobin),
                "consistent" => Some(Strategy::Consistent),
                "fill-first" | "fill_first" | "fillfirst" | "ff" => Some(Strategy::FillFirst),
                "headroom" if profile == Profile::Recommended => Some(Strategy::Headroom),
                _ => {
                    let known = match profile {
                        Profile::Recommended => "round-robin, fill-first, consistent or headroom",
                        Profile::Reference => "round-robin, fill-first or consistent",
                    };
                    fields.problem("strategy", format!("expected {known}, found {name:?}"));
                    None
                }
            }
        });
        let affinity = fields.boolean("session_affinity");
        let deprecated = fields.boolean("claude_code_session_affinity");
        if deprecated.is_some() {
            warnings.push(
                "routing.claude_code_session_affinity is deprecated: use routing.session_affinity"
                    .to_owned(),
            );
        }
        let ttl = fields.duration("session_affinity_ttl");
        let max_rotations =
            fields.integer_within("max_rotations", 1, 1 << 20).unwrap_or(4096) as u32;
        let strategy = strategy.unwrap_or(Strategy::RoundRobin);
        let usual = (strategy == Strategy::Headroom).then_some(SPARED_BY_DEFAULT);
        let knows_room = profile == Profile::Recommended && strategy != Strategy::Consistent;
        let shed_at = share(&mut fields, "shed_at", knows_room);
        // What sessions leave takes no new ones.
        let spare_at = share(&mut fields, "spare_at", knows_room);
        let spare_at = spare_at.or(usual.into_iter().chain(shed_at).min());
        let header = fields.header_name("header");
        if header.as_deref().is_some_and(is_reserved) {
            fields.problem("header", "expected a header that neither HTTP nor Envoy owns");
        }
        let seed = fields.string("seed").unwrap_or_default();
        let filter_state = fields.word("filter_state");
        if filter_state.as_deref().is_some_and(|name| RESERVED_STATES.contains(&name)) {
            fields.problem("filter_state", "expected a name that the filter does not use itself");
        }
        fields.finish();
        Self {
            strategy,
            spare_at,
            shed_at,
            session_affinity: match (affinity, deprecated) {
                (None, None) => profile == Profile::Recommended,
                (affinity, deprecated) => affinity.unwrap_or(false) || deprecated.unwrap_or(false),
            },
            ttl: ttl.unwrap_or(Duration::from_hours(1)),
            max_rotations,
            seed,
            header: header.unwrap_or_else(|| "x-session-affinity-cluster".to_owned()),
            names_filter_state: filter_state.is_some(),
            filter_state: filter_state.unwrap_or_else(|| "session_affinity.cluster".to_owned()),
        }
    }
}
