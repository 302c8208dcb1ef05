//! The routes that lead to the clusters which the filter chooses.
//!
//! One is enough where all pools are wired alike. Pools that differ in what becomes of their requests
//! (another mode, keys of clients that pass, another path) get a route each, taken when the filter
//! chooses one of their clusters. So nothing depends on the order of these routes.

use envoy_harness::Mode;
use serde::Serialize;

use super::clusters::Cluster;

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

/// A route, as the templates read it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Route {
    /// The clusters for which it is taken, as a regular expression; all if absent.
    only_for: Option<String>,
    clusters: Vec<String>,
    /// Whether the cluster is chosen again for every attempt.
    is_matched: bool,
    /// Whether requests are retried.
    fails_over: bool,
    /// Whether the filter's word on retries has to be removed: nothing would observe them.
    forbids_retries: bool,
    rewrite: Option<Rewrite>,
    removed: RemovedHeaders,
    /// Whether requests get the name of their upstream as `host`.
    is_named: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Rewrite {
    regex: String,
    substitution: String,
}

/// Request headers that do not go upstream, beside the routing header.
#[derive(Clone, Debug, Default, Serialize)]
struct RemovedHeaders {
    keys: Vec<String>,
    accounts: Vec<&'static str>,
    clients: Vec<&'static str>,
}

/// The routes to clusters, in their order. `key_headers` carry the keys of the gateway.
pub(super) fn routes(clusters: &[Cluster], key_headers: &[&str]) -> Vec<Route> {
    let mut groups: Vec<Vec<&Cluster>> = Vec::new();
    for cluster in clusters {
        let alike = groups
            .iter_mut()
            .find(|group| group.first().is_some_and(|first| are_alike(first, cluster)));
        match alike {
            Some(group) => group.push(cluster),
            None => groups.push(vec![cluster]),
        }
    }
    let is_only = groups.len() == 1;
    let fails_over = clusters.iter().any(|cluster| cluster.is_observed);
    groups.iter().map(|group| Route::to(group, is_only, fails_over, key_headers)).collect()
}

/// Whether the same becomes of the requests of both.
fn are_alike(a: &Cluster, b: &Cluster) -> bool {
    let is_matched = |cluster: &Cluster| cluster.mode == Mode::Clusters;
    a.is_observed == b.is_observed
        && is_matched(a) == is_matched(b)
        && a.has_keys == b.has_keys
        && a.base == b.base
}

impl Route {
    fn to(group: &[&Cluster], is_only: bool, some_fail_over: bool, key_headers: &[&str]) -> Self {
        let first = group.first();
        let clusters: Vec<_> = group.iter().map(|cluster| cluster.name.clone()).collect();
        let pattern = clusters.iter().map(|name| escape(name)).collect::<Vec<_>>().join("|");
        let is_observed = first.is_some_and(|it| it.is_observed);
        let has_keys = first.is_some_and(|it| it.has_keys);
        Self {
            only_for: (!is_only).then_some(pattern),
            clusters,
            is_matched: first.is_some_and(|it| it.mode == Mode::Clusters),
            fails_over: is_observed,
            forbids_retries: some_fail_over && !is_observed,
            rewrite: first.and_then(|it| it.base.as_ref()).map(|base| Rewrite {
                regex: format!("^{}", escape(&base.from)),
                substitution: base.to.replace('\\', "\\\\"),
            }),
            removed: if has_keys { RemovedHeaders::of(key_headers) } else { <_>::default() },
            is_named: group.iter().any(|cluster| cluster.is_named()),
        }
    }
}

impl RemovedHeaders {
    fn of(key_headers: &[&str]) -> Self {
        let mut keys: Vec<String> = Vec::new();
        for header in CLIENT_KEY_HEADERS.iter().chain(key_headers) {
            for spelling in [(*header).to_owned(), header.replace('-', "_")] {
                if !keys.contains(&spelling) {
                    keys.push(spelling);
                }
            }
        }
        Self { keys, accounts: ACCOUNT_HEADERS.to_vec(), clients: CLIENT_HEADERS.to_vec() }
    }
}

/// A text that a regular expression takes for itself.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if c.is_ascii_punctuation() && !matches!(c, '_' | '/' | '-') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_pattern() {
        assert_eq!(escape("a_b/v1.0-c|d"), r"a_b/v1\.0-c\|d");
    }
}
