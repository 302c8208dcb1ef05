//! Mistakes in a configuration of Envoy that only requests show.
//!
//! Whoever merges the filter into a configuration can forget a line without anything failing at
//! once: requests are served, but sessions move, credentials are blamed for others, or tenants
//! share bindings. Each mistake is one warning that names the line to mend. A VM repeats it once an
//! hour at most, however many requests show it.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use crate::config::{Config, Pool};
use crate::request::Request;
use crate::router::{Plan, Router};
use crate::session::{ScopePart, ScopeSource};
use crate::time::Timestamp;

/// How often a VM repeats a warning.
const REPEATED_EVERY: Duration = Duration::from_hours(1);

/// Requests after which a part of the scope that was in none of them is one that never comes.
const ENOUGH_REQUESTS: u32 = 100;

/// The first successes are all looked at for what hardly ever changes, and later one of so many.
const LOOKED_AT_FIRST: u32 = 16;
const LOOKED_AT_LATER: u32 = 16;

/// A mistake, with what the warning says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A filter on a cluster sees a request that no filter in a listener has seen.
    NoListenerFilter { cluster: String },
    /// A filter on a cluster cannot read the plan of the listener's filter.
    OtherModule { cluster: String },
    /// A filter on a cluster has other shared data than the listener's filter.
    OtherVm { cluster: String },
    /// No filter on the cluster has seen a request that the route would have retried.
    NoClusterFilter { cluster: String },
    /// The response is from another cluster than the one that was chosen.
    OtherCluster { cluster: String, chosen: String, header: String },
    /// The filter in front that fills this header has not got the key of a credential.
    NoKey { credential: String, pool: String, header: String },
    /// A part of the scope was in no request so far.
    NoScope { index: usize, source: ScopeSource },
}

/// What a VM has warned of.
#[derive(Debug, Default)]
pub struct Warnings([Option<Timestamp>; 7]);

impl Warnings {
    /// Whether a warning is due; then it counts as given.
    pub fn is_due(&mut self, mistake: &Mistake, now: Timestamp) -> bool {
        let Some(last) = self.0.get_mut(mistake.number()) else {
            return false;
        };
        let is_due = last.is_none_or(|last| !now.is_within(REPEATED_EVERY, last));
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

impl Mistake {
    fn number(&self) -> usize {
        match self {
            Self::NoListenerFilter { .. } => 0,
            Self::OtherModule { .. } => 1,
            Self::OtherVm { .. } => 2,
            Self::NoClusterFilter { .. } => 3,
            Self::OtherCluster { .. } => 4,
            Self::NoScope { .. } => 5,
            Self::NoKey { .. } => 6,
        }
    }

    /// The mistake that a filter on a cluster sees in the filter states of a request: its plan, and
    /// whether the listener's filter has decided it at all.
    pub fn on_cluster(
        router: &Router,
        plan: Option<&Plan>,
        has_plan: bool,
        is_decided: bool,
        cluster: &str,
    ) -> Option<Self> {
        let cluster = cluster.to_owned();
        match plan {
            Some(plan) if plan.shared_data != router.shared_data() => {
                Some(Self::OtherVm { cluster })
            }
            Some(plan) => {
                let pool = router.pool_of(plan)?;
                let is_known = pool.credentials.iter().any(|it| it.cluster == cluster);
                let chosen =
                    pool.credential(plan.next?).filter(|_| !is_known && !cluster.is_empty())?;
                Some(Self::other_cluster(router, cluster, &chosen.cluster))
            }
            None if has_plan => Some(Self::OtherModule { cluster }),
            // Where no pool serves a request, it may go to the same clusters by another route.
            None => (!is_decided).then_some(Self::NoListenerFilter { cluster }),
        }
    }

    fn other_cluster(router: &Router, cluster: String, chosen: &str) -> Self {
        let header = router.config().routing.header.clone();
        Self::OtherCluster { cluster, chosen: chosen.to_owned(), header }
    }

    /// The mistake that the listener's filter sees where the plan comes back as it was sent, from
    /// this cluster (empty if its name is not known).
    pub fn in_response(router: &Router, plan: &Plan, cluster: &str) -> Option<Self> {
        let pool = router.pool_of(plan)?;
        let chosen = pool.credential(plan.current.or(plan.next)?)?;
        let cluster = cluster.to_owned();
        if !cluster.is_empty() && cluster != chosen.cluster {
            return Some(Self::other_cluster(router, cluster, &chosen.cluster));
        }
        expects_cluster_filter(router.config(), pool, plan)
            .then_some(Self::NoClusterFilter { cluster })
    }
}

/// Whether a pool does not work as configured without the filter on its clusters: it puts keys or
/// addresses into attempts, or names the cluster of the next one in the filter state that the
/// configuration names.
fn expects_cluster_filter(config: &Config, pool: &Pool, plan: &Plan) -> bool {
    pool.injects_keys()
        || pool.credentials.iter().any(|credential| credential.endpoint.is_some())
        || (config.routing.names_filter_state && plan.max_attempts > 1)
}

/// Which successes are looked at for how filters and routes are wired: each question to the host
/// costs a microsecond. Errors are always looked at.
#[derive(Debug, Default)]
pub struct Samples(Cell<u32>);

impl Samples {
    /// Whether the next response is looked at.
    pub fn take(&self) -> bool {
        let count = self.0.get();
        let is_last = count == LOOKED_AT_FIRST + LOOKED_AT_LATER - 1;
        self.0.set(if is_last { LOOKED_AT_FIRST } else { count + 1 });
        count <= LOOKED_AT_FIRST
    }

    /// Looks at all responses again for a while, because one was wrong.
    pub fn begin(&self) {
        self.0.set(0);
    }
}

/// Looks for parts of the scope that never come.
#[derive(Debug, Default)]
pub struct ScopeWatch {
    requests: u32,
    seen: Vec<bool>,
}

impl ScopeWatch {
    /// Notes a request; returns the first part that was in none so far, once there were enough.
    pub fn note(&mut self, scope: &[ScopePart], request: &Request<'_>) -> Option<Mistake> {
        if scope.is_empty() || self.requests >= ENOUGH_REQUESTS {
            return None;
        }
        self.requests += 1;
        self.seen.resize(scope.len(), false);
        let mut properties = request.properties.iter();
        for (part, seen) in scope.iter().zip(&mut self.seen) {
            *seen |= match &part.source {
                ScopeSource::Header(name) => {
                    request.headers.iter().any(|(other, value)| other == name && !value.is_empty())
                }
                ScopeSource::Property(_) => properties.next().is_some_and(|it| !it.is_empty()),
            };
        }
        let index = self.seen.iter().position(|seen| !seen)?;
        let part = scope.get(index).filter(|_| self.requests == ENOUGH_REQUESTS)?;
        Some(Mistake::NoScope { index, source: part.source.clone() })
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoListenerFilter { cluster } => write!(
                formatter,
                "cluster {cluster} got a request that no filter in a listener has seen: is the \
                 filter with root_id: session_affinity missing among the http_filters of the \
                 listener?"
            ),
            Self::OtherModule { cluster } => write!(
                formatter,
                "cluster {cluster} cannot read what the listener's filter decided: does its \
                 vm_config.code name another version of the module?"
            ),
            Self::OtherVm { cluster } => write!(
                formatter,
                "cluster {cluster} does not share the listener's bindings and cooldowns: is \
                 vm_config.vm_id on the cluster another one than in the listener?"
            ),
            Self::NoClusterFilter { cluster } => write!(
                formatter,
                "cluster {cluster} responded without the filter: is the filter with root_id: \
                 session_affinity_upstream missing among the http_filters of the cluster, or are \
                 its pools not those of the listener?"
            ),
            Self::OtherCluster { cluster, chosen, header } => write!(
                formatter,
                "cluster {cluster} got a request for which {chosen} was chosen: does another route come \
                 before the one that matches the header {header}?"
            ),
            Self::NoKey { credential, pool, header } => write!(
                formatter,
                "credential {credential} of pool {pool} has no key yet, so nothing is sent to it: \
                 has the file of its secret gone, or the filter of the cluster that fills the header \
                 {header}?"
            ),
            Self::NoScope { index, source: ScopeSource::Header(name) } => write!(
                formatter,
                "session.scope[{index}]: none of {ENOUGH_REQUESTS} requests has the header {name}, \
                 so tenants share sessions: is the name right, and required: true missing?"
            ),
            Self::NoScope { index, source: ScopeSource::Property(path) } => write!(
                formatter,
                "session.scope[{index}]: none of {ENOUGH_REQUESTS} requests has the property {}, \
                 so tenants share sessions: does what sets it, such as jwt_authn with \
                 payload_in_metadata, come before this filter?",
                path.join(".")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;
    use crate::hash::Seed;
    use crate::request::Headers;
    use crate::router::Decision;
    use crate::shared::InMemory;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn router(json: &str, seed: u8) -> Router {
        Router::new(
            Config::parse(json.as_bytes()).unwrap(),
            Seed::agree(&InMemory::default(), [seed; 16]),
        )
    }

    fn plan(router: &Router) -> Plan {
        let headers: Headers = [(":path", "/v1/messages")].into_iter().collect();
        let request = Request::new(&headers, Body::default());
        match router.route(&request, &InMemory::default(), NOW) {
            Decision::Route(route) => router.plan(&route, NOW),
            other => unreachable!("{other:?}"),
        }
    }

    const CLUSTERS: &str = r#"{"routing": {"filter_state": "cluster"}, "pools": [{"name": "p", "credentials": [
        {"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b"}]}]}"#;

    #[test]
    fn the_first_successes_are_looked_at_and_later_one_of_sixteen() {
        let samples = Samples::default();
        let taken = |count: u32| (0..count).filter(|_| samples.take()).count();
        assert_eq!(taken(LOOKED_AT_FIRST), 16);
        assert_eq!(taken(10 * LOOKED_AT_LATER), 10);
        samples.begin();
        assert_eq!(taken(LOOKED_AT_FIRST), 16);
    }

    #[test]
    fn each_filter_sees_the_mistakes_that_concern_it() {
        let router = router(CLUSTERS, 1);
        let (plan, other) = (plan(&router), plan(&self::router(CLUSTERS, 2)));
        let seen = |plan: Option<&Plan>, has_plan, is_decided| {
            Mistake::on_cluster(&router, plan, has_plan, is_decided, "a")
        };
        let cluster = "a".to_owned();
        assert_eq!(seen(Some(&plan), true, true), None);
        let legacy = Mistake::on_cluster(&router, Some(&plan), true, true, "legacy");
        assert_eq!(legacy, Mistake::in_response(&router, &plan, "legacy"));
        assert_eq!(seen(None, false, true), None, "no pool serves it");
        assert_eq!(
            seen(None, false, false),
            Some(Mistake::NoListenerFilter { cluster: cluster.clone() })
        );
        assert_eq!(seen(None, true, true), Some(Mistake::OtherModule { cluster: cluster.clone() }));
        assert_eq!(
            seen(Some(&other), true, true),
            Some(Mistake::OtherVm { cluster: cluster.clone() })
        );
        assert_eq!(
            Mistake::in_response(&router, &plan, "a"),
            Some(Mistake::NoClusterFilter { cluster })
        );
        let warning = Mistake::in_response(&router, &plan, "legacy").unwrap().to_string();
        assert!(warning.contains("legacy got a request for which a was chosen"), "{warning}");
        assert!(warning.ends_with("matches the header x-session-affinity-cluster?"), "{warning}");
    }

    #[test]
    fn a_filter_is_missed_only_where_the_configuration_needs_it() {
        for (json, is_missed) in [
            (CLUSTERS.to_owned(), true),
            (CLUSTERS.replace(r#""routing": {"filter_state": "cluster"}, "#, ""), false),
            (CLUSTERS.replace(r#""pools""#, r#""failover": {"max_attempts": 1}, "pools""#), false),
            (r#"{"pools": [{"name": "p", "credentials": [{"id": "a", "cluster": "c", "endpoint": "127.0.0.1:1"}]}]}"#.to_owned(), true),
            (r#"{"pools": [{"name": "p", "credentials": [{"id": "a", "cluster": "c", "headers": [{"name": "x-api-key", "header": "x-key"}]}]}]}"#.to_owned(), true),
        ] {
            let router = router(&json, 1);
            assert_eq!(
                Mistake::in_response(&router, &plan(&router), "").is_some(),
                is_missed,
                "{json}"
            );
        }
    }

    #[test]
    fn a_warning_is_repeated_once_an_hour() {
        let (mut warnings, hour) = (Warnings::default(), Duration::from_hours(1));
        let first = Mistake::OtherVm { cluster: "a".to_owned() };
        let other = Mistake::OtherModule { cluster: "a".to_owned() };
        assert!(warnings.is_due(&first, NOW));
        assert!(!warnings.is_due(&first, NOW + Duration::from_mins(59)));
        assert!(warnings.is_due(&other, NOW));
        assert!(warnings.is_due(&first, NOW + hour));
        let set_back = Timestamp::from_secs(1);
        assert!(warnings.is_due(&first, set_back), "not silent until the clock is there again");
    }

    #[test]
    fn a_part_of_the_scope_that_came_once_is_no_mistake() {
        let property = ScopeSource::Property(vec!["a".to_owned(), "b".to_owned()]);
        let scope = [ScopeSource::Header("x-tenant".to_owned()), property]
            .map(|source| ScopePart { source, required: false });
        let (named, bare) = ([("x-tenant", "t")].into_iter().collect(), Headers::default());
        for (comes, expected) in [
            ([true, true], None),
            ([true, false], Some("session.scope[1]: none of 100 requests has the property a.b,")),
            ([false, true], Some("session.scope[0]: none of 100 requests has the header x-tenant")),
        ] {
            let mut watch = ScopeWatch::default();
            let mut told = Vec::new();
            for number in 0..300 {
                let [has_header, has_property] = comes.map(|comes| comes && number == 50);
                let properties = [if has_property { b"x".to_vec() } else { Vec::new() }];
                let headers = if has_header { &named } else { &bare };
                let request = Request { headers, body: Body::default(), properties: &properties };
                told.extend(watch.note(&scope, &request).map(|mistake| mistake.to_string()));
            }
            assert_eq!(told.len(), usize::from(expected.is_some()), "{told:?}");
            assert!(told.iter().zip(expected).all(|(told, start)| told.starts_with(start)));
        }
    }
}
