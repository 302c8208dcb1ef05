//! A linter for whole configurations of Envoy into which somebody has merged the filter.
//!
//! Most mistakes of a merge are silent: Envoy accepts them, requests are served, and only the cache
//! of the provider, or the day on which a credential fails, shows what is missing. The rules here
//! are those of the generated files, looked for by meaning: names of clusters, listeners and routes
//! may be any, and the filter may come as a `TypedStruct` or by extension discovery.
//!
//! | module | rules |
//! |---|---|
//! | `filter` | the filter in its two roles, and what both have in common |
//! | `listener` | the order of filters, and what the connection manager does to requests |
//! | `route` | the way from the filter's choice to a cluster, retries, limits and timeouts |
//! | `cluster` | the clusters of the filter's configuration, and their secrets |
//! | `log` | logs that print keys |

mod cluster;
mod document;
mod filter;
mod finding;
mod listener;
mod log;
mod resources;
mod route;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};

use document::{Cursor, Node};
use filter::{Plugin, Setup};
use finding::Findings;
use listener::Manager;
use resources::Resources;

pub use finding::Finding;

/// Checks configurations that belong together: a bootstrap, or the files of its listeners, routes,
/// clusters and secrets.
///
/// # Errors
/// If a file cannot be read, or is not YAML.
pub fn check_files(files: &[PathBuf]) -> Result<Vec<Finding>> {
    let mut texts = Vec::new();
    for file in files {
        let name = file.display().to_string();
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
        texts.push((name, text));
    }
    let texts: Vec<_> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    check(&texts)
}

/// Checks configurations that belong together, each with the name of its file.
///
/// # Errors
/// If one is not YAML.
pub fn check(files: &[(&str, &str)]) -> Result<Vec<Finding>> {
    let mut documents = Vec::new();
    for (name, text) in files {
        let nodes = Node::parse(text).map_err(|error| anyhow!("{name}: {error}"))?;
        documents.extend(nodes.into_iter().map(|node| (*name, node)));
    }
    let roots = documents.iter().map(|(name, node)| Cursor::new(name, node));
    let mut findings = Findings::default();
    if let Some(first) = roots.clone().next() {
        examine(&first, &Resources::collect(roots), &mut findings);
    }
    Ok(findings.0)
}

fn examine(root: &Cursor<'_>, resources: &Resources<'_>, findings: &mut Findings) {
    let managers = listener::managers(resources);
    let (operators, serving): (Vec<_>, Vec<_>) = managers
        .iter()
        .filter(|manager| manager.plugin.is_some())
        .partition(|manager| manager.plugin.as_ref().is_some_and(Plugin::is_operators));
    let on_listeners: Vec<_> = serving.iter().filter_map(|it| it.plugin.clone()).collect();
    let on_clusters = cluster::plugins(resources);
    if on_listeners.is_empty() && (on_clusters.is_empty() || !resources.listeners.is_empty()) {
        findings.problem(
            root,
            "no listener in these files has the filter",
            "add it to the `http_filters` of the connection manager, in front of the router",
        );
    } else if on_listeners.is_empty() {
        findings.advise(
            root,
            "these files have clusters and no listener, so the routes were not checked",
            "name the file with the listeners too",
        );
    }
    filter::check(&on_listeners, on_clusters.values(), findings);
    for manager in operators {
        if let Some(plugin) = &manager.plugin {
            filter::check_operator(plugin, &manager.listener, &on_listeners, findings);
        }
    }
    let mut setups: Vec<Setup<'_>> = Vec::new();
    for setup in on_listeners.iter().chain(on_clusters.values()).filter_map(Setup::of) {
        if !setups.iter().any(|known| known.is(&setup)) {
            setups.push(setup);
        }
    }
    for setup in &setups {
        examine_setup(root, setup, &serving, resources, &on_clusters, findings);
    }
}

/// What one configuration of the filter needs.
fn examine_setup(
    root: &Cursor<'_>,
    setup: &Setup<'_>,
    serving: &[&Manager<'_>],
    resources: &Resources<'_>,
    on_clusters: &BTreeMap<String, Plugin<'_>>,
    findings: &mut Findings,
) {
    let own: Vec<_> = serving.iter().filter(|manager| manager.has(setup)).collect();
    let routes: Vec<_> = own
        .iter()
        .flat_map(|manager| route::configurations(manager, resources, findings))
        .collect();
    let fails_over = !on_clusters.is_empty()
        || setup.needs_filter_on_clusters()
        || routes.iter().any(|it| it.fails_over(setup));
    let keys = log::key_headers(setup, resources);
    for manager in own {
        listener::check(manager, setup, fails_over, findings);
        log::check(manager, &keys, findings);
    }
    routes.iter().for_each(|routes| route::check(routes, setup, fails_over, findings));
    let retries = |cluster: &str| {
        let mut routes = routes.iter();
        fails_over && (routes.len() == 0 || !routes.all(|it| it.forbids_retries(setup, cluster)))
    };
    cluster::check(root, setup, resources, on_clusters, retries, findings);
}
