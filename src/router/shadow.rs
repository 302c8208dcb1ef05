//! The mode `shadow`: requests go where they went without the filter, and it is compared what would
//! have become of them.
//!
//! Two bindings are kept for every session. One is what the filter would have: each request that
//! was served confirms the credential that was chosen for it. The other is what really happened: the
//! credential that served the session last. Cooldowns follow from the real responses.

use super::{Plan, Router};
use crate::binding::HomeRule;
use crate::hash::KeyHash;
use crate::outcome::Actual;
use crate::shared::SharedData;
use crate::time::Timestamp;

impl Router {
    /// Compares what was chosen for a request with the cluster that it came to. From then on the
    /// plan is that of the real attempt.
    pub fn witness(
        &self,
        plan: &mut Plan,
        cluster: &str,
        is_served: bool,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Actual {
        let (chosen, session) = (plan.next.take(), plan.binding.take());
        let pool = self.pool_of(plan);
        let actual = pool.and_then(|pool| pool.only_credential_of(cluster));
        plan.current = actual.map(|actual| actual.fingerprint);
        if !is_served {
            return Actual::Failed;
        }
        let (Some(chosen), Some(actual), Some(session)) = (chosen, plan.current, session) else {
            return Actual::Unknown;
        };
        let rule = match pool.map(|pool| self.home_rule(pool)) {
            Some(HomeRule::Common) => HomeRule::Common,
            _ => HomeRule::Kept,
        };
        let confirmed = self.bindings.confirm(shared, session, chosen, &[], rule, now);
        if let Some(chosen) = pool.and_then(|pool| pool.credential(chosen)) {
            self.carry(chosen, confirmed.result, shared, now);
        }
        let real = really(session);
        let before = self.bindings.peek(shared, real, now).map(|binding| binding.home.credential);
        self.bindings.confirm(shared, real, actual, &[], HomeRule::LastServed, now);
        match before {
            Some(before) if before == actual => Actual::Same,
            Some(_) => Actual::Moved,
            None => Actual::New,
        }
    }
}

/// The key of what really happened to a session: in the same row, so one evicts the other no sooner
/// than any two.
fn really(session: KeyHash) -> KeyHash {
    KeyHash(session.0 ^ 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::hash::Seed;
    use crate::request::{Headers, Request};
    use crate::router::Decision;
    use crate::shared::InMemory;

    fn router() -> Router {
        let json =
            br#"{"mode": "shadow", "routing": {"strategy": "fill-first"}, "pools": [{"name": "p",
            "credentials": [{"id": "a", "cluster": "to_a"}, {"id": "b", "cluster": "to_b"}]}]}"#;
        Router::new(Config::parse(json).unwrap(), Seed::STABLE)
    }

    /// What the filter would decide for a request that goes to this cluster, and what becomes of it.
    fn watch(
        router: &Router,
        shared: &InMemory,
        session: &str,
        cluster: &str,
        is_served: bool,
        seconds: u64,
    ) -> (&'static str, String, &'static str) {
        let now = Timestamp::from_secs(1_800_000_000 + seconds);
        let headers: Headers =
            [(":method", "POST"), (":path", "/v1/chat/completions"), ("x-session-id", session)]
                .into_iter()
                .collect();
        let request = Request::new(&headers, router.read_body(br#"{"model": "gpt-5.4"}"#));
        let Decision::Route(route) = router.route(&request, shared, now) else { panic!() };
        let mut plan = router.plan(&route, now);
        let actual = router.witness(&mut plan, cluster, is_served, shared, now);
        (route.outcome.as_str(), route.credential.id.clone(), actual.as_str())
    }

    #[test]
    fn what_would_have_been_is_apart_from_what_is() {
        let (router, shared) = (router(), InMemory::default());
        // Without the filter the session alternates; with it, it would have stayed.
        for (second, (cluster, outcome, actual)) in [
            ("to_b", "miss", "new"),
            ("to_b", "hit", "same"),
            ("to_a", "hit", "moved"),
            ("to_a", "hit", "same"),
            ("to_b", "hit", "moved"),
        ]
        .into_iter()
        .enumerate()
        {
            let seconds = 10 * second as u64;
            let seen = watch(&router, &shared, "1", cluster, true, seconds);
            assert_eq!(seen, (outcome, "a".to_owned(), actual), "{second}");
        }
    }

    #[test]
    fn what_was_not_served_or_not_seen_teaches_nothing() {
        let (router, shared) = (router(), InMemory::default());
        let watch =
            |cluster, is_served, second| watch(&router, &shared, "1", cluster, is_served, second).2;
        assert_eq!(watch("to_a", false, 0), "failed");
        assert_eq!(watch("elsewhere", true, 1), "unknown");
        assert_eq!(watch("to_a", true, 2), "new");
    }

    #[test]
    fn real_limits_are_known_to_what_would_have_been() {
        let (router, shared) = (router(), InMemory::default());
        assert_eq!(watch(&router, &shared, "1", "to_a", true, 0).0, "miss");
        let now = Timestamp::from_secs(1_800_000_001);
        let headers: Headers =
            [(":method", "POST"), (":path", "/v1/chat/completions"), ("x-session-id", "2")]
                .into_iter()
                .collect();
        let request = Request::new(&headers, router.read_body(br#"{"model": "gpt-5.4"}"#));
        let Decision::Route(route) = router.route(&request, &shared, now) else { panic!() };
        let mut plan = router.plan(&route, now);
        router.witness(&mut plan, "to_a", false, &shared, now);
        let limit: Headers = [("retry-after", "60")].into_iter().collect();
        let response = crate::Response::Received { status: 429, headers: &limit, body: b"" };
        router.observe(&mut plan, &response, &shared, now);
        let (outcome, credential, _) = watch(&router, &shared, "1", "to_a", true, 10);
        assert_eq!((outcome, credential.as_str()), ("substitute", "b"));
    }
}
