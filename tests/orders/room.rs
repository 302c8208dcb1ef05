//! What workers count of the room of credentials, each step by itself: requests under way, sessions
//! that begin, what providers tell, and the most requests at once.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::json;
use session_affinity::config::{Config, Credential};
use session_affinity::hash::Seed;
use session_affinity::headroom::{Flights, Headroom};
use session_affinity::request::Headers;
use session_affinity::router::Router;
use session_affinity::shared::InMemory;

use crate::explorer::{Job, Orders, Search, Writes, every_order};
use crate::requests::{LATER, NOW};
use crate::worker::{Forgets, Worker};

/// Two credentials that are spared from four fifths on.
fn router() -> Router {
    let credentials = ["a", "b"].map(|id| json!({"id": id, "cluster": id}));
    let config = json!({
        "routing": {"strategy": "headroom", "spare_at": 0.8},
        "pools": [{"name": "p", "credentials": credentials}]
    });
    Router::new(Config::parse(config.to_string().as_bytes()).unwrap(), Seed::STABLE)
}

struct Room<'r> {
    router: &'r Router,
    headroom: Headroom<'r>,
    a: &'r Credential,
    b: &'r Credential,
}

impl<'r> Room<'r> {
    fn of(router: &'r Router) -> Self {
        let all = &router.config().pools[0].credentials;
        Self { router, headroom: router.headroom(), a: &all[0], b: &all[1] }
    }

    fn in_flight(&self, credential: &Credential, shared: &InMemory) -> u32 {
        let pool = &self.router.config().pools[0];
        self.headroom.in_flight(pool, credential, shared, LATER).unwrap()
    }

    /// Plays every order of what three workers do, and one of a host that writes unconditionally,
    /// which has to break what holds.
    fn three<T: Clone + std::fmt::Debug>(
        &self,
        shared: &InMemory,
        work: impl Fn(usize, &Worker<'_>) -> T,
        holds: impl Fn(&InMemory, Vec<T>) -> bool,
    ) -> Orders {
        let work = [0, 1, 2].map(|number| {
            let work = &work;
            move |worker: &Worker<'_>| work(number, worker)
        });
        let jobs = [0, 1, 2].map(|number| &work[number] as Job<'_, T>);
        let play = |writes| {
            every_order(shared, &jobs, writes, Search::Short, |shared, returned| {
                assert!(holds(shared, returned.clone()), "{returned:?}");
            })
        };
        let orders = play(Writes::Compared);
        let noticed = catch_unwind(AssertUnwindSafe(|| play(Writes::Unconditional)));
        assert!(noticed.is_err(), "unconditional writes break nothing");
        println!("{orders:?}");
        assert!(orders.played > 50 && orders.refused > 0, "they have to meet: {orders:?}");
        orders
    }
}

/// Each VM sends a request to `a`; two go on to `b`, of which one ends; and a second one begins.
#[test]
fn requests_under_way_are_counted_where_they_are() {
    let router = router();
    let room = Room::of(&router);
    let (a, b) = (&room.a.flights_key, &room.b.flights_key);
    let work = |number: usize, worker: &Worker<'_>| {
        let mut flights = Flights::new(number as u32);
        let ticket = flights.begin(a, worker, NOW);
        worker.knows_only(&("begun", &flights));
        match number {
            0 => flights.go_on(ticket, b, worker, NOW),
            1 => {
                flights.go_on(ticket, b, worker, NOW);
                worker.knows_only(&("gone on", &flights));
                flights.end(ticket, worker, LATER);
            }
            _ => drop(flights.begin(a, worker, LATER)),
        }
    };
    room.three(&InMemory::default(), work, |shared, _| {
        (room.in_flight(room.a, shared), room.in_flight(room.b, shared)) == (2, 1)
    });
}

#[test]
fn what_is_published_again_brings_nothing_back() {
    let router = router();
    let room = Room::of(&router);
    let a = &room.a.flights_key;
    let work = |number: usize, worker: &Worker<'_>| {
        let mut flights = Flights::new(number as u32);
        let ticket = flights.begin(a, worker, NOW);
        worker.knows_only(&("begun", &flights));
        flights.refresh(worker, LATER);
        worker.knows_only(&("refreshed", &flights));
        if number > 0 {
            flights.end(ticket, worker, LATER);
        }
    };
    room.three(&InMemory::default(), work, |shared, _| room.in_flight(room.a, shared) == 1);
}

#[test]
fn every_session_that_begins_counts() {
    let router = router();
    let room = Room::of(&router);
    let pool = &router.config().pools[0];
    let work = |_, worker: &Worker<'_>| {
        let picked = room.headroom.pick(&[room.a, room.b], pool, (b"", "m"), worker, NOW);
        assert!(picked.written);
        picked.result.unwrap().id.clone()
    };
    room.three(&InMemory::default(), work, |shared, picked| {
        let begun = |it| room.headroom.record(it, shared).begun(NOW);
        let of = |credential: &Credential| {
            picked.iter().filter(|id| **id == credential.id).count() as f64
        };
        // The second one goes where the first one did not.
        [room.a, room.b].iter().all(|it| of(it) >= 1.0 && (begun(it) - of(it)).abs() < 0.01)
    });
}

#[test]
fn every_turn_that_is_served_counts() {
    let router = router();
    let room = Room::of(&router);
    let work = |_, worker: &Worker<'_>| {
        let long_ago = std::time::Duration::from_hours(2);
        room.headroom.carry(room.a, long_ago, worker, NOW);
    };
    room.three(&InMemory::default(), work, |shared, _| {
        (room.headroom.record(room.a, shared).carried(NOW) - 3.0).abs() < 0.01
    });
}

/// Each response tells another window.
#[test]
fn every_window_that_is_told_is_kept() {
    let router = router();
    let room = Room::of(&router);
    let told = [("5h", "0.42"), ("7d", "0.83"), ("7d_oi", "0.5")].map(|(window, used)| {
        let name = |what| format!("anthropic-ratelimit-unified-{window}-{what}");
        let (used_by, reset) = (name("utilization"), name("reset"));
        let headers = [(used_by.as_str(), used), (reset.as_str(), "1100000")];
        headers.into_iter().collect::<Headers>()
    });
    let work = |number: usize, worker: &Worker<'_>| {
        let model = ["m", "m", "claude-fable-5"][number];
        room.headroom.learn(room.a, &told[number], model, worker, NOW)
    };
    room.three(&InMemory::default(), work, |shared, written| {
        let record = room.headroom.record(room.a, shared);
        let mut used: Vec<_> = record.windows(NOW).map(|it| it.used_at(NOW)).collect();
        used.sort_unstable();
        written == [true; 3] && used == [420, 500, 830]
    });
}

/// What one refusal has shown, the others do not raise.
#[test]
fn the_lowest_ceiling_counts() {
    let router = router();
    let room = Room::of(&router);
    let work = |number: usize, worker: &Worker<'_>| {
        room.headroom.learn_ceiling(room.a, [5, 3, 4][number], worker, NOW)
    };
    room.three(&InMemory::default(), work, |shared, written| {
        let ceiling = room.headroom.record(room.a, shared).ceiling(NOW);
        written == [true; 3] && ceiling == Some(2)
    });
}

/// An operator is told once that a credential is spared from now on.
#[test]
fn one_worker_says_that_a_credential_is_spared() {
    let router = router();
    let room = Room::of(&router);
    let shared = InMemory::default();
    let headers = [
        ("anthropic-ratelimit-unified-5h-utilization", "0.9"),
        ("anthropic-ratelimit-unified-5h-reset", "1010000"),
    ];
    assert!(room.headroom.learn(room.a, &headers.into_iter().collect(), "m", &shared, NOW));
    let work = |_, worker: &Worker<'_>| {
        let noted = room.headroom.note_sparing(room.a, worker, NOW);
        noted.map(|(is_spared, limits)| (is_spared, limits.used))
    };
    room.three(&shared, work, |_, said| {
        said.iter().flatten().collect::<Vec<_>>() == [&(true, 900)]
    });
}
