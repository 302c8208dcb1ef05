//! What is simulated: one fleet, its clients and its credentials.

use serde::Serialize;
use serde_json::{Value, json};

use crate::provider::{Limits, Provider};

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
}

impl Way {
    /// The name in tables and plots.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoAffinity => "no affinity",
            Self::RoundRobin => "round-robin",
            Self::FillFirst => "fill-first",
            Self::Consistent => "consistent",
        }
    }

    fn strategy(self) -> &'static str {
        match self {
            Self::NoAffinity | Self::RoundRobin => "round-robin",
            Self::FillFirst => "fill-first",
            Self::Consistent => "consistent",
        }
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
        }
    }

    /// The name of its way, with the store if there is one.
    pub fn way_name(&self) -> String {
        let store = if self.common_store { " + common store" } else { "" };
        format!("{}{store}", self.way.name())
    }

    /// The configuration of the filter.
    pub fn configuration(&self) -> Value {
        let credentials: Vec<_> = (0..self.credentials)
            .map(
                |number| json!({"id": format!("c{number:03}"), "cluster": format!("c{number:03}")}),
            )
            .collect();
        json!({
            "routing": {
                "strategy": self.way.strategy(),
                "session_affinity": self.way != Way::NoAffinity,
                "seed": "one fleet",
            },
            "session": {"max_bindings": self.max_bindings},
            "failover": {"return": self.returns},
            "pools": [{"name": "llm", "credentials": credentials}],
        })
    }
}
