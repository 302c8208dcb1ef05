//! The clusters of the filter's configuration, and the secrets that they inject.

use std::collections::BTreeMap;

use super::document::Cursor;
use super::filter::{Plugin, Setup};
use super::finding::Findings;
use super::resources::Resources;

/// The filters of a cluster are among these options.
const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Retries that a cluster allows at a time if nothing is written; more than that are lost when a
/// credential fails under load.
const DEFAULT_RETRIES: f64 = 3.0;

/// The filter on the clusters that have it, by their names.
pub(super) fn plugins<'d>(resources: &Resources<'d>) -> BTreeMap<String, Plugin<'d>> {
    let clusters = resources.clusters.iter().filter_map(|cluster| {
        let plugin = filters(cluster).into_iter().find_map(|it| Plugin::of(&it, resources))?;
        Some((cluster.get("name").text()?.to_owned(), plugin))
    });
    clusters.collect()
}

fn options<'d>(cluster: &Cursor<'d>) -> Cursor<'d> {
    let options = cluster.get("typed_extension_protocol_options");
    options.members().find(|(name, _)| *name == OPTIONS).map_or(options, |(_, found)| found)
}

fn filters<'d>(cluster: &Cursor<'d>) -> Vec<Cursor<'d>> {
    options(cluster).get("http_filters").elements().collect()
}

/// The injectors of all clusters, each with its cluster.
pub(super) fn injectors<'d>(resources: &Resources<'d>) -> Vec<(Cursor<'d>, Cursor<'d>)> {
    let all = resources.clusters.iter().flat_map(|cluster| {
        let typed = filters(cluster).into_iter().map(|filter| resources.filter(&filter));
        let found = typed.filter(|(name, _)| *name == "CredentialInjector");
        found.map(|(_, injector)| (cluster.clone(), injector)).collect::<Vec<_>>()
    });
    all.collect()
}

/// The header that an injector sets.
pub(super) fn injected_header(injector: &Cursor<'_>) -> String {
    let header = injector.get("credential").typed_config().1.get("header");
    header.text().unwrap_or("authorization").to_ascii_lowercase()
}

pub(super) fn check(
    root: &Cursor<'_>,
    setup: &Setup<'_>,
    resources: &Resources<'_>,
    plugins: &BTreeMap<String, Plugin<'_>>,
    is_retried: impl Fn(&str) -> bool,
    findings: &mut Findings,
) {
    check_environment(setup, findings);
    if resources.clusters.is_empty() {
        return findings.advise(
            root,
            "these files have no clusters, so those of the filter's configuration were not checked",
            "name the file with the clusters too",
        );
    }
    for name in setup.clusters() {
        let Some(cluster) = resources.cluster(name) else {
            findings.problem(
                &setup.at.get("pools"),
                format!("the cluster {name:?} does not exist in these files"),
                "add the cluster before the listener knows it",
            );
            continue;
        };
        check_cluster(cluster, setup, name, findings);
        if is_retried(name) {
            check_failover(cluster, plugins.contains_key(name), findings);
        }
    }
    check_secrets(resources, findings);
}

/// Keys that the filter reads come from variables that its VM may see.
fn check_environment(setup: &Setup<'_>, findings: &mut Findings) {
    let seen = setup.environment.get("host_env_keys");
    let mut names: Vec<_> = seen.elements().filter_map(|name| name.text()).collect();
    names.extend(setup.environment.get("key_values").members().map(|(name, _)| name));
    for pool in setup.at.get("pools").elements() {
        let headers =
            pool.get("credentials").elements().flat_map(|it| it.get("headers").elements());
        for variable in headers.map(|header| header.get("environment")) {
            if let Some(name) = variable.text().filter(|name| !names.contains(name)) {
                findings.problem(
                    &seen,
                    format!("the filter cannot see the variable {name}"),
                    &format!("host_env_keys: [{name}]"),
                );
            }
        }
    }
}

fn check_cluster(cluster: &Cursor<'_>, setup: &Setup<'_>, name: &str, findings: &mut Findings) {
    let credentials = setup.config.pools.iter().flat_map(|pool| &pool.credentials);
    let mut own = credentials.filter(|credential| credential.cluster == name);
    let has_endpoints = own.any(|credential| credential.endpoint.is_some());
    let kind = cluster.get("type");
    if has_endpoints && !kind.is("ORIGINAL_DST") {
        findings.problem(
            &kind,
            "the filter names an endpoint for each attempt, and this cluster ignores it",
            "type: ORIGINAL_DST, with lb_policy: CLUSTER_PROVIDED and without load_assignment",
        );
    }
    if !has_endpoints && kind.is("ORIGINAL_DST") {
        findings.problem(
            &kind,
            "its credentials have no `endpoint`, so it has no host",
            "endpoint: \"10.0.0.1:8000\" in each credential of the filter's configuration",
        );
    }
    let idle = options(cluster).get("common_http_protocol_options.idle_timeout");
    if !idle.exists() {
        findings.advise(
            &idle,
            "a connection is kept for an hour, longer than providers keep it: some requests meet one that was closed",
            "common_http_protocol_options: {idle_timeout: 50s}",
        );
    }
}

fn check_failover(cluster: &Cursor<'_>, has_filter: bool, findings: &mut Findings) {
    if !has_filter {
        findings.problem(
            &options(cluster).get("http_filters"),
            "the cluster does not have the filter: nothing is learned from its responses, and none is retried",
            "the filter with `root_id: session_affinity_upstream`, as the first",
        );
    }
    let breakers = cluster.get("circuit_breakers.thresholds");
    let thresholds: Vec<_> = breakers.elements().collect();
    let of_requests = thresholds.iter().find(|it| !it.get("priority").is("HIGH"));
    let retries = of_requests.and_then(|it| it.get("max_retries").number());
    let has_budget = of_requests.is_some_and(|it| it.get("retry_budget").exists());
    if !has_budget && retries.is_none_or(|retries| retries <= DEFAULT_RETRIES) {
        findings.problem(
            of_requests.unwrap_or(&breakers),
            "Envoy allows three retries at a time, but when a credential fails every request is retried",
            "max_retries: 1000",
        );
    }
}

/// An injector without its secret ends Envoy.
fn check_secrets(resources: &Resources<'_>, findings: &mut Findings) {
    for (_, injector) in injectors(resources) {
        let overwrite = injector.get("overwrite");
        if !overwrite.is_true() {
            findings.problem(
                &overwrite,
                "a key that the client sends stays in the request",
                "overwrite: true",
            );
        }
        let (_, generic) = injector.get("credential").typed_config();
        let secret = ["credential", "client_secret", "token_secret"]
            .into_iter()
            .map(|it| generic.get(it))
            .find(Cursor::exists);
        let Some(secret) = secret.filter(|secret| !secret.get("sds_config").exists()) else {
            continue;
        };
        let name = secret.get("name");
        let known = resources.secrets.iter().find(|known| known.get("name").text() == name.text());
        match known {
            None => findings.problem(
                &name,
                "no secret of these files has this name: Envoy would crash when it loads the cluster",
                "add the secret, or an `sds_config`",
            ),
            Some(known) => findings.advise(
                known,
                "a static secret is read once: a new key needs a restart",
                "an `sds_config` in the injector, with a file that Envoy watches or a server",
            ),
        }
    }
}
