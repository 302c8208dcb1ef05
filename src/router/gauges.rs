//! How things are, for metrics: the state of each credential, and how full the tables are.

use super::Router;
use crate::config::{Availability, Credential, Pool, Profile};
use crate::cooldown::Block;
use crate::headroom::{self, Limits};
use crate::metrics::{Ledger, Metric};
use crate::outcome::{CredentialState, Failover, Outcome};
use crate::shared::SharedData;
use crate::signals::Class;
use crate::table::Table;
use crate::time::Timestamp;

/// Rows of a table that are looked at each time; of more rows the rest is estimated.
const ROWS: u32 = 512;

impl Router {
    /// Sets all gauges, and makes the counters known that others depend on. Every worker may do so:
    /// they all see the same shared data.
    pub fn set_gauges(&self, ledger: &mut Ledger, shared: &impl SharedData, now: Timestamp) {
        for pool in &self.config.pools {
            declare_counters_of(pool, ledger);
            self.set_gauges_of(pool, ledger, shared, now);
        }
        ledger.declare(Metric::ContendedWrites, &[]);
        ledger.declare(Metric::Pins, &[]);
        // The next rows each time.
        let from = (now.as_millis() / 10_000) as u32;
        let from = from.wrapping_mul(ROWS);
        count_table(self.bindings.table(), "binding", from, ledger, shared, now);
        if self.config.pins.max > 0 {
            count_table(self.pins.table(), "pin", from, ledger, shared, now);
        }
    }

    fn set_gauges_of(
        &self,
        pool: &Pool,
        ledger: &mut Ledger,
        shared: &impl SharedData,
        now: Timestamp,
    ) {
        let mut counts = CredentialState::ALL.map(|state| (state, 0));
        for credential in &pool.credentials {
            let (state, blocks) = self.standing(credential, shared, now);
            for (counted, count) in &mut counts {
                *count += u64::from(*counted == state);
            }
            let id = if self.config.observe.by_credential { &credential.id } else { "" };
            ledger.declare(Metric::Probes, &[&pool.name, id]);
            if self.config.observe.by_credential {
                set_gauges_of_credential((&pool.name, &credential.id), state, &blocks, ledger);
                self.set_gauges_of_load(pool, credential, ledger, shared, now);
            }
        }
        for (state, count) in counts {
            ledger.set(Metric::Credentials, &[&pool.name, state.as_str()], count);
        }
    }

    fn set_gauges_of_load(
        &self,
        pool: &Pool,
        credential: &Credential,
        ledger: &mut Ledger,
        shared: &impl SharedData,
        now: Timestamp,
    ) {
        if self.config.profile == Profile::Reference {
            return;
        }
        let windows = self.headroom().record(credential, shared).tightest(now);
        for name in headroom::names() {
            let values = [&pool.name, &credential.id, name];
            match windows.iter().find(|(known, ..)| *known == name) {
                Some((_, used, reset)) => {
                    ledger.set(Metric::Utilization, &values, (*used).into());
                    ledger.set(Metric::WindowReset, &values, reset.as_millis() / 1000);
                }
                None => {
                    ledger.clear(Metric::Utilization, &values);
                    ledger.clear(Metric::WindowReset, &values);
                }
            }
        }
        if let Some(in_flight) = self.headroom().in_flight(pool, credential, shared, now) {
            let values = [pool.name.as_str(), &credential.id];
            ledger.set(Metric::InFlight, &values, in_flight.into());
        }
    }

    /// The credentials that have begun to be spared, or have room again, since any worker has asked.
    pub fn sparing(
        &self,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> Vec<(&str, &Credential, bool, Limits)> {
        let pools = self.config.pools.iter();
        let all = pools.flat_map(|pool| pool.credentials.iter().map(move |it| (pool, it)));
        let changes = all.filter_map(|(pool, credential)| {
            let change = self.headroom().note_sparing(credential, shared, now);
            let (is_spared, limits) = change?;
            Some((pool.name.as_str(), credential, is_spared, limits))
        });
        changes.collect()
    }

    /// What a credential can do now, and every block of it.
    pub fn standing(
        &self,
        credential: &Credential,
        shared: &impl SharedData,
        now: Timestamp,
    ) -> (CredentialState, Vec<(Block, bool)>) {
        let mut availability = credential.availability;
        let blocks = match self.config.profile {
            Profile::Recommended => {
                let record = self.cooldowns().record(shared, credential).unwrap_or_default();
                let overridden = record.override_at(now).map(|it| it.availability);
                if availability != Availability::Disabled {
                    availability = overridden.unwrap_or(availability);
                }
                self.cooldowns().blocks(&record, credential, now)
            }
            Profile::Reference => {
                let block = self.reference_cooldowns().block(shared, credential, "", now);
                block.map(|block| (block, true)).into_iter().collect()
            }
        };
        let state = match availability {
            Availability::Disabled => CredentialState::Disabled,
            Availability::Drain => CredentialState::Draining,
            Availability::Active if blocks.iter().any(|(_, is_whole)| *is_whole) => {
                CredentialState::Blocked
            }
            Availability::Active if !blocks.is_empty() => CredentialState::Partly,
            Availability::Active => CredentialState::Ready,
        };
        (state, blocks)
    }
}

/// What should not happen is counted from the beginning.
fn declare_counters_of(pool: &Pool, ledger: &mut Ledger) {
    for end in Failover::ALL {
        ledger.declare(Metric::Failovers, &[&pool.name, end.as_str()]);
    }
    for refusal in [Outcome::ModelCooldown, Outcome::AuthUnavailable] {
        ledger.declare(Metric::Requests, &[&pool.name, refusal.as_str(), ""]);
    }
    ledger.declare(Metric::LeftGroup, &[&pool.name]);
}

fn set_gauges_of_credential(
    (pool, id): (&str, &str),
    state: CredentialState,
    blocks: &[(Block, bool)],
    ledger: &mut Ledger,
) {
    for known in CredentialState::ALL {
        let is_this = u64::from(known == state);
        ledger.set(Metric::CredentialState, &[pool, id, known.as_str()], is_this);
    }
    for class in Class::ALL.into_iter().filter(|class| class.cools_down()) {
        let values = [pool, id, class.as_str()];
        let of_class = blocks.iter().filter(|(block, _)| block.class() == Some(class));
        match of_class.filter_map(|(block, _)| block.until()).max() {
            Some(until) => ledger.set(Metric::BlockEnd, &values, until.as_millis() / 1000),
            None => ledger.clear(Metric::BlockEnd, &values),
        }
    }
}

fn count_table<const N: usize>(
    table: &Table<N>,
    name: &str,
    from: u32,
    ledger: &mut Ledger,
    shared: &impl SharedData,
    now: Timestamp,
) {
    ledger.set(Metric::TableEntries, &[name], table.count(shared, ROWS, from, now));
    ledger.set(Metric::TableCapacity, &[name], table.capacity());
    ledger.declare(Metric::Evictions, &[name]);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::hash::Seed;
    use crate::metrics::{Kind, Sink};
    use crate::request::{Headers, Request};
    use crate::response::Response;
    use crate::router::Decision;
    use crate::shared::InMemory;

    #[derive(Default)]
    struct Values(Vec<String>, BTreeMap<String, u64>);

    impl Sink for Values {
        fn define(&mut self, _: Kind, name: &str) -> Option<u32> {
            self.0.push(name.to_owned());
            Some(self.0.len() as u32 - 1)
        }

        fn write(&mut self, _: Kind, id: u32, value: u64) {
            let name = self.0[id as usize].replace("=.=", "=").replace(";.;", " ");
            self.1.insert(name.replace("session_affinity_", ""), value);
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(1_800_000_000 + seconds)
    }

    /// Sends a request of a session, and answers it.
    fn exchange(router: &Router, shared: &InMemory, session: &str, status: u16, now: Timestamp) {
        let headers: Headers =
            [(":method", "POST"), (":path", "/v1/chat/completions"), ("x-session-id", session)]
                .into_iter()
                .collect();
        let body = router.read_body(br#"{"model": "gpt-5.4"}"#);
        let request = Request::new(&headers, body);
        let Decision::Route(route) = router.route(&request, shared, now) else { panic!() };
        let mut plan = router.plan(&route, now);
        let headers: Headers = [("retry-after", "60")].into_iter().collect();
        let response = Response::Received { status, headers: &headers, body: b"" };
        router.observe(&mut plan, &response, shared, now);
    }

    fn router(observe: &str) -> Router {
        let json = format!(
            r#"{{"observe": {observe}, "pools": [{{"name": "p", "credentials": [
                {{"id": "a", "cluster": "a"}}, {{"id": "b", "cluster": "b", "state": "drain"}},
                {{"id": "c", "cluster": "c", "state": "disabled"}}]}}]}}"#
        );
        Router::new(Config::parse(json.as_bytes()).unwrap(), Seed::STABLE)
    }

    #[test]
    fn gauges_follow_a_cooldown_from_its_beginning_to_its_end() {
        let (router, shared) = (router("{}"), InMemory::default());
        let (mut ledger, mut values) = (Ledger::default(), Values::default());
        let mut gauges = |now| {
            router.set_gauges(&mut ledger, &shared, now);
            ledger.flush(&mut values);
            values.1.clone()
        };
        let before = gauges(at(0));
        assert_eq!(before["pool=p state=ready credentials"], 1);
        assert_eq!(before["pool=p state=draining credentials"], 1);
        assert_eq!(before["pool=p state=disabled credentials"], 1);
        assert_eq!(before["pool=p credential=a state=ready credential_state"], 1);
        assert_eq!(before["table=binding table_entries"], 0);
        assert_eq!(before["table=binding table_capacity"], 65_536);
        assert!(!before.keys().any(|name| name.contains("block_end")));

        exchange(&router, &shared, "1", 200, at(1));
        exchange(&router, &shared, "1", 429, at(2));
        let blocked = gauges(at(3));
        let end = "pool=p credential=a class=rate_limit credential_block_end_timestamp_seconds";
        assert_eq!(blocked["pool=p state=ready credentials"], 0);
        assert_eq!(blocked["pool=p state=partly_blocked credentials"], 1, "for one model");
        assert_eq!(blocked["pool=p credential=a state=partly_blocked credential_state"], 1);
        assert_eq!(blocked[end], 1_800_000_062);

        exchange(&router, &shared, "1", 401, at(63));
        let refused = gauges(at(63));
        assert_eq!(refused["pool=p state=blocked credentials"], 1, "for all models");

        let after = gauges(at(64 * 60));
        assert_eq!(after["pool=p state=ready credentials"], 1);
        assert_eq!(
            (after[end], after["pool=p credential=a state=partly_blocked credential_state"]),
            (0, 0)
        );
    }

    #[test]
    fn without_credentials_only_pools_are_counted() {
        let (router, shared) = (router(r#"{"by_credential": false}"#), InMemory::default());
        let (mut ledger, mut values) = (Ledger::default(), Values::default());
        router.set_gauges(&mut ledger, &shared, at(0));
        ledger.flush(&mut values);
        assert!(values.1.keys().all(|name| !name.contains("credential=")), "{:?}", values.1);
        assert_eq!(values.1["pool=p state=ready credentials"], 1);
    }

    #[test]
    fn live_bindings_are_counted_and_those_of_many_rows_estimated() {
        let (router, shared) = (router("{}"), InMemory::default());
        for session in 0..4_000 {
            exchange(&router, &shared, &session.to_string(), 200, at(1));
        }
        let count = |now| {
            let (mut ledger, mut values) = (Ledger::default(), Values::default());
            router.set_gauges(&mut ledger, &shared, now);
            ledger.flush(&mut values);
            values.1["table=binding table_entries"]
        };
        let counts: Vec<_> = (0..8).map(|window| count(at(2 + 10 * window))).collect();
        assert_eq!(counts.iter().sum::<u64>() / 8, 4_000, "eight windows are the whole table");
        assert!(counts.iter().all(|count| (3_000..5_000).contains(count)), "{counts:?}");
        assert_eq!(count(at(2) + Duration::from_hours(1)), 0, "they have expired");
    }
}
