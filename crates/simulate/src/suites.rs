//! The simulations that are run, in groups that answer one question each.

use std::vec::IntoIter;

use anyhow::Result;

use crate::provider::{Limits, Provider};
use crate::scenario::{Refined, Restarts, Scenario, Spread, Way};
use crate::subscription::Subscriptions;
use crate::world;

/// Simulations that answer a question.
#[derive(Clone, Debug)]
pub struct Suite {
    pub name: &'static str,
    /// The question.
    pub question: &'static str,
    /// What the first column is.
    pub axis: &'static str,
    /// Each with its place on the axis.
    pub runs: Vec<(String, Scenario)>,
}

/// The ways to choose a credential that are compared, each without and with a common store.
const WAYS: [(Way, bool); 6] = [
    (Way::NoAffinity, false),
    (Way::RoundRobin, false),
    (Way::FillFirst, false),
    (Way::Consistent, false),
    (Way::RoundRobin, true),
    (Way::Consistent, true),
];

const WITH_TABLE: [(Way, bool); 2] = [(Way::RoundRobin, false), (Way::Consistent, false)];

/// The suites of a seed; `quick` has a tenth of the sessions and fewer fleets.
pub fn all(seed: u64, quick: bool) -> Vec<Suite> {
    let base = Scenario::usual(seed, if quick { 1_000 } else { 10_000 });
    let base = Scenario { hours: if quick { 1.0 } else { base.hours }, ..base };
    let suites = [growth, clients, limits, returns, restarts, table, lifetimes, credentials];
    let mut suites: Vec<_> = suites.iter().map(|suite| suite(&base, quick)).collect();
    suites.extend((!quick).then(|| sessions(&base)));
    suites
}

/// The suite of the page on headroom.
pub const HEADROOM: &str = "headroom";

/// The sizes of its accounts: those of plans, which are named after them.
const SIZES: [u32; 8] = [20, 20, 5, 5, 5, 1, 1, 1];

/// What all weeks allow, in percent of what the sessions need, and how the page calls that.
const QUOTAS: [(u32, &str); 4] =
    [(130, "130 %, under"), (115, "115 %, near"), (105, "105 %, at"), (90, "90 %, over")];

/// The strategies that are compared by room.
const BY_ROOM: [(Way, Option<Refined>); 7] = [
    (Way::RoundRobin, None),
    (Way::FillFirst, None),
    (Way::Consistent, None),
    (Way::RoundRobin, Some(Refined { spare_at: Some(0.9), shed_at: None })),
    (Way::Headroom, Some(Refined { spare_at: Some(1.0), shed_at: None })),
    (Way::Headroom, None),
    (Way::Headroom, Some(Refined { spare_at: None, shed_at: Some(0.95) })),
];

/// Does it help to know the room? A week on eight subscriptions. What the sessions need is found
/// out first: what they take where every cached prompt is found.
///
/// # Errors
/// If that simulation fails.
pub fn headroom(seed: u64, quick: bool) -> Result<Suite> {
    let (sessions, hours) = if quick { (1_000, 16.8) } else { (10_000, 168.0) };
    let accounts =
        |week, percent, weighted| Subscriptions { sizes: SIZES.to_vec(), weighted, week, percent };
    let base = Scenario {
        hours,
        fails: false,
        subscriptions: Some(accounts(f64::INFINITY, 0, true)),
        ..Scenario::usual(seed, sessions)
    };
    let with = |base: &Scenario, need: f64, percent: u32, weighted| Scenario {
        subscriptions: Some(accounts(
            (need * f64::from(percent) / 100.0).round(),
            percent,
            weighted,
        )),
        ..base.clone()
    };
    let need = needed(&base)?;
    let mut runs = Vec::new();
    for (percent, label) in QUOTAS {
        runs.extend(by_room(label, &with(&base, need, percent, true), &BY_ROOM));
    }
    let plain = [Way::RoundRobin, Way::Consistent, Way::Headroom].map(|way| (way, None));
    runs.extend(by_room("115 %, near; no weights", &with(&base, need, 115, false), &plain));
    let fleet = Scenario { envoys: 4, spread: Spread::Sticky, ..with(&base, need, 115, true) };
    runs.extend(by_room("115 %, near; 4 Envoys", &fleet, &plain));
    let few = Scenario { sessions: sessions * 3 / 10, ..base.clone() };
    let need = needed(&few)?;
    for (percent, label) in
        [(115, "115 %, near; 3,000 sessions"), (90, "90 %, over; 3,000 sessions")]
    {
        runs.extend(by_room(label, &with(&few, need, percent, true), &plain));
    }
    let question = "Where do sessions go when subscriptions run short?";
    let axis = "all weeks allow, of what is needed";
    Ok(Suite { name: HEADROOM, question, axis, runs })
}

/// The tokens that sessions need where every cached prompt is found, cached ones a tenth.
fn needed(unlimited: &Scenario) -> Result<f64> {
    let tally = world::run(unlimited)?.tally;
    Ok(tally.tokens as f64 - 0.9 * tally.cachable as f64)
}

fn by_room(
    label: &str,
    base: &Scenario,
    ways: &[(Way, Option<Refined>)],
) -> Vec<(String, Scenario)> {
    let runs = ways.iter().map(|&(way, refined)| Scenario { way, refined, ..base.clone() });
    runs.map(|run| (label.to_owned(), run)).collect()
}

/// Ten million sessions of chats and single requests in a day: with agents, who make ten times the
/// turns, it would take hours. A tenth of them with agents shows what those change.
pub fn large(seed: u64) -> Vec<Suite> {
    let base = Scenario { hours: 24.0, agents: 0.0, ..Scenario::usual(seed, 10_000_000) };
    vec![large_fleets(&base), large_table(&base), large_agents(&base)]
}

fn large_fleets(base: &Scenario) -> Suite {
    let fleet = |envoys| Scenario { envoys, way: Way::Consistent, ..base.clone() };
    Suite {
        name: "large-fleets",
        question: "What do ten million sessions in a day change (chats and single requests)?",
        axis: "Envoys",
        runs: [20, 200].map(|envoys| (envoys.to_string(), fleet(envoys))).into(),
    }
}

fn large_table(base: &Scenario) -> Suite {
    let table = |max_bindings| Scenario { max_bindings, ..base.clone() };
    Suite {
        name: "large-table",
        question: "How large must the table of bindings be, if one Envoy has all of them?",
        axis: "session.max_bindings",
        runs: [1 << 16, 1 << 18, 1 << 20].map(|size| (size.to_string(), table(size))).into(),
    }
}

fn large_agents(base: &Scenario) -> Suite {
    let agents = Scenario { sessions: base.sessions / 10, agents: 0.25, ..base.clone() };
    let fleet = Scenario { envoys: 20, way: Way::Consistent, ..agents };
    Suite {
        name: "large-agents",
        question: "And a million sessions, of which a quarter are agents?",
        axis: "Envoys",
        runs: vec![("20".to_owned(), fleet)],
    }
}

fn growth(base: &Scenario, quick: bool) -> Suite {
    let sizes: &[usize] = if quick { &[1, 10, 100] } else { &[1, 2, 4, 10, 25, 50, 100, 200] };
    let runs = sizes.iter().flat_map(|&envoys| {
        ways(Scenario { envoys, ..base.clone() }, &WAYS).map(move |run| (envoys.to_string(), run))
    });
    Suite {
        name: "growth",
        question: "What does each further Envoy cost, if every request reaches any of them?",
        axis: "Envoys",
        runs: runs.collect(),
    }
}

fn clients(base: &Scenario, _: bool) -> Suite {
    let spreads = [
        ("any Envoy for each request", Spread::Requests),
        ("for each connection", Spread::Connections),
        ("for each session", Spread::Sticky),
    ];
    let runs = spreads.into_iter().flat_map(|(label, spread)| {
        let fleet = Scenario { envoys: 20, spread, ..base.clone() };
        ways(fleet, &WITH_TABLE).map(move |run| (label.to_owned(), run))
    });
    Suite {
        name: "clients",
        question: "What does it help if clients stay at one of 20 Envoys?",
        axis: "the load balancer in front chooses",
        runs: runs.collect(),
    }
}

fn limits(base: &Scenario, _: bool) -> Suite {
    let limits = [
        ("a minute's limits", Limits::HIGHEST_TIER),
        ("windows of five hours", Limits::SUBSCRIPTION),
    ];
    let runs = limits.into_iter().flat_map(|(label, limits)| {
        [1, 20].into_iter().flat_map(move |envoys| {
            let fleet = Scenario { envoys, limits, ..base.clone() };
            ways(fleet, &WAYS).map(move |run| (format!("{label}, {envoys}"), run))
        })
    });
    Suite {
        name: "limits",
        question: "What do limits of credentials change?",
        axis: "limits, Envoys",
        runs: runs.collect(),
    }
}

fn returns(base: &Scenario, _: bool) -> Suite {
    let limits = [("none", Limits::NONE), ("windows of five hours", Limits::SUBSCRIPTION)];
    let runs = limits.into_iter().flat_map(|(limits_are, limits)| {
        ["while-warm", "always", "never"].into_iter().map(move |returns| {
            let fleet = Scenario { envoys: 20, way: Way::Consistent, ..base.clone() };
            (format!("{returns}, {limits_are}"), Scenario { returns, limits, ..fleet })
        })
    });
    Suite {
        name: "returns",
        question: "When should sessions return, with 20 Envoys that share nothing?",
        axis: "failover.return, limits",
        runs: runs.collect(),
    }
}

fn restarts(base: &Scenario, _: bool) -> Suite {
    let kinds = [
        ("none", Restarts::Never),
        ("rolling updates", Restarts::Rolling),
        ("crashes", Restarts::Crashes),
    ];
    let compared = [(Way::RoundRobin, false), (Way::Consistent, false), (Way::RoundRobin, true)];
    let runs = kinds.into_iter().flat_map(|(label, restarts)| {
        let spread = Spread::Sticky;
        let fleet = Scenario { envoys: 20, restarts, spread, ..base.clone() };
        ways(fleet, &compared).map(move |run| (label.to_owned(), run))
    });
    Suite {
        name: "restarts",
        question: "What do restarts cost, with 20 Envoys and clients that stay at one?",
        axis: "restarts",
        runs: runs.collect(),
    }
}

fn table(base: &Scenario, quick: bool) -> Suite {
    let sizes: &[u32] = if quick { &[64, 1024] } else { &[128, 256, 512, 1024, 2048, 4096, 8192] };
    let runs = sizes.iter().flat_map(|&max_bindings| {
        let table = Scenario { max_bindings, ..base.clone() };
        let fleet = Scenario { envoys: 20, ..table.clone() };
        let ways = [
            Scenario { way: Way::RoundRobin, ..table.clone() },
            Scenario { way: Way::Consistent, ..table },
            Scenario { way: Way::Consistent, ..fleet },
        ];
        ways.map(|run| (format!("{max_bindings}, {}", run.envoys), run))
    });
    Suite {
        name: "table",
        question: "How large must the table of bindings be?",
        axis: "session.max_bindings, Envoys",
        runs: runs.collect(),
    }
}

fn lifetimes(base: &Scenario, _: bool) -> Suite {
    let providers = [("5 minutes", Provider::Anthropic), ("30 minutes", Provider::OpenAi)];
    let runs = providers.into_iter().flat_map(|(label, provider)| {
        let fleet = Scenario { envoys: 20, provider, ..base.clone() };
        ways(fleet, &WAYS).map(move |run| (label.to_owned(), run))
    });
    Suite {
        name: "lifetimes",
        question: "What does the lifetime of cached prompts change, with 20 Envoys?",
        axis: "cached for",
        runs: runs.collect(),
    }
}

fn credentials(base: &Scenario, quick: bool) -> Suite {
    let numbers: &[usize] = if quick { &[2, 16] } else { &[2, 4, 16, 64] };
    let runs = numbers.iter().flat_map(|&credentials| {
        let fleet = Scenario { envoys: 20, credentials, ..base.clone() };
        ways(fleet, &WAYS).map(move |run| (credentials.to_string(), run))
    });
    Suite {
        name: "credentials",
        question: "What does the number of credentials change, with 20 Envoys?",
        axis: "credentials",
        runs: runs.collect(),
    }
}

fn sessions(base: &Scenario) -> Suite {
    let runs = [1_000, 10_000, 100_000].into_iter().flat_map(|sessions| {
        let one = Scenario { sessions, ..base.clone() };
        let fleet = Scenario { envoys: 20, way: Way::Consistent, ..one.clone() };
        [one, fleet].map(|run| (format!("{sessions}, {}", run.envoys), run))
    });
    Suite {
        name: "sessions",
        question: "What does the number of sessions in four hours change?",
        axis: "sessions, Envoys",
        runs: runs.collect(),
    }
}

fn ways(base: Scenario, ways: &[(Way, bool)]) -> IntoIter<Scenario> {
    let runs = ways.iter();
    let runs = runs.map(|&(way, common_store)| Scenario { way, common_store, ..base.clone() });
    runs.collect::<Vec<_>>().into_iter()
}
