//! What holds for any pool and any traffic.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use serde_json::{Value, json};
use session_affinity::config::Config;
use session_affinity::hash::{KeyHash, Seed};
use session_affinity::request::{Headers, Request};
use session_affinity::router::{Decision, Router};
use session_affinity::shared::{InMemory, SharedData};
use session_affinity::table::{Edit, Entry, Table, WAYS};
use session_affinity::time::Timestamp;

/// A router over shared data of its own.
struct World {
    router: Router,
    shared: InMemory,
}

impl World {
    fn new(strategy: &str, weights: &[u32], seed: u8) -> Self {
        let credentials: Vec<Value> =
            weights.iter().enumerate().map(|(at, weight)| credential(at, *weight)).collect();
        Self::of(strategy, credentials, seed)
    }

    fn of(strategy: &str, credentials: Vec<Value>, seed: u8) -> Self {
        let config = json!({"routing": {"strategy": strategy}, "pools": [{"name": "p", "credentials": credentials}]});
        let shared = InMemory::default();
        let config = Config::parse(config.to_string().as_bytes()).unwrap();
        Self { router: Router::new(config, Seed::agree(&shared, [seed; 16])), shared }
    }

    fn serves(&self, session: u32) -> String {
        let headers: Headers =
            [("x-session-id".to_owned(), session.to_string())].into_iter().collect();
        let request = Request::new(&headers, Default::default());
        match self.router.route(&request, &self.shared, Timestamp::from_secs(1)) {
            Decision::Route(route) => route.credential.id.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn shares(&self, sessions: u32) -> BTreeMap<String, u32> {
        let mut shares = BTreeMap::new();
        (0..sessions).for_each(|session| *shares.entry(self.serves(session)).or_insert(0) += 1);
        shares
    }
}

fn credential(at: usize, weight: u32) -> Value {
    json!({"id": format!("c{at:02}"), "cluster": "c", "weight": weight})
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rotation_is_within_one_of_exact(credentials in 1_usize..12, sessions in 0_u32..200) {
        let shares = World::new("round-robin", &vec![1; credentials], 1).shares(sessions);
        let exact = sessions / credentials as u32;
        prop_assert!(shares.values().all(|share| (exact..=exact + 1).contains(share)), "{shares:?}");
    }

    #[test]
    fn a_weighted_rotation_is_exact_after_every_round(weights in prop::collection::vec(1_u32..9, 1..6), rounds in 1_u32..4) {
        let sum: u32 = weights.iter().sum();
        let shares = World::new("round-robin", &weights, 1).shares(sum * rounds);
        for (at, weight) in weights.iter().enumerate() {
            prop_assert_eq!(shares.get(&format!("c{at:02}")), Some(&(weight * rounds)));
        }
    }

    #[test]
    fn every_envoy_finds_the_same_home(weights in prop::collection::vec(1_u32..9, 1..6), seeds: (u8, u8)) {
        let (here, there) = (World::new("consistent", &weights, seeds.0), World::new("consistent", &weights, seeds.1));
        // The other has seen other traffic before.
        (1_000..1_010).for_each(|session| drop(there.serves(session)));
        for session in 0..50 {
            prop_assert_eq!(here.serves(session), there.serves(session));
        }
    }

    #[test]
    fn without_a_credential_only_its_sessions_move(weights in prop::collection::vec(1_u32..9, 2..8), gone: prop::sample::Index) {
        let gone = gone.index(weights.len());
        let before = World::new("consistent", &weights, 1);
        let rest = weights.iter().enumerate().filter(|(at, _)| *at != gone);
        let after = World::of("consistent", rest.map(|(at, weight)| credential(at, *weight)).collect(), 1);
        for session in 0..100 {
            let home = before.serves(session);
            if home != format!("c{gone:02}") {
                prop_assert_eq!(home, after.serves(session));
            }
        }
    }

    #[test]
    fn a_table_gives_what_was_put_last_or_nothing(puts in prop::collection::vec((0_u128..200, 0_u64..1_000), 0..400)) {
        let (table, shared) = (Table::new("t", 64), InMemory::default());
        let place = |key: u128| KeyHash(key.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        let mut model = HashMap::new();
        for (time, (key, number)) in puts.into_iter().enumerate() {
            table.update(&shared, place(key), Timestamp::from_millis(time as u64), |_| (Edit::Put([number]), ()));
            model.insert(key, Entry { key: place(key), numbers: [number], used: Timestamp::from_millis(time as u64) });
            prop_assert_eq!(table.find(&shared, place(key)), model.get(&key).copied(), "the newest is always there");
        }
        let found: Vec<_> = model.iter().filter_map(|(key, put)| Some((table.find(&shared, place(*key))?, *put))).collect();
        prop_assert!(found.iter().all(|(found, put)| found == put));
        prop_assert!(found.len() >= model.len().min(WAYS));
        prop_assert!(shared.keys().len() <= 4);
        prop_assert!(shared.keys().iter().all(|key| shared.get(key).value.len() <= 1 + WAYS * 32));
    }
}

#[test]
fn shares_of_consistent_homes_follow_the_weights() {
    let shares = World::new("consistent", &[1, 2, 5], 1).shares(8_000);
    for (id, expected) in [("c00", 1_000), ("c01", 2_000), ("c02", 5_000)] {
        assert!(shares[id].abs_diff(expected) < expected / 8, "{shares:?}");
    }
}

/// These homes may never change: other releases, and other Envoys, count on them.
#[test]
fn homes_are_the_same_in_every_release() {
    let world = World::new("consistent", &[1, 1, 1], 1);
    let homes: Vec<_> = (0..12).map(|session| world.serves(session)).collect();
    assert_eq!(homes.join(" "), "c02 c00 c00 c01 c02 c00 c00 c02 c02 c00 c00 c00");
}

#[test]
fn weighted_turns_are_smooth() {
    let world = World::new("round-robin", &[5, 1, 1], 1);
    let turns: Vec<_> = (0..14).map(|session| world.serves(session)).collect();
    assert_eq!(turns.join(" "), ["c00 c00 c01 c00 c02 c00 c00"; 2].join(" "));
}

#[test]
fn a_credential_of_weight_zero_takes_no_new_session() {
    let shares = World::new("round-robin", &[0, 1, 3], 1).shares(40);
    assert_eq!(
        shares.into_iter().collect::<Vec<_>>(),
        [("c01".to_owned(), 10), ("c02".to_owned(), 30)]
    );
}
