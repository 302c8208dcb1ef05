//! The filter in its roles.

use std::net::IpAddr;

use serde_json::Value;
use session_affinity::config::Config;

use super::document::Cursor;
use super::finding::Findings;
use super::resources::Resources;

const ON_LISTENERS: &str = "session_affinity";
const ON_CLUSTERS: &str = "session_affinity_upstream";
const OF_OPERATOR: &str = "session_affinity_operator";

/// Parts of `vm_config` that Envoy makes the identity of a VM from, or that the filter needs to be
/// the same.
const PARTS_OF_VM: [&str; 5] =
    ["vm_id", "runtime", "code", "configuration", "environment_variables"];

/// The filter in a listener or on a cluster.
#[derive(Clone, Debug)]
pub(super) struct Plugin<'d> {
    /// The `PluginConfig`.
    pub(super) config: Cursor<'d>,
}

impl<'d> Plugin<'d> {
    /// The filter, if this is it.
    pub(super) fn of(filter: &Cursor<'d>, resources: &Resources<'d>) -> Option<Self> {
        let (name, typed) = resources.filter(filter);
        let config = typed.get("config");
        (name == "Wasm" && is_ours(&config)).then_some(Self { config })
    }

    /// Whether it is the operator's page.
    pub(super) fn is_operators(&self) -> bool {
        self.config.get("root_id").is(OF_OPERATOR)
    }

    /// Its own configuration, whether it is written as a `Struct` or as text.
    fn configuration(&self) -> Result<Value, String> {
        let value = self.config.get("configuration.value");
        match value.text() {
            Some(text) => serde_json::from_str(text).map_err(|error| error.to_string()),
            None => Ok(value.value()),
        }
    }
}

/// By its root or VM, by the file of its module, or by what it is configured with.
fn is_ours(config: &Cursor<'_>) -> bool {
    let names = ["root_id", "name", "vm_config.vm_id", "vm_config.code"].map(|it| config.get(it));
    let texts = names.iter().flat_map(Cursor::texts);
    let mut texts = texts.filter_map(|text| text.text());
    let named = texts.any(|text| text.replace('-', "_").contains(ON_LISTENERS));
    let value = config.get("configuration.value");
    named
        || value.get("pools").exists()
        || value.text().is_some_and(|json| json.contains("\"pools\""))
}

/// What the rest of Envoy has to fit.
pub(super) struct Setup<'d> {
    /// Where the configuration is.
    pub(super) at: Cursor<'d>,
    pub(super) config: Config,
    pub(super) environment: Cursor<'d>,
    /// As it is written.
    json: String,
}

impl<'d> Setup<'d> {
    /// `None` if the configuration has problems.
    pub(super) fn of(plugin: &Plugin<'d>) -> Option<Self> {
        let json = plugin.configuration().ok()?.to_string();
        let config = Config::parse_with(json.as_bytes(), &|_| Some("stand-in".to_owned())).ok()?;
        let at = plugin.config.get("configuration.value");
        let environment = plugin.config.get("vm_config.environment_variables");
        Some(Self { at, config, environment, json })
    }

    /// Whether both are the same: the two roles of one filter are.
    pub(super) fn is(&self, other: &Setup<'_>) -> bool {
        self.json == other.json
    }

    /// The clusters of all pools, each once.
    pub(super) fn clusters(&self) -> Vec<&str> {
        let credentials = self.config.pools.iter().flat_map(|pool| &pool.credentials);
        let mut clusters: Vec<_> =
            credentials.map(|credential| credential.cluster.as_str()).collect();
        clusters.sort_unstable();
        clusters.dedup();
        clusters
    }

    /// Whether only the filter on the clusters puts the credential into an attempt.
    pub(super) fn needs_filter_on_clusters(&self) -> bool {
        self.config.pools.iter().any(|pool| {
            pool.injects_keys() || pool.credentials.iter().any(|it| it.endpoint.is_some())
        })
    }

    /// Whether credentials of one pool have clusters of their own, among those that are meant.
    pub(super) fn spreads_pools(&self, is_meant: impl Fn(&str) -> bool) -> bool {
        self.config.pools.iter().any(|pool| {
            let clusters = pool.credentials.iter().map(|it| it.cluster.as_str());
            let mut meant = clusters.filter(|cluster| is_meant(cluster));
            let first = meant.next();
            meant.any(|it| Some(it) != first)
        })
    }
}

pub(super) fn check<'p, 'd: 'p>(
    on_listeners: &[Plugin<'d>],
    on_clusters: impl Iterator<Item = &'p Plugin<'d>>,
    findings: &mut Findings,
) {
    for plugin in on_listeners {
        check_role(plugin, ON_LISTENERS, findings);
        check_configuration(plugin, findings);
    }
    for plugin in on_clusters {
        check_role(plugin, ON_CLUSTERS, findings);
        let same = on_listeners.iter().any(|other| difference(plugin, other).is_none());
        if let Some(other) = on_listeners.first()
            && !same
            && let Some(part) = difference(plugin, other)
        {
            findings.problem(
                &plugin.config.get(&part),
                format!(
                    "differs from {}, so the two roles do not share what they know",
                    other.config.get(&part).path
                ),
                "write the same there and here, for example with a YAML anchor",
            );
        }
        if on_listeners.is_empty() {
            check_configuration(plugin, findings);
        }
    }
}

/// The operator's page, and where it listens.
pub(super) fn check_operator<'d>(
    plugin: &Plugin<'d>,
    listener: &Cursor<'d>,
    on_listeners: &[Plugin<'d>],
    findings: &mut Findings,
) {
    check_role(plugin, OF_OPERATOR, findings);
    let same = on_listeners.iter().any(|other| difference(plugin, other).is_none());
    if let Some(other) = on_listeners.first()
        && !same
        && Setup::of(other).is_some()
        && let Some(part) = difference(plugin, other)
    {
        findings.problem(
            &plugin.config.get(&part),
            format!(
                "differs from {}, so the page shows something else",
                other.config.get(&part).path
            ),
            "write the same there and here, for example with a YAML anchor",
        );
    }
    let address = listener.get("address.socket_address.address");
    let is_loopback = |text: &str| text.parse::<IpAddr>().is_ok_and(|it| it.is_loopback());
    if !address.text().is_some_and(is_loopback) {
        findings.problem(
            &address,
            "whoever reaches the operator's page may drain credentials",
            "address: 127.0.0.1",
        );
    }
}

fn check_role(plugin: &Plugin<'_>, role: &str, findings: &mut Findings) {
    let config = &plugin.config;
    let root = config.get("root_id");
    let is_default = role == ON_LISTENERS && matches!(root.text(), None | Some(""));
    if !root.is(role) && !is_default {
        let problem = match root.text() {
            Some(ON_LISTENERS | ON_CLUSTERS | OF_OPERATOR) => {
                "this is another role of the filter".to_owned()
            }
            found => format!("the filter has no role {:?}", found.unwrap_or_default()),
        };
        findings.problem(&root, problem, &format!("root_id: {role}"));
    }
    let stop = config.get("allow_on_headers_stop_iteration");
    if !stop.is_true() {
        findings.problem(
            &stop,
            "the filter holds headers until it has read more; without this line requests hang",
            "allow_on_headers_stop_iteration: true",
        );
    }
    let policy = config.get("failure_policy");
    if !policy.is("FAIL_RELOAD") && policy.number() != Some(1.0) {
        findings.problem(
            &policy,
            "after a trap a worker would fail every request, or pass it without affinity",
            "failure_policy: FAIL_RELOAD",
        );
    }
}

fn check_configuration(plugin: &Plugin<'_>, findings: &mut Findings) {
    let at = plugin.config.get("configuration.value");
    let json = match plugin.configuration() {
        Ok(value) => value.to_string(),
        Err(error) => return findings.problem(&at, format!("it is not JSON: {error}"), ""),
    };
    match Config::parse_with(json.as_bytes(), &|_| Some("stand-in".to_owned())) {
        Ok(config) => config.warnings.iter().for_each(|it| findings.advise(&at, it.as_str(), "")),
        Err(problems) => {
            problems.iter().for_each(|problem| findings.problem(&at, problem.to_string(), ""));
        }
    }
}

/// The first part in which they differ.
fn difference(one: &Plugin<'_>, other: &Plugin<'_>) -> Option<String> {
    let mut parts = PARTS_OF_VM.into_iter().map(|part| format!("vm_config.{part}"));
    let part = parts.find(|it| one.config.get(it).value() != other.config.get(it).value());
    if part.is_some() || one.configuration().ok() == other.configuration().ok() {
        return part;
    }
    Some("configuration.value".to_owned())
}
