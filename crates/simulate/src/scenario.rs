//! What is simulated: one fleet, its clients and its credentials.

use std::f64::consts::TAU;

use serde::Serialize;
use serde_json::{Value, json};

use crate::provider::{Limits, Provider};
use crate::subscription::Subscriptions;

const HOUR: f64 = 3_600_000.0;

/// How credentials are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// In turn, for every request: no affinity.
    NoAffinity,
    /// New sessions in turn, with the table of bindings.
    RoundRobin,
    /// New sessions to the first that is ready, with the table of bindings.
    FillFirst,
    /// By a hash that is the same on every Envoy, with the table of bindings for what differs.
    Consistent,
    /// Where there is room, with the table of bindings.
    Headroom,
}

impl Way {
    /// The name in tables and plots.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoAffinity => "no affinity",
            Self::RoundRobin => "round-robin",
            Self::FillFirst => "fill-first",
            Self::Consistent => "consistent",
            Self::Headroom => "headroom",
        }
    }

    fn strategy(self) -> &'static str {
        match self {
            Self::NoAffinity | Self::RoundRobin => "round-robin",
            Self::FillFirst => "fill-first",
            Self::Consistent => "consistent",
            Self::Headroom => "headroom",
        }
    }
}

/// What refines a strategy by the room of credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Refined {
    /// `routing.spare_at`; none: the default of the strategy.
    pub spare_at: Option<f64>,
    /// `routing.shed_at`.
    pub shed_at: Option<f64>,
}

impl Refined {
    fn name(self) -> String {
        let spared = self.spare_at.map(|at| match at {
            1.0.. => " without sparing".to_owned(),
            at => format!(" + spare_at {at}"),
        });
        let shed = self.shed_at.map(|at| format!(" + shed_at {at}"));
        [spared, shed].into_iter().flatten().collect()
    }
}

/// Which Envoy the requests of a session reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// Every request any one.
    Requests,
    /// Every connection any one; it is closed after a minute without use.
    Connections,
    /// Always the same one, as long as that is not restarted.
    Sticky,
}

/// What happens to Envoys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Restarts {
    Never,
    /// Each is replaced every two hours, one after the other over ten minutes. Requests under way
    /// end on the old one.
    Rolling,
    /// Each crashes every four hours on average. Requests under way are lost.
    Crashes,
}

/// One simulation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scenario {
    pub seed: u64,
    pub sessions: u64,
    /// The share of agents; two thirds of the rest are chats, and one third single requests.
    pub agents: f64,
    /// For how long sessions arrive.
    pub hours: f64,
    pub envoys: usize,
    pub credentials: usize,
    pub way: Way,
    /// Whether all Envoys see the same shared data, at once and without fail.
    pub common_store: bool,
    pub spread: Spread,
    pub provider: Provider,
    pub limits: Limits,
    /// Whether credentials fail.
    pub fails: bool,
    pub restarts: Restarts,
    pub max_bindings: u32,
    /// `failover.return`.
    pub returns: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refined: Option<Refined>,
    /// Accounts of different size in place of `credentials` and `limits`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<Subscriptions>,
}

impl Scenario {
    /// A usual day: eight credentials without limits, which fail at times.
    pub fn usual(seed: u64, sessions: u64) -> Self {
        Self {
            seed,
            sessions,
            agents: 0.25,
            hours: 4.0,
            envoys: 1,
            credentials: 8,
            way: Way::RoundRobin,
            common_store: false,
            spread: Spread::Requests,
            provider: Provider::Anthropic,
            limits: Limits::NONE,
            fails: true,
            restarts: Restarts::Never,
            max_bindings: 65_536,
            returns: "while-warm",
            refined: None,
            subscriptions: None,
        }
    }

    /// How much more sessions arrive than on average, at a time in milliseconds: the rate swings
    /// by 40 % every hour; where it takes weeks, by 60 % every day.
    pub fn swing(&self, now: u64) -> f64 {
        match self.subscriptions {
            None => 1.0 + 0.4 * libm::sin(TAU * now as f64 / HOUR),
            Some(_) => 1.0 + 0.6 * libm::sin(TAU * now as f64 / (24.0 * HOUR)),
        }
    }

    /// The name of its way, with the store if there is one.
    pub fn way_name(&self) -> String {
        let store = if self.common_store { " + common store" } else { "" };
        let refined = self.refined.map(Refined::name).unwrap_or_default();
        format!("{}{refined}{store}", self.way.name())
    }

    /// The configuration of the filter.
    pub fn configuration(&self) -> Value {
        let sizes = self.subscriptions.as_ref().filter(|it| it.weighted).map(|it| &it.sizes);
        let credentials = (0..self.credentials).map(|number| {
            let id = format!("c{number:03}");
            match sizes.and_then(|sizes| sizes.get(number)) {
                Some(size) => json!({"id": id, "cluster": id, "weight": size}),
                None => json!({"id": id, "cluster": id}),
            }
        });
        let credentials: Vec<_> = credentials.collect();
        let mut routing = json!({
            "strategy": self.way.strategy(),
            "session_affinity": self.way != Way::NoAffinity,
            "seed": "one fleet",
        });
        let refined = self.refined.unwrap_or_default();
        for (field, value) in [("spare_at", refined.spare_at), ("shed_at", refined.shed_at)] {
            if let (Some(value), Some(routing)) = (value, routing.as_object_mut()) {
                routing.insert(field.to_owned(), json!(value));
            }
        }
        json!({
            "routing": routing,
            "session": {"max_bindings": self.max_bindings},
            "failover": {"return": self.returns},
            "pools": [{"name": "llm", "credentials": credentials}],
        })
    }
}
