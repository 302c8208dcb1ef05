//! Shared data as one worker sees it, who is played from its beginning on given answers.

use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::panic::resume_unwind;

use session_affinity::shared::{Cas, CasMismatch, InMemory, SharedData, Stored};

/// Shared data as one worker sees it, who has got these answers.
pub(crate) struct Worker<'a> {
    pub(crate) answers: &'a [(String, Result<Stored, bool>)],
    pub(crate) given: Cell<usize>,
    pub(crate) next: RefCell<Option<Call>>,
    /// After how many answers it has last said what it knows; and what, if that were all answers.
    pub(crate) said_after: Cell<usize>,
    pub(crate) said: RefCell<Option<String>>,
}

/// Workers that may say what they know.
pub(crate) trait Forgets: SharedData {
    /// From here on nothing counts of what was read, and where the worker is, but this; tokens do
    /// not count either. Histories that lead to the same become one.
    fn knows_only(&self, _all: &impl Debug) {}
}

impl Forgets for InMemory {}

impl Forgets for Worker<'_> {
    fn knows_only(&self, all: &impl Debug) {
        let given = self.given.get();
        self.said_after.set(given);
        if given == self.answers.len() {
            *self.said.borrow_mut() = Some(format!("{all:?}"));
        }
    }
}

/// A step for which there is no answer yet.
pub(crate) enum Call {
    Read(String),
    Write(String, Vec<u8>, Cas),
}

/// With this a request is left.
pub(crate) struct Left;

impl<'a> Worker<'a> {
    pub(crate) fn new(answers: &'a [(String, Result<Stored, bool>)]) -> Self {
        Self {
            answers,
            given: Cell::new(0),
            next: RefCell::new(None),
            said_after: Cell::new(0),
            said: RefCell::new(None),
        }
    }

    fn ask(&self, key: &str, call: impl FnOnce() -> Call) -> Result<Stored, bool> {
        let Some((expected, answer)) = self.answers.get(self.given.get()) else {
            *self.next.borrow_mut() = Some(call());
            resume_unwind(Box::new(Left));
        };
        assert_eq!(expected, key, "a worker does something else after the same answers");
        self.given.set(self.given.get() + 1);
        answer.clone()
    }
}

impl SharedData for Worker<'_> {
    fn get(&self, key: &str) -> Stored {
        self.ask(key, || Call::Read(key.to_owned())).unwrap()
    }

    fn set(&self, key: &str, value: &[u8], cas: Cas) -> Result<(), CasMismatch> {
        let read = self.answers.iter().take(self.given.get()).skip(self.said_after.get());
        let tokens = read.filter_map(|(_, answer)| Some(answer.as_ref().ok()?.cas));
        let is_known = tokens.into_iter().any(|token| token == cas);
        assert!(is_known || cas == Cas(0), "a token is presented that was forgotten");
        let call = || Call::Write(key.to_owned(), value.to_owned(), cas);
        let is_written = self.ask(key, call).unwrap_err();
        if is_written { Ok(()) } else { Err(CasMismatch) }
    }
}
