//! From the input to what the templates print: every name made, every reference resolved.

use serde::Serialize;
use serde_json::{Map, Value, json};
use session_affinity::config::Config;

use super::clusters::{Cluster, Clusters};
use super::input::{Input, Pool};
use super::socket_address::SocketAddress;
use envoy_harness::Mode;

/// Request headers in which clients send keys.
const CLIENT_KEY_HEADERS: [&str; 3] = ["authorization", "x-api-key", "x-goog-api-key"];

/// Request headers in which clients name an account or another site. They contradict the key of the
/// credential: providers refuse such requests.
const CLIENT_ACCOUNT_HEADERS: [&str; 8] = [
    "openai-organization",
    "openai-project",
    "chatgpt-account-id",
    "x-goog-user-project",
    "anthropic-workspace-id",
    "cookie",
    "proxy-authorization",
    "origin",
];

/// How much of a connection Envoy buffers at least: sessions get long.
const MIN_CONNECTION_BUFFER: usize = 16 << 20;

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
    /// The retries of a request, if the filter does not set them.
    retries: usize,
    /// Request headers that do not go upstream.
    removed_headers: Vec<String>,
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
    connection: usize,
    request: usize,
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
            buffers: Buffers::of(&config),
            retries: config.failover.max_attempts.saturating_sub(1),
            removed_headers: removed_headers(&config, &input.pools, mode),
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

/// The routing header does not go upstream, and neither do keys and accounts of clients, except to
/// replicas, which may check them.
fn removed_headers(config: &Config, pools: &[Pool], mode: Mode) -> Vec<String> {
    let mut headers = vec![config.routing.header.clone()];
    if mode != Mode::Replicas {
        let of_pools = pools
            .iter()
            .filter_map(|pool| pool.key_header.as_ref())
            .map(|header| header.0.as_str());
        let of_clients = CLIENT_KEY_HEADERS.into_iter().chain(CLIENT_ACCOUNT_HEADERS);
        for header in of_clients.chain(of_pools) {
            push_new(&mut headers, header);
        }
    }
    headers
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
    /// The longest body that the filter reads, and one whole read from the connection, must fit.
    fn of(config: &Config) -> Self {
        let connection = MIN_CONNECTION_BUFFER.max(2 * config.body.max_bytes);
        Self { connection, request: 2 * connection }
    }
}
