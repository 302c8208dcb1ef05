//! The oracle: reads what happened, and says which rules were broken.
//!
//! It knows the documented behaviour of the filter and nothing of its code. Where it cannot know
//! enough to call something a mistake, it has a named [`Tolerance`] and counts its use; it is never
//! silent.

mod attempts;
mod credentials;
mod ending;
mod errors;
mod facts;
mod moves;
mod pins;
mod sparing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use envoy_harness::Version;

use crate::history::History;
pub(crate) use ending::Known;
use facts::Facts;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A request carries the key of the credential that it was sent to.
    Key,
    /// Nothing internal, and no key of a client, goes upstream.
    Internal,
    /// A client gets no error that no provider caused.
    Cause,
    /// A client gets no error while another ready credential could have been asked.
    Avoidable,
    /// A client is refused only while all credentials wait for an announced end.
    Refusal,
    /// Nothing is refused because all credentials near their limits.
    Spare,
    /// Every request ends.
    Hang,
    /// A session leaves its credential only for a reason.
    Move,
    /// What refers to state that one credential has goes there, or nowhere.
    Pin,
    /// Nothing but probes goes into a cooldown that was announced.
    Told,
    /// Nothing goes to a credential that is disabled or gone, and no new session to one that drains.
    Disabled,
    /// No credential gets a request twice, and no request goes to more than `max_attempts`.
    Repeat,
    /// Nothing is repeated once the client has the first byte of a response.
    FirstByte,
    /// Bodies arrive as they were sent, in both directions.
    Body,
    /// The filter has counted what happened.
    Counters,
    /// Memory does not grow after the warm-up.
    Memory,
    /// Nothing is left when all clients have gone.
    Left,
    /// Envoy logs no error.
    Log,
}

/// Why something that looks like a mistake is none, or cannot be known to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tolerance {
    /// The request was under way while its pool was updated.
    UpdateRace,
    /// The listener was replaced meanwhile, which closes its connections after the drain time.
    ListenerReplaced,
    /// A VM trapped meanwhile and took the requests of its worker with it.
    Trap,
    /// The response came before the upload had ended: Envoy repeats only what it has whole.
    EarlyAnswer,
    /// A kept connection was closed as it was used again: the same credential gets it once more.
    Stale,
    /// The same on a connection that Envoy had opened earlier for another request and not used:
    /// the provider cannot tell it from a new one, but the filter says what it was.
    Unused,
    /// A probe of an announced limit.
    Probe,
    /// A hostile request that the gateway refused by itself.
    Hostile,
    /// No provider failed it visibly, but a port was closed meanwhile: nothing is seen of those
    /// attempts.
    PortClosed,
    /// No credential that was asked had what the request refers to: for a minute nobody looks for
    /// it again.
    Nowhere,
    /// No response was kept yet: the filter does not read a body for what it may refer to where a
    /// header settles the session.
    Unread,
    /// An old Envoy ends a response that broke off without an error over HTTP/2, which the client
    /// takes for its end.
    OldEnvoy,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Key,
        Self::Internal,
        Self::Cause,
        Self::Avoidable,
        Self::Refusal,
        Self::Spare,
        Self::Hang,
        Self::Move,
        Self::Pin,
        Self::Told,
        Self::Disabled,
        Self::Repeat,
        Self::FirstByte,
        Self::Body,
        Self::Counters,
        Self::Memory,
        Self::Left,
        Self::Log,
    ];

    /// Whether the rule depends on what the filter knew when: the oracle sees only when clients and
    /// providers knew it, and has to conclude the rest.
    pub(crate) fn is_of_order(self) -> bool {
        match self {
            Self::Cause | Self::Avoidable | Self::Refusal | Self::Spare => true,
            Self::Move | Self::Pin | Self::Told | Self::Disabled | Self::Repeat => true,
            Self::Key | Self::Internal | Self::Hang | Self::FirstByte | Self::Body => false,
            Self::Counters | Self::Memory | Self::Left | Self::Log => false,
        }
    }
}

impl Tolerance {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::UpdateRace,
        Self::ListenerReplaced,
        Self::Trap,
        Self::EarlyAnswer,
        Self::Stale,
        Self::Unused,
        Self::Probe,
        Self::Hostile,
        Self::PortClosed,
        Self::Nowhere,
        Self::Unread,
        Self::OldEnvoy,
    ];
}

/// A rule that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// By which request, if it was one.
    pub request: Option<u64>,
    /// What happened.
    pub story: String,
}

/// What the oracle found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Rules that were broken.
    pub violations: Vec<Violation>,
    /// How often each tolerance was used.
    pub tolerated: BTreeMap<Tolerance, u64>,
    /// How often each rule was applied in full.
    pub judged: BTreeMap<Rule, u64>,
}

impl Verdict {
    /// The rules that were broken.
    pub(crate) fn broken(&self) -> BTreeSet<Rule> {
        self.violations.iter().map(|violation| violation.rule).collect()
    }

    fn breaks(&mut self, rule: Rule, request: Option<u64>, story: String) {
        self.violations.push(Violation { rule, request, story });
    }

    fn tolerates(&mut self, tolerance: Tolerance) {
        *self.tolerated.entry(tolerance).or_default() += 1;
    }

    fn judged(&mut self, rule: Rule) {
        *self.judged.entry(rule).or_default() += 1;
    }
}

/// How the filter was run, as far as the rules depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Whether a request that fails goes to another credential.
    pub fails_over: bool,
    /// Whether all credentials of a pool are behind one port.
    pub shares_port: bool,
    /// Whether requests carry keys.
    pub has_keys: bool,
    /// Whether credentials that near their limits are spared.
    pub spares: bool,
    /// What Envoy itself can do.
    pub envoy: Abilities,
}

/// What not every Envoy can do.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// Whether an answer can be retried that was held until its body was read.
    pub retries_held: bool,
    /// Whether a response that broke off ends with an error over HTTP/2 too.
    pub resets_with_error: bool,
}

impl Abilities {
    /// Those of a version.
    pub fn of(version: Version) -> Self {
        let is_new = version.retries_held_responses();
        Self { retries_held: is_new, resets_with_error: is_new }
    }
}

/// Judges what happened.
pub fn judge(history: &History, setting: Setting) -> Verdict {
    let facts = Facts::new(history, setting);
    let mut verdict = Verdict::default();
    attempts::judge(&facts, &mut verdict);
    errors::judge(&facts, &mut verdict);
    credentials::judge(&facts, &mut verdict);
    moves::judge(&facts, &mut verdict);
    pins::judge(&facts, &mut verdict);
    sparing::judge(&facts, &mut verdict);
    ending::judge(&facts, &mut verdict);
    verdict
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Key => "the right key",
            Self::Internal => "nothing internal upstream",
            Self::Cause => "no error without a cause",
            Self::Avoidable => "no avoidable error",
            Self::Refusal => "no refusal without a limit",
            Self::Spare => "sparing refuses nothing",
            Self::Hang => "every request ends",
            Self::Move => "no unexplained move",
            Self::Pin => "state is asked for where it is",
            Self::Told => "nothing into an announced cooldown",
            Self::Disabled => "nothing to a disabled credential",
            Self::Repeat => "once per credential",
            Self::FirstByte => "nothing repeated after the first byte",
            Self::Body => "bodies byte for byte",
            Self::Counters => "counters equal",
            Self::Memory => "memory flat",
            Self::Left => "nothing left",
            Self::Log => "no error in the log",
        })
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::UpdateRace => "update race",
            Self::ListenerReplaced => "listener replaced",
            Self::Trap => "trap",
            Self::EarlyAnswer => "early answer",
            Self::Stale => "stale connection",
            Self::Unused => "unused connection",
            Self::Probe => "probe",
            Self::Hostile => "hostile request refused",
            Self::PortClosed => "port closed",
            Self::Nowhere => "state found nowhere",
            Self::Unread => "nothing kept yet",
            Self::OldEnvoy => "cut that an old Envoy hides",
        })
    }
}
