//! From the input to what the templates print: every name made, every reference resolved.

use serde::Serialize;
use serde_json::{Map, Value, json};
use session_affinity::config::Config;

use super::clients::{Clients, Gate};
use super::clusters::{Cluster, Clusters, Key, Service};
use super::input::{Input, Pool};
use super::routes::{Route, routes};
use super::socket_address::SocketAddress;
use super::target::Target;
use envoy_harness::{FLOOR, Mode, Version};

/// The longest request that a provider documents: 32 MB of Anthropic.
pub(super) const LONGEST_REQUEST: usize = 32 << 20;

/// One read from a connection can bring this much more than the filter waits for.
pub(super) const ONE_READ: usize = 8 << 20;

/// What the templates read.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Wiring {
    listener: Option<SocketAddress>,
    stats: Option<SocketAddress>,
    admin: SocketAddress,
    /// Of the operator's page, if there is one.
    operator: Option<SocketAddress>,
    /// The path of the module.
    module: String,
    ca_certificates: String,
    /// The configuration of the filter.
    configuration: Map<String, Value>,
    routing: Routing,
    /// Whether a path may name a model of Bedrock by its ARN.
    names_arns: bool,
    buffers: Buffers,
    limits: Limits,
    /// Who may use the gateway.
    pub(super) clients: Option<Gate>,
    /// Whether clients see the decision.
    show_decision: bool,
    routes: Vec<Route>,
    /// The directory of the files with keys.
    pub(super) secrets: Option<String>,
    /// The environment variables from which the filter reads keys.
    variables: Vec<String>,
    clusters: Vec<Cluster>,
    /// The modes of its pools.
    #[serde(skip)]
    modes: Vec<Mode>,
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

impl Wiring {
    /// Resolves the input.
    ///
    /// # Errors
    /// All problems, each with its path.
    pub(super) fn new(mut input: Input, mode: Mode, target: Target) -> Result<Self, Vec<String>> {
        target.complete(&mut input);
        let mut problems = Vec::new();
        let mut clusters = Clusters::new(mode, target, input.secrets.is_some(), &mut problems);
        let pools = input
            .pools
            .iter()
            .enumerate()
            .map(|(index, pool)| clusters.pool(pool, &format!("pools[{index}]")));
        let pools = pools.collect();
        let clusters = clusters.finish();
        let modes = modes(&clusters);
        let key_headers = input.pools.iter().filter_map(|pool| pool.key_header.as_ref());
        let key_headers: Vec<_> = key_headers.map(|header| header.0.as_str()).collect();
        if input.secrets.as_deref().is_some_and(|path| !path.starts_with('/')) {
            problems
                .push("secrets: expected an absolute path, such as /etc/envoy/secrets".to_owned());
        }
        if input.operator.is_some_and(|address| !address.ip().is_loopback()) {
            problems.push(
                "operator: expected an address of the loopback interface, such as 127.0.0.1:9902: \
                 whoever reaches the page may drain credentials"
                    .to_owned(),
            );
        }
        if !input.admin.ip().is_loopback() {
            problems.push(
                "admin: expected an address of the loopback interface, such as 127.0.0.1:9901: whoever \
                 reaches it may stop Envoy"
                    .to_owned(),
            );
        }
        let mut configuration = input.filter;
        if configuration.contains_key("pools") {
            problems.push("filter.pools: pools belong beside `filter`, not into it".to_owned());
        }
        if matches!(target, Target::Istio | Target::EnvoyGateway) {
            refuse_what_meshes_do(&input.clients, &input.pools, target, &mut problems);
        }
        if let Some(clients) = &input.clients {
            clients.scope(&mut configuration);
        }
        configuration.entry("routing").or_insert_with(|| json!({}));
        hide_account_headers(&mut configuration);
        configuration.insert("pools".to_owned(), Value::Array(pools));
        let config =
            parse(&configuration, &mut problems).filter(|_| problems.is_empty()).ok_or(problems)?;
        name_routing(&mut configuration, &config, modes.contains(&Mode::Clusters));
        Ok(Self {
            listener: input.listener.map(SocketAddress::from),
            stats: input.stats.map(SocketAddress::from),
            admin: input.admin.into(),
            operator: input.operator.map(SocketAddress::from),
            module: input.module.unwrap_or_default(),
            ca_certificates: input.ca_certificates,
            configuration,
            names_arns: may_name_arns(&config),
            buffers: Buffers::of(&config, &modes),
            limits: Limits {
                connections: input.max_connections.get(),
                heap: input.max_heap_bytes.get(),
            },
            clients: input.clients.as_ref().map(Clients::gate),
            show_decision: input.show_decision,
            routes: routes(&clusters, &key_headers),
            secrets: input.secrets.map(|path| path.trim_end_matches('/').to_owned()),
            variables: variables(&clusters),
            clusters,
            modes,
            routing: Routing {
                header: config.routing.header,
                filter_state: config.routing.filter_state,
            },
        })
    }

    pub(super) fn module(&self) -> &str {
        &self.module
    }

    /// The same with files for its keys in another directory, or without.
    pub(super) fn with_secrets(&self, secrets: Option<String>) -> Self {
        Self { secrets, ..self.clone() }
    }

    /// The same with the module at another path, for an Envoy that has not the files of where it will
    /// run.
    pub(super) fn on_trial(&self, module: &str) -> Self {
        Self {
            module: module.to_owned(),
            secrets: None,
            clients: self.clients.as_ref().map(Gate::on_trial),
            clusters: self.clusters.iter().map(Cluster::on_trial).collect(),
            ..self.clone()
        }
    }

    /// The mode of all pools, if they have one in common.
    pub(super) fn mode(&self) -> Option<Mode> {
        match self.modes.as_slice() {
            [mode] => Some(*mode),
            _ => None,
        }
    }

    /// Whether any request is retried on another credential.
    pub(super) fn fails_over(&self) -> bool {
        self.modes.iter().any(|mode| *mode != Mode::NextRequest)
    }

    /// The oldest Envoy with all that it needs.
    pub(super) fn oldest_envoy(&self) -> Version {
        self.modes.iter().map(|mode| mode.oldest_envoy()).max().unwrap_or(FLOOR)
    }

    /// The services of a mesh, in the order of the clusters.
    pub(super) fn services(&self) -> impl Iterator<Item = &Service> {
        self.clusters.iter().filter_map(|cluster| cluster.service.as_ref())
    }

    /// The keys that Envoy itself puts into requests.
    pub(super) fn injected(&self) -> impl Iterator<Item = &Key> {
        self.clusters.iter().flat_map(Cluster::injected)
    }

    /// The environment variables that hold keys.
    pub(super) fn variables(&self) -> Vec<&str> {
        let injected = self.injected().filter(|_| self.secrets.is_none());
        let mut all: Vec<_> = injected.map(|key| key.variable.as_str()).collect();
        all.extend(self.variables.iter().map(String::as_str));
        let mut seen = Vec::new();
        all.retain(|name| {
            !seen.contains(name) && {
                seen.push(*name);
                true
            }
        });
        all
    }

    /// Where clients come.
    pub(super) fn listener(&self) -> String {
        self.listener.as_ref().map(SocketAddress::to_string).unwrap_or_default()
    }
}

/// The listener of a mesh is not ours, and its clusters have no filters but ours.
fn refuse_what_meshes_do(
    clients: &Option<Clients>,
    pools: &[Pool],
    target: Target,
    problems: &mut Vec<String>,
) {
    let target = target.as_str();
    if clients.is_some() {
        problems.push(format!(
            "clients: has no meaning with --target {target}, which authenticates clients itself"
        ));
    }
    for (index, pool) in pools.iter().enumerate() {
        if pool.credentials.iter().any(|credential| credential.aws.is_some()) {
            problems.push(format!("pools[{index}]: `aws` cannot be used with --target {target}"));
        }
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

fn may_name_arns(config: &Config) -> bool {
    let mut matches = config.pools.iter().flat_map(|pool| &pool.matches);
    matches.any(|it| it.path_prefixes.iter().any(|prefix| prefix.starts_with("/model/")))
}

/// Writes the names that Envoy and the filter share into the configuration of the filter, so that
/// they are visible there.
fn name_routing(configuration: &mut Map<String, Value>, config: &Config, is_matched: bool) {
    let Some(routing) = configuration.get_mut("routing").and_then(Value::as_object_mut) else {
        return;
    };
    let filter_state = ("filter_state", &config.routing.filter_state);
    let filter_state = is_matched.then_some(filter_state);
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

/// Each mode that clusters have, once.
fn modes(clusters: &[Cluster]) -> Vec<Mode> {
    Mode::ALL
        .into_iter()
        .filter(|mode| clusters.iter().any(|cluster| cluster.mode == *mode))
        .collect()
}

fn variables(clusters: &[Cluster]) -> Vec<String> {
    let mut variables = Vec::new();
    clusters
        .iter()
        .flat_map(Cluster::variables_of_filter)
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
    fn of(config: &Config, modes: &[Mode]) -> Self {
        let request = LONGEST_REQUEST.max(config.body.max_bytes) + ONE_READ;
        let runs_on_oldest = modes.iter().all(|mode| mode.oldest_envoy() == FLOOR);
        let connection = runs_on_oldest.then_some(request);
        Self { connection, request }
    }
}
