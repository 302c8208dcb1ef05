//! Every order in which workers can read and write shared data.
//!
//! Each worker runs on a thread of its own, but only one at a time: before each read and each write
//! it gives the baton away, and goes on when it gets it back. Who gets it is enumerated depth first,
//! so that in the end every order was tried. Orders that differ only in steps that do not concern
//! each other (other keys, or two reads) come to the same; of them one is played, by sleep sets.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Condvar, Mutex};
use std::thread;

use session_affinity::shared::{Cas, CasMismatch, InMemory, SharedData, Stored};

/// What the host does with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    /// It compares and swaps.
    Compared,
    /// It overwrites what another worker wrote: the mutation that every scenario has to notice.
    Unconditional,
}

/// The next step of a worker: a key, and whether it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    key: String,
    writes: bool,
}

impl Step {
    fn concerns(&self, other: &Self) -> bool {
        self.key == other.key && (self.writes || other.writes)
    }
}

/// A point of an order at which a worker was chosen.
struct Choice {
    /// The steps of those that could go on.
    next: Vec<Option<Step>>,
    chosen: usize,
    /// Those whose step leads nowhere new, as bits.
    asleep: u32,
}

impl Choice {
    fn of(next: Vec<Option<Step>>, asleep: u32) -> Option<Self> {
        let chosen = (0..next.len()).find(|at| next[*at].is_some() && asleep & (1 << at) == 0)?;
        Some(Self { next, chosen, asleep })
    }

    /// Those that stay asleep after the chosen step.
    fn asleep_after(&self) -> u32 {
        let step = self.next[self.chosen].as_ref().unwrap();
        let stays = |at: &usize| {
            self.asleep & (1 << at) != 0
                && self.next[*at].as_ref().is_some_and(|other| !other.concerns(step))
        };
        (0..self.next.len()).filter(stays).fold(0, |bits, at| bits | 1 << at)
    }

    /// Chooses another worker; `false` if all were chosen.
    fn advance(&mut self) -> bool {
        self.asleep |= 1 << self.chosen;
        let next = (0..self.next.len())
            .find(|at| self.next[*at].is_some() && self.asleep & (1 << at) == 0);
        self.chosen = next.unwrap_or(self.chosen);
        next.is_some()
    }
}

/// One order, as it is played.
struct Play {
    path: Vec<Choice>,
    /// How many steps of it were played.
    depth: usize,
    /// What each worker does next; `None` before its first step, and at its end.
    next: Vec<Option<Step>>,
    /// The workers that have come to their first step, or to their end without one.
    started: usize,
    /// Who goes on.
    baton: Option<usize>,
    /// What follows was played in another order.
    is_known: bool,
    writes: Writes,
    /// The writes that were refused.
    refused: u64,
}

impl Play {
    /// Gives the baton to the next: first to each worker, up to its first step, then as the order
    /// says.
    fn pass(&mut self) {
        self.started += usize::from(self.started < self.next.len());
        if self.started < self.next.len() && self.depth == 0 {
            self.baton = Some(self.started);
            return;
        }
        if self.next.iter().all(Option::is_none) {
            self.baton = None;
            return;
        }
        if self.depth == self.path.len() && !self.is_known {
            let asleep = self.path.last().map_or(0, Choice::asleep_after);
            match Choice::of(self.next.clone(), asleep) {
                Some(choice) => self.path.push(choice),
                None => self.is_known = true,
            }
        }
        self.baton = match self.path.get(self.depth) {
            Some(choice) => Some(choice.chosen),
            None => self.next.iter().position(Option::is_some),
        };
        self.depth += 1;
    }
}

/// What the workers of one order have in common.
struct Table {
    play: Mutex<Play>,
    passed: Condvar,
    shared: Mutex<InMemory>,
}

/// Shared data as one worker sees it.
pub(crate) struct Worker<'a> {
    table: &'a Table,
    number: usize,
    loses: Cell<bool>,
}

impl Worker<'_> {
    /// From now on another worker is always first with a write.
    pub(crate) fn lose_every_write(&self) {
        self.loses.set(true);
    }

    fn take_turn(&self, step: Option<Step>) {
        let mut play = self.table.play.lock().unwrap();
        let has_ended = step.is_none();
        play.next[self.number] = step;
        play.pass();
        if play.baton != Some(self.number) {
            self.table.passed.notify_all();
        }
        if !has_ended {
            let mine = |play: &mut Play| play.baton != Some(self.number);
            drop(self.table.passed.wait_while(play, mine).unwrap());
        }
    }
}

impl SharedData for Worker<'_> {
    fn get(&self, key: &str) -> Stored {
        self.take_turn(Some(Step { key: key.to_owned(), writes: false }));
        self.table.shared.lock().unwrap().get(key)
    }

    fn set(&self, key: &str, value: &[u8], cas: Cas) -> Result<(), CasMismatch> {
        self.take_turn(Some(Step { key: key.to_owned(), writes: true }));
        if self.loses.get() {
            return Err(CasMismatch);
        }
        let is_compared = self.table.play.lock().unwrap().writes == Writes::Compared;
        let cas = if is_compared { cas } else { Cas(0) };
        let written = self.table.shared.lock().unwrap().set(key, value, cas);
        self.table.play.lock().unwrap().refused += u64::from(written.is_err());
        written
    }
}

/// What was played.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// The orders that differ.
    pub(crate) played: u64,
    /// The writes that were refused in all of them.
    pub(crate) refused: u64,
}

/// Plays every order of these requests on copies of shared data, and hands what is left and what
/// each request saw to `check`. It panics beyond `most` orders: then they were not all played.
pub(crate) fn every_order<T: Send>(
    shared: &InMemory,
    requests: &[&(dyn Fn(&Worker<'_>) -> T + Sync)],
    writes: Writes,
    most: u64,
    mut check: impl FnMut(&InMemory, Vec<T>),
) -> Orders {
    let (mut path, mut orders) = (Vec::new(), Orders::default());
    loop {
        let play = Play {
            path,
            depth: 0,
            next: vec![None; requests.len()],
            started: 0,
            baton: Some(0),
            is_known: false,
            writes,
            refused: 0,
        };
        let shared = Mutex::new(copy_of(shared));
        let table = Table { play: Mutex::new(play), passed: Condvar::new(), shared };
        let seen = play_once(&table, requests);
        let play = table.play.into_inner().unwrap();
        path = play.path;
        if !play.is_known {
            orders.played += 1;
            orders.refused += play.refused;
            assert!(orders.played <= most, "more than {most} orders");
            check(&table.shared.into_inner().unwrap(), seen);
        }
        while path.last_mut().is_some_and(|choice| !choice.advance()) {
            path.pop();
        }
        if path.is_empty() {
            return orders;
        }
    }
}

fn play_once<T: Send>(table: &Table, requests: &[&(dyn Fn(&Worker<'_>) -> T + Sync)]) -> Vec<T> {
    thread::scope(|scope| {
        let workers = requests.iter().enumerate().map(|(number, request)| {
            scope.spawn(move || {
                let worker = Worker { table, number, loses: Cell::new(false) };
                let waits = |play: &mut Play| play.baton != Some(number);
                let play = table.play.lock().unwrap();
                drop(table.passed.wait_while(play, waits).unwrap());
                // Whoever panics has to pass the baton on as well.
                let seen = catch_unwind(AssertUnwindSafe(|| request(&worker)));
                worker.take_turn(None);
                seen
            })
        });
        let workers: Vec<_> = workers.collect();
        let seen = workers.into_iter().map(|worker| worker.join().unwrap());
        seen.map(|seen| seen.unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

fn copy_of(shared: &InMemory) -> InMemory {
    let copy = InMemory::default();
    for key in shared.keys() {
        copy.set(&key, &shared.get(&key).value, Cas(0)).unwrap();
    }
    copy
}
