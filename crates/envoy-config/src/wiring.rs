//! From the input to what the templates print: every name made, every reference resolved.

use serde::Serialize;
use serde_json::{Map, Value, json};
use session_affinity::config::Config;

use super::clusters::{Cluster, Clusters};
use super::input::{Input, Pool};
use super::socket_address::SocketAddress;
use envoy_harness::{FLOOR, Mode};

/// Request headers in which clients send keys.
pub(super) const CLIENT_KEY_HEADERS: [&str; 4] =
    ["authorization", "x-api-key", "x-goog-api-key", "api-key"];

/// Request headers that choose an organization, a project or a workspace. With the key of another
/// account a provider refuses them, and the refusal looks as if it were the credential's.
const ACCOUNT_HEADERS: [&str; 5] = [
    "openai-organization",
    "openai-project",
    "chatgpt-account-id",
    "x-goog-user-project",
    "anthropic-workspace-id",
];

/// Request headers about the client. Some providers refuse an `origin` beside a key that is not for
/// browsers.
const CLIENT_HEADERS: [&str; 5] =
    ["cookie", "origin", "proxy-authorization", "x-forwarded-for", "x-envoy-external-address"];

/// The longest request that a provider documents: 32 MB of Anthropic.
pub(super) const LONGEST_REQUEST: usize = 32 << 20;

/// One read from a connection can bring this much more than the filter waits for.
pub(super) const ONE_READ: usize = 8 << 20;

/// What the templates read.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Wiring {
    listener: SocketAddress,
    admin: SocketAddress,
    /// The path of the module.
    module: String,
    ca_certificates: String,
    /// The configuration of the filter.
    configuration: Map<String, Value>,
    routing: Routing,
    buffers: Buffers,
    limits: Limits,
    /// Whether clients see the decision.
    show_decision: bool,
    removed: RemovedHeaders,
    /// Whether requests get the name of their upstream as `host`.
    named_upstreams: bool,
    /// The environment variables that hold keys.
    pub(super) variables: Vec<String>,
    clusters: Vec<Cluster>,
}

/// The names under which the filter passes its decision to Envoy.
#[derive(Clone, Debug, Serialize)]
struct Routing {
    header: String,
    filter_state: String,
}

/// How many bytes Envoy buffers.
#[derive(Clone, Debug, Serialize)]
struct Buffers {
    /// Of a connection, where Envoy's default does not suffice.
    connection: Option<usize>,
    request: usize,
}

/// What all clients together may use.
#[derive(Clone, Debug, Serialize)]
struct Limits {
    connections: u32,
    /// Bytes.
    heap: u64,
}

/// Request headers that do not go upstream, beside the routing header.
#[derive(Clone, Debug, Default, Serialize)]
struct RemovedHeaders {
    keys: Vec<String>,
    accounts: Vec<&'static str>,
    clients: Vec<&'static str>,
}

impl Wiring {
    /// Resolves the input.
    ///
    /// # Errors
    /// All problems, each with its path.
    pub(super) fn new(input: Input, mode: Mode) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut clusters = Clusters::new(mode, &mut problems);
        let pools = input
            .pools
            .iter()
            .enumerate()
            .map(|(index, pool)| clusters.pool(pool, &format!("pools[{index}]")));
        let pools = pools.collect();
        let clusters = clusters.finish();
        let mut configuration = input.filter;
        if configuration.contains_key("pools") {
            problems.push("filter.pools: pools belong beside `filter`, not into it".to_owned());
        }
        configuration.entry("routing").or_insert_with(|| json!({}));
        hide_account_headers(&mut configuration);
        configuration.insert("pools".to_owned(), Value::Array(pools));
        let config =
            parse(&configuration, &mut problems).filter(|_| problems.is_empty()).ok_or(problems)?;
        name_routing(&mut configuration, &config, mode);
        Ok(Self {
            listener: input.listener.into(),
            admin: input.admin.into(),
            module: input.module,
            ca_certificates: input.ca_certificates,
            configuration,
            buffers: Buffers::of(&config, mode),
            limits: Limits {
                connections: input.max_connections.get(),
                heap: input.max_heap_bytes.get(),
            },
            show_decision: input.show_decision,
            removed: RemovedHeaders::of(&input.pools, mode),
            named_upstreams: clusters.iter().any(Cluster::is_named),
            variables: variables(&clusters),
            clusters,
            routing: Routing {
                header: config.routing.header,
                filter_state: config.routing.filter_state,
            },
        })
    }

    pub(super) fn module(&self) -> &str {
        &self.module
    }

    /// The same with the module at another path.
    pub(super) fn with_module(&self, module: &str) -> Self {
        Self { module: module.to_owned(), ..self.clone() }
    }
}

/// Lets the filter validate its configuration. Its paths are those of the input, except for the
/// sections under `filter`.
fn parse(configuration: &Map<String, Value>, problems: &mut Vec<String>) -> Option<Config> {
    let json = Value::Object(configuration.clone()).to_string();
    let found = match Config::parse_with(json.as_bytes(), &|_| Some("stand-in".to_owned())) {
        Ok(config) => return Some(config),
        Err(found) => found,
    };
    for problem in found.iter() {
        let path = problem.path.as_str();
        // A cluster is made from an id or the name of a pool, which has the same problem.
        if path.ends_with(".cluster") {
            continue;
        }
        let prefix = if path.starts_with("pools") { "" } else { "filter." };
        problems.push(format!("{prefix}{problem}"));
    }
    None
}

/// Writes the names that Envoy and the filter share into the configuration of the filter, so that
/// they are visible there.
fn name_routing(configuration: &mut Map<String, Value>, config: &Config, mode: Mode) {
    let Some(routing) = configuration.get_mut("routing").and_then(Value::as_object_mut) else {
        return;
    };
    let filter_state = ("filter_state", &config.routing.filter_state);
    let filter_state = (mode == Mode::Clusters).then_some(filter_state);
    for (key, name) in [("header", &config.routing.header)].into_iter().chain(filter_state) {
        // The filter also accepts keys with hyphens.
        if !routing.contains_key(&key.replace('_', "-")) {
            routing.insert(key.to_owned(), name.as_str().into());
        }
    }
}

/// Headers of responses that name the account are hidden, unless the input decides otherwise.
fn hide_account_headers(configuration: &mut Map<String, Value>) {
    let privacy = configuration.entry("privacy").or_insert_with(|| json!({}));
    if let Some(privacy) = privacy.as_object_mut()
        && !privacy.contains_key("hide-account-headers")
    {
        privacy.entry("hide_account_headers").or_insert(true.into());
    }
}

impl RemovedHeaders {
    /// None before replicas, which may check the headers of the client.
    fn of(pools: &[Pool], mode: Mode) -> Self {
        if mode == Mode::Replicas {
            return Self::default();
        }
        let of_pools = pools.iter().filter_map(|pool| pool.key_header.as_ref());
        let mut keys = Vec::new();
        for header in CLIENT_KEY_HEADERS.into_iter().chain(of_pools.map(|header| header.0.as_str()))
        {
            push_new(&mut keys, header);
            push_new(&mut keys, &header.replace('-', "_"));
        }
        Self { keys, accounts: ACCOUNT_HEADERS.to_vec(), clients: CLIENT_HEADERS.to_vec() }
    }
}

fn variables(clusters: &[Cluster]) -> Vec<String> {
    let mut variables = Vec::new();
    clusters
        .iter()
        .flat_map(Cluster::variables)
        .for_each(|variable| push_new(&mut variables, variable));
    variables
}

fn push_new(list: &mut Vec<String>, text: &str) {
    if !list.iter().any(|other| other == text) {
        list.push(text.to_owned());
    }
}

impl Buffers {
    /// The longest request, or what the filter holds of it and one whole read from the connection,
    /// must fit. The oldest Envoy applies the limit of the connection while the filter reads, later
    /// ones that of the virtual host.
    fn of(config: &Config, mode: Mode) -> Self {
        let request = LONGEST_REQUEST.max(config.body.max_bytes) + ONE_READ;
        let connection = (mode.oldest_envoy() == FLOOR).then_some(request);
        Self { connection, request }
    }
}
