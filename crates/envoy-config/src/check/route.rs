//! From the choice of the filter to a cluster.

use session_affinity::config::{Config, Pool};

use super::document::Cursor;
use super::filter::Setup;
use super::finding::Findings;
use super::listener::Manager;
use super::resources::Resources;
use crate::routes::CLIENT_KEY_HEADERS;
use crate::wiring::{LONGEST_REQUEST, ONE_READ};

/// What Envoy buffers of a connection, and of a request, if nothing is written.
pub(super) const DEFAULT_LIMIT: f64 = 1_048_576.0;

/// Conditions that retry what the filter has not asked for.
const TOO_MUCH: [&str; 4] = ["5xx", "gateway-error", "retriable-4xx", "retriable-status-codes"];

/// The routes of a connection manager.
pub(super) struct Routes<'d> {
    at: Cursor<'d>,
    /// The buffer of a connection.
    connection: f64,
    /// The longest silence of a stream, unless the route says otherwise.
    idle_timeout: f64,
}

/// A route that is taken when the filter has chosen.
struct Chosen<'d> {
    index: usize,
    at: Cursor<'d>,
    /// The only clusters for which it is taken; all if absent.
    clusters: Option<Vec<String>>,
}

/// The request header by which the filter asks for retries: a route that removes it has none.
const RETRY_ON: &str = "x-envoy-retry-on";

const REMOVED: &str = "request_headers_to_remove";

impl Chosen<'_> {
    fn is_for(&self, cluster: &str) -> bool {
        self.clusters.as_ref().is_none_or(|own| own.iter().any(|it| it == cluster))
    }

    /// Whether what the filter says of retries is removed.
    fn forbids_retries(&self) -> bool {
        let removed = self.at.get(REMOVED);
        removed.elements().any(|header| header.is(RETRY_ON))
    }
}

/// The names of which a regular expression is a list; `None` if it is anything else.
fn names_of(pattern: &str) -> Option<Vec<String>> {
    let names = pattern.split('|').map(|name| {
        let mut text = String::new();
        let mut characters = name.chars();
        while let Some(c) = characters.next() {
            match c {
                '\\' => text.push(characters.next().filter(char::is_ascii_punctuation)?),
                _ if c.is_ascii_punctuation() && !"_-/".contains(c) => return None,
                _ => text.push(c),
            }
        }
        Some(text)
    });
    names.collect()
}

/// The route configurations of a connection manager, if they are in the files.
pub(super) fn configurations<'d>(
    manager: &Manager<'d>,
    resources: &Resources<'d>,
    findings: &mut Findings,
) -> Vec<Routes<'d>> {
    let inline = manager.at.get("route_config");
    let name = manager.at.get("rds.route_config_name");
    let found: Vec<_> = if inline.exists() {
        vec![inline]
    } else {
        let named = resources.routes.iter().filter(|it| it.get("name").text() == name.text());
        named.cloned().collect()
    };
    if found.is_empty() {
        findings.advise(
            &name,
            "its routes are in none of these files, and were not checked",
            "name the file with the routes too",
        );
    }
    let limit = manager.listener.get("per_connection_buffer_limit_bytes").number();
    let silence = manager.at.get("stream_idle_timeout").seconds();
    let of_route = |at| Routes {
        at,
        connection: limit.unwrap_or(DEFAULT_LIMIT),
        idle_timeout: silence.unwrap_or(300.0),
    };
    found.into_iter().map(of_route).collect()
}

impl<'d> Routes<'d> {
    fn hosts(&self) -> impl Iterator<Item = Cursor<'d>> + use<'d> {
        self.at.get("virtual_hosts").elements()
    }

    /// Whether a cluster gets requests only by routes that have no retries.
    pub(super) fn forbids_retries(&self, setup: &Setup<'_>, cluster: &str) -> bool {
        let mut routes = self.hosts().flat_map(|host| chosen(&host, &setup.config));
        routes.all(|route| route.forbids_retries() || !route.is_for(cluster))
    }

    /// Whether requests are retried on other credentials.
    pub(super) fn fails_over(&self, setup: &Setup<'_>) -> bool {
        self.hosts().any(|host| {
            chosen(&host, &setup.config).iter().any(|route| {
                let policy = retry_policy(route, &host);
                policy.get("refresh_cluster_on_retry").is_true()
                    || conditions(&policy).contains(&"retriable-headers")
            })
        })
    }
}

/// What must fit into the buffer of a request while the filter reads.
pub(super) fn needed(setup: &Setup<'_>) -> f64 {
    // Buffers are far below what a float counts exactly.
    setup.config.body.max_bytes as f64 + DEFAULT_LIMIT
}

/// What a buffer should have.
pub(super) fn advised(setup: &Setup<'_>) -> usize {
    LONGEST_REQUEST.max(setup.config.body.max_bytes) + ONE_READ
}

pub(super) fn check(
    routes: &Routes<'_>,
    setup: &Setup<'_>,
    fails_over: bool,
    findings: &mut Findings,
) {
    let config = &setup.config;
    if routes.hosts().all(|host| chosen(&host, config).is_empty()) {
        return findings.problem(
            &routes.at.get("virtual_hosts"),
            format!("no route matches the header `{}`", config.routing.header),
            &format!(
                "as the first route: {{match: {{prefix: /, headers: [{{name: {}, present_match: true}}]}}, route: …}}",
                config.routing.header
            ),
        );
    }
    for host in routes.hosts() {
        let all: Vec<_> = host.get("routes").elements().collect();
        let chosen = chosen(&host, config);
        check_order(&all, &chosen, config, findings);
        check_coverage(&host, &chosen, setup, findings);
        for route in &chosen {
            check_removals(routes, &host, route, config, findings);
            check_specifier(routes, &host, route, setup, fails_over, findings);
            check_timeouts(routes, &host, route, findings);
            check_limits(routes, &host, route, setup, findings);
            if fails_over {
                check_retries(&host, route, findings);
            }
        }
        // Without the routing header these match while the filter reads.
        for route in all.iter().filter(|route| route.get("direct_response").exists()) {
            if !chosen.is_empty() && may_serve(&route.get("match"), config) {
                findings.problem(
                    &route.get("direct_response"),
                    "since Envoy 1.37 a `direct_response` has no limit of the virtual host for bodies: while the filter \
                     reads, long ones are refused with 413, or hang",
                    &format!(
                        "route: {{cluster_header: {}, cluster_not_found_response_code: NOT_FOUND}}",
                        config.routing.header
                    ),
                );
            }
        }
    }
}

/// The routes that match the routing header.
fn chosen<'d>(host: &Cursor<'d>, config: &Config) -> Vec<Chosen<'d>> {
    let routes = host.get("routes").elements().enumerate();
    let found = routes.filter_map(|(index, at)| {
        let mut headers = at.get("match.headers").elements();
        let header = headers.find(|header| {
            let name = header.get("name").text().unwrap_or_default();
            name.eq_ignore_ascii_case(&config.routing.header)
                && !header.get("invert_match").is_true()
        })?;
        let exact = ["string_match.exact", "exact_match"].map(|it| header.get(it).text());
        let patterns = ["string_match.safe_regex.regex", "safe_regex_match.regex"]
            .map(|it| header.get(it).text().and_then(names_of));
        let exact = exact.into_iter().flatten().map(|name| vec![name.to_owned()]);
        let clusters = exact.chain(patterns.into_iter().flatten()).next();
        Some(Chosen { index, at, clusters })
    });
    found.collect()
}

/// Every other route in front must be one that requests of pools do not match.
fn check_order(
    all: &[Cursor<'_>],
    chosen: &[Chosen<'_>],
    config: &Config,
    findings: &mut Findings,
) {
    let last = chosen.iter().map(|route| route.index).max().unwrap_or(0);
    for (index, route) in all.iter().enumerate().take(last) {
        let is_chosen = chosen.iter().any(|other| other.index == index);
        if !is_chosen && may_serve(&route.get("match"), config) {
            findings.problem(
                route,
                format!(
                    "it takes requests that the filter has sent to a credential: it comes before the route on `{}`",
                    config.routing.header
                ),
                "move it behind that route",
            );
        }
    }
}

/// Whether a route can match the path of a request of a pool.
fn may_serve(matches: &Cursor<'_>, config: &Config) -> bool {
    let prefix =
        ["prefix", "path_separated_prefix"].into_iter().find_map(|it| matches.get(it).text());
    let path = matches.get("path").text();
    config.pools.iter().any(|pool| pool_may_serve(pool, prefix, path))
}

fn pool_may_serve(pool: &Pool, prefix: Option<&str>, path: Option<&str>) -> bool {
    let ways = &pool.matches;
    let prefixes: Vec<_> = ways.iter().flat_map(|way| &way.path_prefixes).collect();
    match (prefix, path) {
        _ if ways.is_empty() || ways.iter().any(|way| way.path_prefixes.is_empty()) => true,
        (Some(prefix), _) => {
            prefixes.iter().any(|own| own.starts_with(prefix) || prefix.starts_with(own.as_str()))
        }
        (None, Some(path)) => prefixes.iter().any(|own| path.starts_with(own.as_str())),
        (None, None) => true,
    }
}

/// A virtual host that serves a pool has a route for every cluster of it.
fn check_coverage(
    host: &Cursor<'_>,
    chosen: &[Chosen<'_>],
    setup: &Setup<'_>,
    findings: &mut Findings,
) {
    let serves =
        host.get("routes").elements().any(|route| may_serve(&route.get("match"), &setup.config));
    if !serves || chosen.iter().any(|route| route.clusters.is_none()) {
        return;
    }
    for cluster in setup.clusters() {
        if !chosen.iter().any(|route| route.is_for(cluster)) {
            findings.problem(
                &host.get("routes"),
                format!("no route is taken when the filter chooses the cluster {cluster:?}"),
                &format!(
                    "match: {{prefix: /, headers: [{{name: {}, present_match: true}}]}}",
                    setup.config.routing.header
                ),
            );
        }
    }
}

fn check_removals(
    routes: &Routes<'_>,
    host: &Cursor<'_>,
    route: &Chosen<'_>,
    config: &Config,
    findings: &mut Findings,
) {
    let lists = [route.at.get(REMOVED), host.get(REMOVED), routes.at.get(REMOVED)];
    let removed: Vec<_> = lists.iter().flat_map(Cursor::elements).collect();
    let removes = |name: &str| {
        removed.iter().filter_map(Cursor::text).any(|header| header.eq_ignore_ascii_case(name))
    };
    let at = route.at.get(REMOVED);
    if !removes(&config.routing.header) {
        findings.problem(
            &at,
            "the routing header goes upstream",
            &format!("{REMOVED}: [{}]", config.routing.header),
        );
    }
    let replicas =
        config.pools.iter().flat_map(|pool| &pool.credentials).all(|it| it.endpoint.is_some());
    let kept: Vec<_> = CLIENT_KEY_HEADERS.into_iter().filter(|header| !removes(header)).collect();
    if !kept.is_empty() && !replicas {
        findings.advise(
            &at,
            "keys of clients go upstream, beside the key of the credential",
            &format!("{REMOVED}: [{}]", kept.join(", ")),
        );
    }
}

fn check_specifier(
    routes: &Routes<'_>,
    host: &Cursor<'_>,
    route: &Chosen<'_>,
    setup: &Setup<'_>,
    fails_over: bool,
    findings: &mut Findings,
) {
    let action = route.at.get("route");
    let header = &setup.config.routing.header;
    let by_header = action.get("cluster_header");
    let matcher = matcher(routes, &action);
    if let Some(matcher) = matcher {
        return check_matcher(&matcher, host, route, setup, findings);
    }
    let fixed = action.get("cluster");
    let leads = by_header.text().is_some_and(|it| it.eq_ignore_ascii_case(header));
    let is_own = fixed.exists() && route.clusters.as_ref().is_some_and(|own| own.len() == 1);
    if !leads && !is_own {
        findings.problem(
            &action,
            "it does not lead to the cluster that the filter chooses",
            &format!("cluster_header: {header}"),
        );
    } else if fails_over
        && !route.forbids_retries()
        && setup.spreads_pools(|cluster| route.is_for(cluster))
    {
        findings.problem(
            &action,
            "the credentials of a pool have clusters of their own, and this names one for all attempts: \
             a retry would ask the same credential again",
            "inline_cluster_specifier_plugin with the matcher on the filter state, as in envoy.yaml",
        );
    }
}

/// The cluster matcher of a route, in the route or named by it.
fn matcher<'d>(routes: &Routes<'d>, action: &Cursor<'d>) -> Option<Cursor<'d>> {
    let inline = action.get("inline_cluster_specifier_plugin.extension");
    let name = action.get("cluster_specifier_plugin").text();
    let mut plugins =
        routes.at.get("cluster_specifier_plugins").elements().map(|it| it.get("extension"));
    let extension = match name {
        Some(_) => plugins.find(|it| it.get("name").text() == name)?,
        None => inline,
    };
    let (kind, config) = extension.typed_config();
    (kind == "MatcherClusterSpecifier").then(|| config.get("cluster_matcher"))
}

fn check_matcher(
    matcher: &Cursor<'_>,
    host: &Cursor<'_>,
    route: &Chosen<'_>,
    setup: &Setup<'_>,
    findings: &mut Findings,
) {
    let state = format!("wasm.{}", setup.config.routing.filter_state);
    let key = matcher.get("matcher_tree.input.typed_config.key");
    if !key.is(&state) {
        findings.problem(
            &key,
            "the filter names the cluster in another filter state",
            &format!("key: {state}"),
        );
    }
    let map = matcher.get("matcher_tree.exact_match_map.map");
    let listed: Vec<_> = map.members().collect();
    for cluster in setup.clusters().into_iter().filter(|cluster| route.is_for(cluster)) {
        let Some((_, entry)) = listed.iter().find(|(name, _)| *name == cluster) else {
            findings.problem(
                &map,
                format!("the cluster {cluster:?} of the filter's configuration is not listed"),
                &format!(
                    "{cluster}: {{action: {{name: cluster, typed_config: {{\"@type\": …ClusterAction, cluster: {cluster}}}}}}}"
                ),
            );
            continue;
        };
        let target = entry.get("action.typed_config.cluster");
        if !target.is(cluster) {
            findings.problem(
                &target,
                format!("requests for the cluster {cluster:?} go to another one"),
                &format!("cluster: {cluster}"),
            );
        }
    }
    let refresh = retry_policy(route, host).get("refresh_cluster_on_retry");
    if !refresh.is_true() {
        findings.problem(
            &refresh,
            "without it a retry asks the same credential again",
            "refresh_cluster_on_retry: true",
        );
    }
}

/// The retry policy of a route, or of its virtual host.
fn retry_policy<'d>(route: &Chosen<'d>, host: &Cursor<'d>) -> Cursor<'d> {
    let (own, common) = (route.at.get("route.retry_policy"), host.get("retry_policy"));
    if own.exists() || !common.exists() { own } else { common }
}

fn conditions<'d>(policy: &Cursor<'d>) -> Vec<&'d str> {
    policy.get("retry_on").text().unwrap_or_default().split(',').map(str::trim).collect()
}

/// The filter itself says what is retried: a policy can only add to that.
fn check_retries(host: &Cursor<'_>, route: &Chosen<'_>, findings: &mut Findings) {
    let policy = retry_policy(route, host);
    let conditions = conditions(&policy);
    for condition in TOO_MUCH.iter().filter(|condition| conditions.contains(condition)) {
        findings.problem(
            &policy.get("retry_on"),
            format!("`{condition}` retries responses that no other credential improves on"),
            "remove it: the filter says for each request what is retried",
        );
    }
}

fn check_timeouts(
    routes: &Routes<'_>,
    host: &Cursor<'_>,
    route: &Chosen<'_>,
    findings: &mut Findings,
) {
    let timeout = route.at.get("route.timeout");
    if timeout.seconds() != Some(0.0) {
        findings.problem(
            &timeout,
            "it ends long responses, after 15 s if it is not written",
            "timeout: 0s",
        );
    }
    let longest = route.at.get("route.max_stream_duration.max_stream_duration");
    if longest.seconds().is_some_and(|seconds| seconds > 0.0) {
        findings.problem(&longest, "it ends long responses", "remove the line");
    }
    let policy = retry_policy(route, host);
    let per_try = policy.get("per_try_timeout");
    if per_try.seconds().is_some_and(|seconds| seconds > 0.0) {
        findings.problem(
            &per_try,
            "it ends long responses",
            "per_try_idle_timeout: 600s, which is for silence",
        );
    }
    let idle = route.at.get("route.idle_timeout");
    let longest_silence = idle.seconds().unwrap_or(routes.idle_timeout);
    let of_attempt = policy.get("per_try_idle_timeout").seconds().unwrap_or(0.0);
    // A timeout of 0 is none.
    if longest_silence > 0.0 && longest_silence <= of_attempt {
        findings.problem(
            &idle,
            "the request ends before its first attempt does: no other credential is tried",
            "idle_timeout: 1800s",
        );
    }
}

fn check_limits(
    routes: &Routes<'_>,
    host: &Cursor<'_>,
    route: &Chosen<'_>,
    setup: &Setup<'_>,
    findings: &mut Findings,
) {
    const NAMES: [&str; 2] = ["request_body_buffer_limit", "per_request_buffer_limit_bytes"];
    let written = [&route.at, host].into_iter().flat_map(|at| NAMES.map(|name| at.get(name)));
    let at = written.into_iter().find(Cursor::exists);
    let limit = at.as_ref().and_then(Cursor::number).unwrap_or(routes.connection);
    if limit < needed(setup) {
        findings.problem(
            &at.unwrap_or_else(|| host.get(NAMES[0])),
            format!(
                "the filter reads up to {} bytes of a body, and one read more must fit: Envoy would respond 413",
                setup.config.body.max_bytes
            ),
            &format!("request_body_buffer_limit: {}", advised(setup)),
        );
    }
}
