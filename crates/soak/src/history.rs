//! What happened: what clients sent and saw, what providers saw and did, what was changed between.
//!
//! Clients and providers write it, each what it knows by itself; a request is found again on the
//! other side by its id. The oracle reads it when all is over. Times are microseconds since the
//! start.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// Microseconds since the start.
pub type Time = u64;

/// A second.
pub const SECOND: Time = 1_000_000;

/// Everything that happened in one run of one Envoy.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What clients sent, in the order in which it ended.
    pub requests: Vec<Request>,
    /// What reached providers, in the order in which it came.
    pub arrivals: Vec<Arrival>,
    /// Changes of the configuration.
    pub updates: Vec<Update>,
    /// Times in which a port of a provider was closed.
    pub closed: Vec<Closed>,
    /// What Envoy says at the end.
    pub ending: Ending,
}

/// A request as its client knows it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its id.
    pub id: u64,
    /// Its session.
    pub session: u64,
    /// The pool that serves its path.
    pub pool: &'static str,
    /// The model that it names.
    pub model: String,
    /// How its session is named: a word for the report.
    pub named_by: &'static str,
    /// By which protocol: a word for the report.
    pub protocol: &'static str,
    /// How it was sent: a word for the report.
    pub manner: &'static str,
    /// Its body.
    pub body: Digest,
    /// Whether the body took its time on purpose.
    pub is_slow_upload: bool,
    /// Whether the gateway may refuse it: a hostile one.
    pub may_be_refused: bool,
    /// What it refers to that a provider keeps.
    pub refers_to: Option<Kept>,
    /// When it began.
    pub began: Time,
    /// When it ended.
    pub ended: Time,
    /// How it ended.
    pub end: End,
}

/// How a request ended for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// There was a response.
    Answered(Answer),
    /// There was none: the connection broke, or could not be used.
    Broken(String),
    /// The client left on purpose, at this stage.
    Aborted(&'static str),
    /// Nothing came for very long.
    Hung,
}

/// A response as its client saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The number of the arrival that it answers, if a provider wrote it.
    pub arrival: Option<u32>,
    /// What the filter says that it decided.
    pub decision: String,
    /// Whether the provider says that it keeps it for requests that refer to it.
    pub is_kept: bool,
    /// What came of its body.
    pub body: Digest,
    /// Whether the body ended as it should.
    pub is_whole: bool,
    /// Whether the client left on purpose in the middle of it.
    pub is_left: bool,
    /// The first bytes of an error.
    pub text: String,
}

/// A request as a provider saw it.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The id of the request; `None` if it had none.
    pub request: Option<u64>,
    /// Which attempt of the request this is, from one.
    pub number: u32,
    /// The credential whose port was asked, where each has one.
    pub port: Option<Name>,
    /// The credential whose key it carried.
    pub key: Option<Name>,
    /// What the filter should have removed.
    pub leaks: Vec<String>,
    /// The model.
    pub model: String,
    /// When its headers were there.
    pub at: Time,
    /// Whether the connection had served before.
    pub is_reused: bool,
    /// Its body, if it was read to its end.
    pub body: Option<Digest>,
    /// The fault that was played: a word.
    pub fault: Option<&'static str>,
    /// Whether its provider does not have what the request refers to, and said so.
    pub lacks_state: bool,
    /// The percent that its headers say are used of a limit.
    pub used: Option<u8>,
    /// What the provider did.
    pub did: Did,
    /// When it had done that.
    pub done: Time,
}

/// What a provider did with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Did {
    /// Nothing yet.
    Waits,
    /// It wrote a whole response.
    Answered {
        /// The status.
        status: u16,
        /// The seconds of `retry-after`.
        retry_after: Option<u64>,
        /// The body as it was sent.
        body: Digest,
        /// Whether the upload had not ended.
        is_early: bool,
        /// Whether an event in it says that it failed.
        is_error_event: bool,
    },
    /// It broke off after its headers.
    Cut {
        /// Whether content had begun.
        has_content: bool,
    },
    /// It broke the connection in place of a response.
    Broke,
    /// The other side left first.
    Left,
}

/// A response that its provider keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The answer to an attempt of a request.
    Here {
        /// The request.
        request: u64,
        /// Which attempt of it.
        attempt: u32,
    },
    /// One that this gateway has not seen: another one was asked.
    Elsewhere {
        /// The credential that has it.
        owner: Name,
        /// The session that goes on with it.
        session: u64,
    },
}

/// The word for requests over HTTP/2.
pub const HTTP2: &str = "HTTP/2";

/// The name of a credential.
pub type Name = &'static str;

/// A length and a hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Bytes.
    pub length: u64,
    /// Their hash.
    pub hash: u64,
}

/// A change of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// When it was begun to be written.
    pub began: Time,
    /// When Envoy said that it is in force everywhere.
    pub settled: Time,
    /// The state of every credential that is not active from then on.
    pub states: BTreeMap<Name, State>,
    /// The credentials whose state it changes.
    pub changes: Vec<Name>,
    /// Whether it replaced the listener, which closes connections.
    pub is_listener: bool,
    /// Whether it was a trap of a VM: it takes the requests of a worker with it.
    pub is_trap: bool,
}

/// What the configuration says of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It serves the sessions that it has.
    Draining,
    /// It serves nothing.
    Disabled,
    /// It is not there.
    Absent,
}

/// A time in which nothing listened at a port.
#[derive(Clone, Debug)]
pub struct Closed {
    /// The credential; in a pool with one port for all, any of them.
    pub credential: Name,
    /// Its pool.
    pub pool: &'static str,
    /// Since when.
    pub from: Time,
    /// Until when.
    pub to: Time,
}

/// What Envoy says when all is over.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// Streams that the filter has counted.
    pub counted_requests: u64,
    /// Attempts with the class `success` that the filter has counted.
    pub counted_successes: u64,
    /// Requests, connections and retries that are still there: their names and numbers.
    pub left: Vec<(String, u64)>,
    /// Traps of VMs that Envoy has counted.
    pub reloads: u64,
    /// Bytes that were allocated after the warm-up.
    pub memory_before: u64,
    /// Bytes that are allocated at the end.
    pub memory_after: u64,
    /// Bytes resident after the warm-up.
    pub resident_before: u64,
    /// Bytes resident at the end.
    pub resident_after: u64,
    /// Lines of the log at the level of errors.
    pub complaints: Vec<String>,
    /// What the access log says of each request.
    pub access_log: HashMap<u64, String>,
}

impl Digest {
    /// That of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digester = Digester::default();
        digester.add(bytes);
        digester.digest()
    }
}

/// Makes a [`Digest`] piece by piece.
#[derive(Default)]
pub(crate) struct Digester {
    length: u64,
    hasher: DefaultHasher,
    rest: Vec<u8>,
}

/// The hasher gets bytes in units of this size, so that it does not matter how they came.
const UNIT: usize = 4096;

impl Digester {
    pub(crate) fn add(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if !self.rest.is_empty() {
            let (head, tail) = bytes.split_at(bytes.len().min(UNIT - self.rest.len()));
            self.rest.extend_from_slice(head);
            bytes = tail;
            if self.rest.len() < UNIT {
                return;
            }
            self.hasher.write(&self.rest);
            self.rest.clear();
        }
        let mut units = bytes.chunks_exact(UNIT);
        for unit in units.by_ref() {
            self.hasher.write(unit);
        }
        self.rest.extend_from_slice(units.remainder());
    }

    pub(crate) fn digest(mut self) -> Digest {
        self.hasher.write(&self.rest);
        Digest { length: self.length, hash: self.hasher.finish() }
    }
}

impl Kept {
    /// Its id.
    pub(crate) fn id(self) -> String {
        match self {
            Self::Here { request, attempt } => format!("resp_soak_{request}_{attempt}"),
            Self::Elsewhere { owner, session } => format!("{ELSEWHERE}{owner}_{session}"),
        }
    }
}

/// How the id of a response begins that the gateway has not seen; then comes its owner.
pub(crate) const ELSEWHERE: &str = "resp_elsewhere_";

impl Did {
    /// Whether it is a whole response without an error.
    pub(crate) fn is_served(&self) -> bool {
        matches!(self, Self::Answered { status: ..400, is_error_event: false, .. })
    }
}

impl Arrival {
    /// The credential that was asked.
    pub(crate) fn credential(&self) -> Option<Name> {
        self.port.or(self.key)
    }

    /// Whether the provider failed it, so that its credential may be left alone for a while.
    pub(crate) fn has_failed(&self) -> bool {
        match self.did {
            Did::Answered { status, is_error_event, .. } => is_error_event || status > 400,
            Did::Cut { .. } | Did::Broke => true,
            Did::Left | Did::Waits => false,
        }
    }
}

/// Writes the history, from any task.
#[derive(Clone)]
pub(crate) struct Recorder {
    start: Instant,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    history: History,
    attempts: HashMap<u64, u32>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), inner: Arc::default() }
    }

    pub(crate) fn now(&self) -> Time {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(Time::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn request(&self, request: Request) {
        self.lock().history.requests.push(request);
    }

    /// Notes an arrival. Returns its place and its number among those of its request.
    pub(crate) fn arrival(&self, mut arrival: Arrival) -> (usize, u32) {
        let mut inner = self.lock();
        let number = match arrival.request {
            Some(id) => {
                let number = inner.attempts.entry(id).or_default();
                *number += 1;
                *number
            }
            None => 1,
        };
        arrival.number = number;
        inner.history.arrivals.push(arrival);
        (inner.history.arrivals.len() - 1, number)
    }

    pub(crate) fn edit(&self, place: usize, edit: impl FnOnce(&mut Arrival)) {
        if let Some(arrival) = self.lock().history.arrivals.get_mut(place) {
            edit(arrival);
        }
    }

    pub(crate) fn update(&self, update: Update) {
        self.lock().history.updates.push(update);
    }

    pub(crate) fn closed(&self, closed: Closed) {
        self.lock().history.closed.push(closed);
    }

    pub(crate) fn history(&self) -> History {
        self.lock().history.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_does_not_depend_on_the_pieces() {
        let bytes: Vec<u8> = (0..20_000_u32).map(|number| number as u8).collect();
        for size in [1, 7, 4096, 5000, 20_000] {
            let mut digester = Digester::default();
            bytes.chunks(size).for_each(|piece| digester.add(piece));
            assert_eq!(digester.digest(), Digest::of(&bytes), "pieces of {size}");
        }
        assert_ne!(Digest::of(&bytes), Digest::of(bytes.split_last().unwrap().1));
    }
}
