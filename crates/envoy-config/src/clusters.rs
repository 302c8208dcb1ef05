//! The clusters of a configuration, and the pools of the filter that name them.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::input::{Credential, Host, KeyHeader, Pool, Upstream, Variable};
use super::socket_address::SocketAddress;
use envoy_harness::Mode;

/// A cluster, as the templates read it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cluster {
    name: String,
    /// The discovery type, by which Envoy finds its endpoints.
    discovery: &'static str,
    /// Its endpoint, unless the filter chooses one for each attempt.
    endpoint: Option<SocketAddress>,
    /// The name in the certificate of the upstream, with TLS.
    tls_name: Option<String>,
    /// The keys of its credentials.
    keys: Vec<Key>,
}

#[derive(Clone, Debug, Serialize)]
struct Key {
    /// The environment variable that holds it.
    variable: String,
    /// The request header that carries it.
    header: String,
}

impl Cluster {
    fn of_upstream(name: String, upstream: &Upstream, keys: Vec<Key>) -> Self {
        let (discovery, tls_name) = match &upstream.host {
            Host::Address(_) => ("STATIC", None),
            // The addresses of a large service change all the time: new connections use the latest.
            Host::Name(name) if upstream.tls => ("LOGICAL_DNS", Some(name.clone())),
            Host::Name(_) => ("STRICT_DNS", None),
        };
        let endpoint = Some(SocketAddress::new(&upstream.host, upstream.port));
        Self { name, discovery, endpoint, tls_name, keys }
    }

    fn of_replicas(name: String) -> Self {
        Self { name, discovery: "ORIGINAL_DST", endpoint: None, tls_name: None, keys: Vec::new() }
    }

    /// Whether its endpoint is known by a name.
    pub(super) fn is_named(&self) -> bool {
        self.discovery.ends_with("_DNS")
    }

    /// The environment variables that hold its keys.
    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.variable.as_str())
    }
}

/// Makes the clusters, pool by pool.
pub(super) struct Clusters<'p> {
    mode: Mode,
    made: Vec<Cluster>,
    problems: &'p mut Vec<String>,
}

impl<'p> Clusters<'p> {
    pub(super) fn new(mode: Mode, problems: &'p mut Vec<String>) -> Self {
        Self { mode, made: Vec::new(), problems }
    }

    /// Makes the clusters of a pool, and returns the pool for the configuration of the filter.
    pub(super) fn pool(&mut self, pool: &Pool, path: &str) -> Value {
        let credentials = match self.mode {
            Mode::Clusters | Mode::NextRequest => self.cluster_per_credential(pool, path),
            Mode::Keys => self.cluster_with_keys(pool, path),
            Mode::Replicas => self.cluster_of_replicas(pool, path),
        };
        let mut members = Map::from_iter([("name".to_owned(), json!(pool.name))]);
        add(&mut members, "provider", &pool.provider);
        add(&mut members, "match", &pool.matches);
        add(&mut members, "session", &pool.session);
        add(&mut members, "cache_lifetime", &pool.cache_lifetime);
        members.insert("credentials".to_owned(), credentials.into());
        members.into()
    }

    pub(super) fn finish(self) -> Vec<Cluster> {
        self.made
    }

    fn cluster_per_credential(&mut self, pool: &Pool, path: &str) -> Vec<Value> {
        let provider = self.provider(pool, path);
        let credentials = pool.credentials.iter().enumerate().map(|(index, credential)| {
            let path = format!("{path}.credentials[{index}]");
            let cluster = cluster_name(&credential.id);
            if let (Some(key), Some((upstream, header))) = (self.key(credential, &path), provider) {
                let made =
                    Cluster::of_upstream(cluster.clone(), upstream, vec![Key::new(key, header)]);
                self.make(made, &format!("{path}.id"));
            }
            filter_credential(credential, &cluster).into()
        });
        credentials.collect()
    }

    fn cluster_with_keys(&mut self, pool: &Pool, path: &str) -> Vec<Value> {
        let provider = self.provider(pool, path);
        let cluster = cluster_name(&pool.name);
        let (mut keys, mut credentials) = (Vec::new(), Vec::new());
        for (index, credential) in pool.credentials.iter().enumerate() {
            let key = self.key(credential, &format!("{path}.credentials[{index}]"));
            let mut members = filter_credential(credential, &cluster);
            if let (Some(key), Some((_, header))) = (key, provider) {
                members.insert(
                    "headers".to_owned(),
                    json!([{"name": header.0, "environment": key.0}]),
                );
                keys.push(Key::new(key, header));
            }
            credentials.push(members.into());
        }
        if let Some((upstream, _)) = provider {
            self.make(Cluster::of_upstream(cluster, upstream, keys), &format!("{path}.name"));
        }
        credentials
    }

    fn cluster_of_replicas(&mut self, pool: &Pool, path: &str) -> Vec<Value> {
        self.forbid(
            pool.upstream.is_some(),
            &format!("{path}.upstream"),
            "every replica has its own `endpoint`",
        );
        self.forbid(
            pool.key_header.is_some(),
            &format!("{path}.key_header"),
            "replicas get the headers of the client",
        );
        let cluster = cluster_name(&pool.name);
        let mut credentials = Vec::new();
        for (index, credential) in pool.credentials.iter().enumerate() {
            let path = format!("{path}.credentials[{index}]");
            self.forbid(
                credential.key.is_some(),
                &format!("{path}.key"),
                "replicas get the headers of the client",
            );
            let mut members = filter_credential(credential, &cluster);
            if let Some(endpoint) = self.required(credential.endpoint, &format!("{path}.endpoint"))
            {
                members.insert("endpoint".to_owned(), json!(endpoint));
            }
            credentials.push(members.into());
        }
        self.make(Cluster::of_replicas(cluster), &format!("{path}.name"));
        credentials
    }

    /// The upstream of a pool and the header for its keys.
    fn provider<'i>(
        &mut self,
        pool: &'i Pool,
        path: &str,
    ) -> Option<(&'i Upstream, &'i KeyHeader)> {
        let upstream = self.required(pool.upstream.as_ref(), &format!("{path}.upstream"));
        let header = self.required(pool.key_header.as_ref(), &format!("{path}.key_header"));
        upstream.zip(header)
    }

    fn key<'i>(&mut self, credential: &'i Credential, path: &str) -> Option<&'i Variable> {
        self.forbid(
            credential.endpoint.is_some(),
            &format!("{path}.endpoint"),
            "the pool has an `upstream`",
        );
        self.required(credential.key.as_ref(), &format!("{path}.key"))
    }

    fn make(&mut self, cluster: Cluster, path: &str) {
        if self.made.iter().any(|made| made.name == cluster.name) {
            self.problems
                .push(format!("{path}: another one has the cluster {:?} already", cluster.name));
        }
        self.made.push(cluster);
    }

    fn required<T>(&mut self, value: Option<T>, path: &str) -> Option<T> {
        if value.is_none() {
            self.problems.push(format!("{path}: required with --mode {}", self.mode.as_str()));
        }
        value
    }

    fn forbid(&mut self, is_given: bool, path: &str, reason: &str) {
        if is_given {
            self.problems.push(format!(
                "{path}: has no meaning with --mode {}: {reason}",
                self.mode.as_str()
            ));
        }
    }
}

impl Key {
    fn new(variable: &Variable, header: &KeyHeader) -> Self {
        Self { variable: variable.0.clone(), header: header.0.clone() }
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
