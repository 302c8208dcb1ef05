//! The connection managers: the order of filters, and what happens to requests before the filter.

use super::document::Cursor;
use super::filter::{Plugin, Setup};
use super::finding::Findings;
use super::resources::Resources;
use super::route::{DEFAULT_LIMIT, advised, needed};

/// Filters that decide who a client is, by their types and names.
const AUTHENTICATION: [&str; 7] =
    ["JwtAuthentication", "ExtAuthz", "OAuth2", "BasicAuth", "ApiKeyAuth", "RBAC", "GcpAuthn"];

/// A connection manager of a listener.
pub(super) struct Manager<'d> {
    pub(super) listener: Cursor<'d>,
    pub(super) at: Cursor<'d>,
    pub(super) plugin: Option<Plugin<'d>>,
    /// Where the filter is among the others, and the types of these.
    place: usize,
    filters: Vec<(&'d str, Cursor<'d>)>,
}

/// All connection managers.
pub(super) fn managers<'d>(resources: &Resources<'d>) -> Vec<Manager<'d>> {
    let mut managers = Vec::new();
    for listener in &resources.listeners {
        let chains = listener.get("filter_chains").elements();
        for chain in chains.chain([listener.get("default_filter_chain")]) {
            for filter in chain.get("filters").elements() {
                if let ("HttpConnectionManager", at) = filter.typed_config() {
                    managers.push(Manager::new(listener.clone(), at, resources));
                }
            }
        }
    }
    managers
}

impl<'d> Manager<'d> {
    fn new(listener: Cursor<'d>, at: Cursor<'d>, resources: &Resources<'d>) -> Self {
        let filters: Vec<_> = at.get("http_filters").elements().collect();
        let plugins = filters.iter().map(|filter| Plugin::of(filter, resources));
        let found = plugins.enumerate().find_map(|(place, it)| Some((place, it?)));
        let (place, plugin) = found.map_or((0, None), |(place, it)| (place, Some(it)));
        let filters = filters.into_iter().map(|it| (resources.filter(&it).0, it)).collect();
        Self { listener, at, plugin, place, filters }
    }

    /// Whether its filter has this configuration.
    pub(super) fn has(&self, setup: &Setup<'_>) -> bool {
        self.plugin.as_ref().and_then(Setup::of).is_some_and(|own| own.is(setup))
    }
}

pub(super) fn check(
    manager: &Manager<'_>,
    setup: &Setup<'_>,
    fails_over: bool,
    findings: &mut Findings,
) {
    for (index, (name, filter)) in manager.filters.iter().enumerate() {
        if *name == "Router" && index < manager.place {
            findings.problem(
                filter,
                "the router comes before the filter, which then sees no request",
                "move the router to the end of `http_filters`",
            );
        }
        if AUTHENTICATION.contains(name) && index > manager.place {
            findings.problem(
                filter,
                "it comes after the filter, which then binds sessions of clients that are refused, and \
                 does not know the tenant",
                "move it in front of the filter",
            );
        }
    }
    let options = manager.at.get("common_http_protocol_options");
    let underscores = options.get("headers_with_underscores_action");
    if underscores.exists() && !underscores.is("ALLOW") && underscores.number() != Some(0.0) {
        findings.problem(
            &underscores,
            "clients that send their session in a header `session_id` lose it, or are refused",
            "headers_with_underscores_action: ALLOW",
        );
    }
    let longest = options.get("max_stream_duration");
    if longest.seconds().is_some_and(|seconds| seconds > 0.0) {
        findings.problem(&longest, "it ends long responses", "remove the line");
    }
    if !(fails_over && setup.spreads_pools(|_| true)) {
        check_limits_of_oldest(manager, setup, findings);
    }
    let advice = [
        ("normalize_path", "pools are chosen by a path that the provider may read otherwise"),
        ("use_remote_address", "clients choose their own address by `x-forwarded-for`"),
    ];
    for (name, problem) in advice {
        let at = manager.at.get(name);
        if !at.is_true() {
            findings.advise(&at, problem, &format!("{name}: true"));
        }
    }
}

/// Envoy 1.36 has other limits for bodies than later ones.
fn check_limits_of_oldest(manager: &Manager<'_>, setup: &Setup<'_>, findings: &mut Findings) {
    let http2 = manager.at.get("http2_protocol_options");
    let limits = [
        (&manager.listener, "per_connection_buffer_limit_bytes", DEFAULT_LIMIT),
        // Without it, a window has 256 MiB there.
        (&http2, "initial_stream_window_size", 268_435_456.0),
    ];
    for (parent, name, default) in limits {
        let limit = parent.get(name);
        if limit.number().unwrap_or(default) < needed(setup) {
            findings.advise(
                &limit,
                "Envoy 1.36 applies this limit while the filter reads, and responds 413 to longer bodies",
                &format!("{name}: {}", advised(setup)),
            );
        }
    }
}
