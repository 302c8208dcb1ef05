//! Streams that are held until their first event, and when they are let go.
//!
//! A stream whose provider takes its time must not be held for longer than configured. No callback
//! of the stream comes while nothing arrives, so the root context releases it on a tick.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use proxy_wasm::hostcalls;

use super::host;
use crate::time::Timestamp;

/// A stream that is held: shared by the stream and the list of its worker.
#[derive(Clone)]
pub(super) struct Held(Rc<State>);

struct State {
    context_id: u32,
    since: Timestamp,
    release_at: Timestamp,
    progress: Cell<Progress>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Only the headers are held.
    Headers,
    /// Some of the body is held as well.
    Body,
    /// The tick has let it go.
    Released,
    /// The stream has decided by itself.
    Settled,
}

impl Held {
    /// The stream needs no release any more.
    pub(super) fn settle(&self) {
        self.0.progress.set(Progress::Settled);
    }

    /// A piece of the body is held.
    pub(super) fn has_body(&self) {
        self.0.progress.set(Progress::Body);
    }

    pub(super) fn is_released(&self) -> bool {
        self.0.progress.get() == Progress::Released
    }

    /// Whether it was held for long enough. If the clock was set back, nobody knows: then it was.
    pub(super) fn is_late(&self, now: Timestamp) -> bool {
        now < self.0.since || now >= self.0.release_at
    }
}

/// The streams that a worker holds.
#[derive(Default)]
pub(super) struct HeldStreams(RefCell<Vec<Held>>);

impl HeldStreams {
    pub(super) fn add(&self, context_id: u32, since: Timestamp, release_at: Timestamp) -> Held {
        let progress = Cell::new(Progress::Headers);
        let held = Held(Rc::new(State { context_id, since, release_at, progress }));
        self.0.borrow_mut().push(held.clone());
        held
    }

    /// Releases the streams that were held for long enough. Where Envoy loses the next piece of a
    /// stream that is released with some of its body, only those are released of which nothing
    /// arrived; the others go on with their next piece.
    pub(super) fn release(&self, may_release_body: bool) {
        if self.0.borrow().is_empty() {
            return;
        }
        let now = host::now();
        let mut due = Vec::new();
        self.0.borrow_mut().retain(|held| match held.0.progress.get() {
            Progress::Released | Progress::Settled => false,
            Progress::Body if !may_release_body => true,
            Progress::Headers | Progress::Body if held.is_late(now) => {
                held.0.progress.set(Progress::Released);
                due.push(held.0.context_id);
                false
            }
            Progress::Headers | Progress::Body => true,
        });
        for context_id in due {
            if hostcalls::set_effective_context(context_id).is_ok() {
                let _gone_if_refused = hostcalls::resume_http_response();
            }
        }
    }
}
