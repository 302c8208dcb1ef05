//! The mode `shadow` as Envoy sees it: nothing is changed, and everything is counted.

use super::Running;
use super::host::{self, Host};
use crate::metrics::Metric;
use crate::outcome::Outcome;
use crate::router::{Plan, Route};
use crate::time::Timestamp;

impl Running {
    /// Notes where a request would have gone.
    pub(super) fn watch(&self, route: &Route<'_>, now: Timestamp) -> Plan {
        let credential = self.label_of(Some(route.credential));
        self.metrics.count(Metric::ShadowChoices, &[&route.pool.name, credential], 1);
        self.router.plan(route, now)
    }

    /// Notes which cluster a watched request came to, and whether that served it.
    pub(super) fn witness(
        &self,
        plan: &mut Plan,
        outcome: Outcome,
        cluster: &str,
        is_served: bool,
    ) {
        let actual = self.router.witness(plan, cluster, is_served, &Host, host::now());
        let pool = self.router.pool_of(plan);
        let credential = pool.zip(plan.current).and_then(|(pool, id)| pool.credential(id));
        let credential = credential.map_or("-", |credential| credential.id.as_str());
        let pool = pool.map_or("", |pool| pool.name.as_str());
        let values = [pool, outcome.as_str(), actual.as_str()];
        self.metrics.count(Metric::ShadowRequests, &values, 1);
        let words = [" mode=shadow actual=", credential, ",", actual.as_str()].concat();
        self.extend_decision(plan, &words);
    }
}
