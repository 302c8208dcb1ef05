//! The clusters of a configuration, and the pools of the filter that name them.

use envoy_harness::Mode;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::aws::Signing;
use super::input::{Credential, KeyHeader, Pool, Variable};
use super::socket_address::SocketAddress;
use super::target::Target;
use super::upstream::{BasePath, Host, Upstream};

/// A cluster, as the templates read it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cluster {
    pub(super) name: String,
    /// The discovery type, by which Envoy finds its endpoints.
    discovery: &'static str,
    /// Its endpoint, unless the filter chooses one for each attempt.
    endpoint: Option<SocketAddress>,
    /// The name that an endpoint without one has for requests.
    hostname: Option<String>,
    tls: Option<Tls>,
    http2: bool,
    /// Whether the filter observes its attempts.
    pub(super) is_observed: bool,
    /// How its connections end.
    connections: Connections,
    /// The keys that Envoy puts into its requests.
    injected: Vec<Key>,
    /// How Envoy signs its requests.
    signing: Option<Signing>,
    /// Whether they are for the filter, which takes one of them.
    injects_for_filter: bool,
    /// What a mesh calls it, where one makes it.
    #[serde(skip)]
    pub(super) service: Option<Service>,
    #[serde(skip)]
    pub(super) mode: Mode,
    /// Whether its requests carry a key of the gateway, in place of any that the client sent.
    #[serde(skip)]
    pub(super) has_keys: bool,
    #[serde(skip)]
    pub(super) base: Option<BasePath>,
    /// The variables that the filter reads.
    #[serde(skip)]
    variables: Vec<String>,
}

/// A host of a mesh, and one of the clusters that it makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) host: String,
    pub(super) port: u16,
    /// The name that TLS asks for.
    pub(super) tls_name: Option<String>,
    /// Distinguishes clusters of one host.
    pub(super) subset: Option<String>,
}

/// How connections end that have no request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Connections {
    /// As a provider keeps them.
    ToProvider,
    /// As a server of models keeps them.
    ToServer,
    /// After this time.
    Ending(String),
}

#[derive(Clone, Debug, Serialize)]
struct Tls {
    name: String,
    ca_certificates: Option<String>,
}

/// A key that Envoy puts into a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Key {
    /// The name of its secret, and of its file.
    pub(super) secret: String,
    /// The environment variable that holds it, unless a file does.
    pub(super) variable: String,
    /// The request header that carries it.
    header: String,
}

impl Service {
    /// What istiod calls the cluster.
    fn cluster(&self) -> String {
        let subset = self.subset.as_deref().unwrap_or_default();
        format!("outbound|{}|{subset}|{}", self.port, self.host)
    }
}

impl Cluster {
    fn of_upstream(name: String, mode: Mode, upstream: &Upstream, has_keys: bool) -> Self {
        let (discovery, hostname) = match (&upstream.host, &upstream.tls) {
            (Host::Address(_), tls) => ("STATIC", tls.as_ref().map(|tls| tls.name.clone())),
            // The addresses of a large service change all the time: new connections use the latest.
            (Host::Name(_), Some(_)) => ("LOGICAL_DNS", None),
            (Host::Name(_), None) => ("STRICT_DNS", None),
        };
        let tls = upstream.tls.as_ref().map(|tls| Tls {
            name: tls.name.clone(),
            ca_certificates: tls.ca_certificates.clone(),
        });
        Self {
            name,
            discovery,
            endpoint: Some(SocketAddress::new(&upstream.host, upstream.port)),
            hostname,
            tls,
            http2: upstream.http2,
            is_observed: mode != Mode::NextRequest,
            connections: match &upstream.idle_timeout {
                Some(timeout) => Connections::Ending(timeout.clone()),
                None if has_keys => Connections::ToProvider,
                None => Connections::ToServer,
            },
            injected: Vec::new(),
            signing: None,
            injects_for_filter: mode == Mode::Keys,
            service: None,
            mode,
            has_keys,
            base: upstream.base.clone(),
            variables: Vec::new(),
        }
    }

    fn of_replicas(name: String, has_keys: bool) -> Self {
        Self {
            name,
            discovery: "ORIGINAL_DST",
            endpoint: None,
            hostname: None,
            tls: None,
            http2: false,
            is_observed: true,
            connections: Connections::ToServer,
            injected: Vec::new(),
            signing: None,
            injects_for_filter: true,
            service: None,
            mode: Mode::Replicas,
            has_keys,
            base: None,
            variables: Vec::new(),
        }
    }

    /// Whether its endpoint is known by a name, which requests get as their host.
    pub(super) fn is_named(&self) -> bool {
        self.discovery.ends_with("_DNS") || self.hostname.is_some()
    }

    /// The same for an Envoy that has not the files of where it will run.
    pub(super) fn on_trial(&self) -> Self {
        Self { signing: self.signing.as_ref().map(Signing::on_trial), ..self.clone() }
    }

    /// The keys that Envoy puts into its requests.
    pub(super) fn injected(&self) -> &[Key] {
        &self.injected
    }

    /// The environment variables that the filter reads its keys from.
    pub(super) fn variables_of_filter(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(String::as_str)
    }
}

/// Makes the clusters, pool by pool.
pub(super) struct Clusters<'p> {
    default_mode: Mode,
    target: Target,
    /// Whether keys are in files that Envoy watches.
    has_secret_files: bool,
    made: Vec<Cluster>,
    problems: &'p mut Vec<String>,
}

/// Where the problems of a pool belong, and how it is wired.
struct Place<'i> {
    path: &'i str,
    mode: Mode,
}

impl<'p> Clusters<'p> {
    pub(super) fn new(
        default_mode: Mode,
        target: Target,
        has_secret_files: bool,
        problems: &'p mut Vec<String>,
    ) -> Self {
        Self { default_mode, target, has_secret_files, made: Vec::new(), problems }
    }

    /// Makes the clusters of a pool, and returns the pool for the configuration of the filter.
    pub(super) fn pool(&mut self, pool: &Pool, path: &str) -> Value {
        let place = Place { path, mode: pool.mode.map_or(self.default_mode, |mode| mode.0) };
        let credentials = match place.mode {
            Mode::Clusters | Mode::NextRequest => self.cluster_per_credential(pool, &place),
            Mode::Keys => self.cluster_with_keys(pool, &place),
            Mode::Replicas => self.cluster_of_replicas(pool, &place),
        };
        let mut members = Map::from_iter([("name".to_owned(), json!(pool.name))]);
        add(&mut members, "provider", &pool.provider);
        let matches = match pool.api.map(|api| api.matches(pool.matches.as_ref())) {
            None => pool.matches.clone(),
            Some(Ok(matches)) => Some(matches),
            Some(Err(problem)) => {
                self.problems.push(format!("{path}.match: {problem}"));
                None
            }
        };
        add(&mut members, "match", &matches);
        add(&mut members, "session", &pool.session);
        add(&mut members, "cache_lifetime", &pool.cache_lifetime);
        members.insert("credentials".to_owned(), credentials.into());
        members.into()
    }

    pub(super) fn finish(self) -> Vec<Cluster> {
        self.made
    }

    fn cluster_per_credential(&mut self, pool: &Pool, place: &Place<'_>) -> Vec<Value> {
        let everywhere = pool.credentials.iter().all(|credential| credential.upstream.is_some());
        if pool.upstream.is_none() && !everywhere {
            self.required(None::<()>, place, ".upstream");
        }
        let mut base = None;
        let credentials = pool.credentials.iter().enumerate().map(|(index, credential)| {
            let at = format!(".credentials[{index}]");
            let label = cluster_name(&credential.id);
            let mut cluster = label.clone();
            self.forbid(credential.endpoint.is_some(), place, &at, "endpoint", AN_UPSTREAM);
            let key = self.key(pool, credential, place, &at);
            if let Some(upstream) = credential.upstream.as_ref().or(pool.upstream.as_ref()) {
                let subset = Some(label.as_str());
                let service = self.service(upstream, subset, &format!("{}{at}", place.path));
                if let Some(service) = &service {
                    cluster = service.cluster();
                }
                let has_keys = key.is_some() || credential.aws.is_some();
                let mut made =
                    Cluster::of_upstream(cluster.clone(), place.mode, upstream, has_keys);
                made.signing = credential.aws.as_ref().map(|it| it.for_host(&upstream.host));
                made.service = service;
                if let Some((variable, header)) = key {
                    let secret = format!("{label}_key");
                    made.injected.push(Key::new(secret, variable, &header.0));
                }
                if *base.get_or_insert_with(|| made.base.clone()) != made.base {
                    self.problems.push(format!(
                        "{}{at}.upstream: expected the path of the pool's other upstreams: the path of a \
                         request changes once, for all its attempts",
                        place.path
                    ));
                }
                self.make(made, &format!("{}{at}.id", place.path));
            }
            filter_credential(credential, &cluster).into()
        });
        credentials.collect()
    }

    fn cluster_with_keys(&mut self, pool: &Pool, place: &Place<'_>) -> Vec<Value> {
        let upstream = self.required(pool.upstream.as_ref(), place, ".upstream");
        self.required(pool.key_header.as_ref(), place, ".key_header");
        let label = cluster_name(&pool.name);
        let service = upstream.and_then(|it| self.service(it, None, place.path));
        let name = service.as_ref().map_or_else(|| label.clone(), Service::cluster);
        let mut made = upstream.map(|it| Cluster {
            service,
            ..Cluster::of_upstream(name.clone(), place.mode, it, true)
        });
        let mut credentials = Vec::new();
        for (index, credential) in pool.credentials.iter().enumerate() {
            let at = format!(".credentials[{index}]");
            self.forbid(credential.endpoint.is_some(), place, &at, "endpoint", AN_UPSTREAM);
            self.forbid(credential.upstream.is_some(), place, &at, "upstream", ONE_CLUSTER);
            self.forbid(credential.aws.is_some(), place, &at, "aws", ONE_CLUSTER);
            let mut members = filter_credential(credential, &name);
            if let Some((variable, header)) = self.key(pool, credential, place, &at) {
                let header =
                    self.key_of_filter(variable, header, credential, (&pool.name, made.as_mut()));
                members.insert("headers".to_owned(), header);
            }
            credentials.push(members.into());
        }
        if let Some(made) = made {
            self.make(made, &format!("{}.name", place.path));
        }
        credentials
    }

    fn cluster_of_replicas(&mut self, pool: &Pool, place: &Place<'_>) -> Vec<Value> {
        self.forbid(
            pool.upstream.is_some(),
            place,
            "",
            "upstream",
            "every replica has its own `endpoint`",
        );
        if self.target == Target::Istio {
            self.problems.push(format!(
                "{}.mode: Istio has no cluster for replicas: give each an `upstream`, in the mode clusters",
                place.path
            ));
        }
        let name = cluster_name(&pool.name);
        let mut made = Some(Cluster::of_replicas(name.clone(), pool.key_header.is_some()));
        let mut credentials = Vec::new();
        for (index, credential) in pool.credentials.iter().enumerate() {
            let at = format!(".credentials[{index}]");
            self.forbid(
                credential.upstream.is_some(),
                place,
                &at,
                "upstream",
                "a replica that has a name, or TLS, needs the mode clusters",
            );
            self.forbid(credential.aws.is_some(), place, &at, "aws", ONE_CLUSTER);
            let mut members = filter_credential(credential, &name);
            let endpoint = self.required(credential.endpoint, place, &format!("{at}.endpoint"));
            if let Some(endpoint) = endpoint {
                members.insert("endpoint".to_owned(), json!(endpoint));
            }
            if let Some((variable, header)) = self.key(pool, credential, place, &at) {
                let header =
                    self.key_of_filter(variable, header, credential, (&pool.name, made.as_mut()));
                members.insert("headers".to_owned(), header);
            }
            credentials.push(members.into());
        }
        if let Some(made) = made {
            self.make(made, &format!("{}.name", place.path));
        }
        credentials
    }

    /// The key of a credential, and its header. A pool without a header for keys has none.
    fn key<'i>(
        &mut self,
        pool: &'i Pool,
        credential: &'i Credential,
        place: &Place<'_>,
        at: &str,
    ) -> Option<(&'i Variable, &'i KeyHeader)> {
        if credential.aws.is_some() {
            self.forbid(credential.key.is_some(), place, at, "key", "its requests are signed");
            return None;
        }
        let Some(header) = &pool.key_header else {
            self.forbid(
                credential.key.is_some() && place.mode != Mode::Keys,
                place,
                at,
                "key",
                "the pool has no `key_header`, so requests keep what the client sent",
            );
            return None;
        };
        let key = self.required(credential.key.as_ref(), place, &format!("{at}.key"))?;
        Some((key, header))
    }

    /// How the filter comes to a key that it puts into requests itself: from a variable, or from a
    /// header that Envoy fills from a file.
    fn key_of_filter(
        &self,
        variable: &Variable,
        header: &KeyHeader,
        credential: &Credential,
        (pool, cluster): (&str, Option<&mut Cluster>),
    ) -> Value {
        let Some(cluster) = cluster else {
            return json!([]);
        };
        if !self.has_secret_files {
            cluster.variables.push(variable.0.clone());
            return json!([{"name": header.0, "environment": variable.0}]);
        }
        let id = cluster_name(&credential.id);
        let source =
            format!("x-session-affinity-key-{}", id.replace('_', "-").to_ascii_lowercase());
        let secret = format!("{}_{id}_key", cluster_name(pool));
        cluster.injected.push(Key::new(secret, variable, &source));
        json!([{"name": header.0, "header": source}])
    }

    /// The service that an upstream is in the mesh, if the mesh makes the clusters.
    fn service(
        &mut self,
        upstream: &Upstream,
        subset: Option<&str>,
        path: &str,
    ) -> Option<Service> {
        if self.target != Target::Istio {
            return None;
        }
        let Host::Name(host) = &upstream.host else {
            self.problems.push(format!("{path}: a ServiceEntry needs a host with a name"));
            return None;
        };
        Some(Service {
            host: host.clone(),
            port: upstream.port,
            tls_name: upstream.tls.as_ref().map(|tls| tls.name.clone()),
            subset: subset.map(|name| name.replace('_', "-").to_ascii_lowercase()),
        })
    }

    fn make(&mut self, cluster: Cluster, path: &str) {
        let is_made = self.made.iter().any(|made| made.name == cluster.name);
        if is_made {
            self.problems
                .push(format!("{path}: another one has the cluster {:?} already", cluster.name));
        }
        let mut secrets: Vec<_> = cluster.injected.iter().map(|key| &key.secret).collect();
        secrets.sort();
        let mut of_others = self.made.iter().flat_map(|made| &made.injected).map(|key| &key.secret);
        let is_taken = !is_made && of_others.any(|other| secrets.contains(&other));
        if is_taken || secrets.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            self.problems.push(format!(
                "{path}: the key of another credential would have the same name: their ids, or those \
                 of their pools, are too alike"
            ));
        }
        // It is the name of a file, of a key in a Secret and of a cluster.
        if let Some(secret) = secrets.iter().find(|name| !is_file_name(name)) {
            self.problems.push(format!(
                "{path}: {secret:?} is no name for a key: expected letters, digits, `-`, `_` and `.`"
            ));
        }
        if RESERVED.contains(&cluster.name.as_str()) {
            self.problems.push(format!("{path}: the cluster {:?} is Envoy's own", cluster.name));
        }
        self.made.push(cluster);
    }

    fn required<T>(&mut self, value: Option<T>, place: &Place<'_>, at: &str) -> Option<T> {
        if value.is_none() {
            let (path, mode) = (place.path, place.mode.as_str());
            self.problems.push(format!("{path}{at}: required with --mode {mode}"));
        }
        value
    }

    fn forbid(&mut self, is_given: bool, place: &Place<'_>, at: &str, field: &str, reason: &str) {
        if is_given {
            let (path, mode) = (place.path, place.mode.as_str());
            self.problems
                .push(format!("{path}{at}.{field}: has no meaning with --mode {mode}: {reason}"));
        }
    }
}

/// Clusters of generated configurations that belong to no credential.
const RESERVED: [&str; 2] = ["admin", "jwks"];

fn is_file_name(name: &str) -> bool {
    let is_plain =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    !name.starts_with('.') && name.chars().all(is_plain)
}

const ONE_CLUSTER: &str = "the whole pool is one cluster";
const AN_UPSTREAM: &str = "the pool has an `upstream`";

impl Key {
    fn new(secret: String, variable: &Variable, header: &str) -> Self {
        Self { secret, variable: variable.0.clone(), header: header.to_owned() }
    }
}

/// A credential for the configuration of the filter, without its key or endpoint.
fn filter_credential(credential: &Credential, cluster: &str) -> Map<String, Value> {
    let mut members = Map::from_iter([
        ("id".to_owned(), json!(credential.id)),
        ("cluster".to_owned(), json!(cluster)),
    ]);
    add(&mut members, "priority", &credential.priority);
    add(&mut members, "weight", &credential.weight);
    add(&mut members, "max_concurrent", &credential.max_concurrent);
    add(&mut members, "parent", &credential.parent);
    add(&mut members, "group", &credential.group);
    add(&mut members, "websockets", &credential.websockets);
    add(&mut members, "state", &credential.state);
    add(&mut members, "disable_cooling", &credential.disable_cooling);
    members
}

fn add(members: &mut Map<String, Value>, name: &str, value: &Option<Value>) {
    if let Some(value) = value {
        members.insert(name.to_owned(), value.clone());
    }
}

/// Names of clusters are parts of the names of statistics, in which underscores are usual.
fn cluster_name(name: &str) -> String {
    name.replace('-', "_")
}
