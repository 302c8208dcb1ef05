//! Every order in which workers can read and write shared data.
//!
//! What a worker does follows from what it has read and from which of its writes were accepted. So a
//! worker is a tree of histories ([`crate::history`]), each with the step that comes next, or with what is
//! returned at the end. A step is found out by running the request on the answers of its history;
//! where these end, the request is left.
//!
//! A state is the history of each worker, and what is stored. What can follow is the same whatever
//! led to it, so each state is visited once, and with them all orders are played, millions at a time.
//! Where that takes too long, those are played in which workers interrupt each other so often at
//! most, and a sample of all.
//!
//! Two things keep the states few and lose no end:
//!
//! - A step on a key that only one worker uses, or that no one writes, commutes with every step of
//!   the others. If a worker is at such a step, it is taken at once, and nothing else is tried. Which
//!   keys are *contested* is found out on the way; when there is one more, the search starts over. A
//!   search that ends without a new one has missed none: the first step that could show it in some
//!   order is preceded by steps of which those on keys that are not contested can change places, so
//!   it is taken in an order that was played.
//! - Of the tokens of compare-and-swap only those are kept that a worker may present, and that still
//!   fit.
//!
//! [`Search`] turns both off, and the merging of states, to compare the ends.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::hash::BuildHasherDefault;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use session_affinity::shared::{Cas, InMemory, SharedData, Stored};

use crate::history::{Answer, Next, Node, Numbered, Tree};
use crate::state::{End, Mixer, State, Users};
use crate::worker::{Call, Left, Worker};

/// What the host does with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    /// It compares and swaps.
    Compared,
    /// It overwrites what another worker wrote: the mutation that scenarios have to notice.
    Unconditional,
}

/// What a search may save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// A state is visited once, and steps that commute are taken in one order.
    Short,
    /// A state is visited once, whatever order led there.
    EveryStep,
    /// Steps that commute are taken in one order, and all others in every one.
    EveryOrder,
    /// As short, with no more interruptions than these; and so many orders of all, drawn at random.
    Bounded { interruptions: u32, sample: u64 },
}

/// More states than any scenario has.
const MOST: usize = 2_000_000;

/// What was played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// The orders of the steps that do not commute.
    pub(crate) played: u128,
    /// The states on their ways.
    pub(crate) states: usize,
    /// The ends that differ.
    pub(crate) ends: usize,
    /// The writes that were refused, each once in a state.
    pub(crate) refused: u64,
}

/// A request, as a function of what it reads.
pub(crate) type Job<'r, T> = &'r dyn Fn(&Worker<'_>) -> T;

/// Requests at several workers.
pub(crate) struct Explorer<'r, T> {
    jobs: Vec<Job<'r, T>>,
    trees: Vec<Tree<T>>,
    keys: Numbered<String>,
    values: Numbered<Vec<u8>>,
    said: Numbered<String>,
    begin: Vec<(usize, usize)>,
    writes: Writes,
    users: HashMap<usize, Users>,
    /// A key is contested that was not.
    is_outdated: bool,
    search: Search,
    known: HashMap<State, u128, BuildHasherDefault<Mixer>>,
    ends: BTreeSet<End>,
    visited: usize,
    refused: u64,
}

/// Plays every order of these requests, and hands what is left and what each request returned to
/// `check`, once for all orders that end alike.
pub(crate) fn every_order<T: Clone + Debug>(
    shared: &InMemory,
    jobs: &[Job<'_, T>],
    writes: Writes,
    search: Search,
    mut check: impl FnMut(&InMemory, Vec<T>),
) -> Orders {
    let mut explorer = Explorer::new(shared, jobs, writes);
    let (orders, ends) = explorer.explore(search);
    for end in &ends {
        let (shared, returned) = explorer.show(end);
        check(&shared, returned);
    }
    orders
}

impl<'r, T: Clone + Debug> Explorer<'r, T> {
    pub(crate) fn new(shared: &InMemory, jobs: &[Job<'r, T>], writes: Writes) -> Self {
        let (mut keys, mut values) = (Numbered::new(), Numbered::new());
        let begin = shared.keys();
        let mut begin: Vec<_> = begin
            .iter()
            .map(|key| (keys.number(key), values.number(&shared.get(key).value)))
            .collect();
        begin.sort_unstable();
        let mut explorer = Self {
            jobs: jobs.to_vec(),
            trees: jobs.iter().map(|_| Tree::new()).collect(),
            keys,
            values,
            said: Numbered::new(),
            begin,
            writes,
            users: HashMap::new(),
            is_outdated: false,
            search: Search::Short,
            known: HashMap::default(),
            ends: BTreeSet::new(),
            visited: 0,
            refused: 0,
        };
        (0..jobs.len()).for_each(|worker| _ = explorer.grow(worker, None));
        explorer
    }

    /// Plays every order.
    pub(crate) fn explore(&mut self, search: Search) -> (Orders, BTreeSet<End>) {
        self.search = search;
        loop {
            (self.is_outdated, self.visited, self.refused) = (false, 0, 0);
            self.known.clear();
            self.ends.clear();
            let (at, stored) = (vec![0; self.jobs.len()], Vec::new());
            let mut begin = State { at, stored, last: None, interruptions: 0 };
            self.begin.iter().for_each(|(key, value)| begin.put(*key, *value));
            let mut played = self.visit(begin.clone());
            if let Search::Bounded { sample, .. } = search {
                let mut random = 17;
                (0..sample).for_each(|_| self.walk(begin.clone(), &mut random));
                played += u128::from(sample);
            }
            if !self.is_outdated {
                let ends = std::mem::take(&mut self.ends);
                let (states, refused) = (self.visited, self.refused);
                return (Orders { played, states, ends: ends.len(), refused }, ends);
            }
        }
    }

    /// What an end leaves, and what was returned.
    pub(crate) fn show(&self, (at, stored): &End) -> (InMemory, Vec<T>) {
        let shared = InMemory::default();
        for (key, value) in stored {
            shared.set(&self.keys.all[*key], &self.values.all[*value], Cas(0)).unwrap();
        }
        let returned = at.iter().zip(&self.trees).map(|(at, tree)| match &tree.nodes[*at].next {
            Next::Returned(returned) => returned.clone(),
            Next::Read(_) | Next::Write { .. } => panic!("a worker has not ended"),
        });
        (shared, returned.collect())
    }

    /// Plays all orders from a state on. Returns their number.
    fn visit(&mut self, state: State) -> u128 {
        if self.is_outdated {
            return 0;
        }
        if let Some(orders) = self.known.get(&state) {
            return *orders;
        }
        self.visited += 1;
        assert!(self.visited <= MOST, "more than {MOST} states");
        let movers = self.movers(&state);
        let mut orders = 0;
        for worker in &movers {
            let after = self.step(&state, *worker);
            orders += self.visit(after);
        }
        if movers.is_empty() {
            self.end(&state);
            orders = 1;
        }
        if self.search != Search::EveryOrder {
            self.known.insert(state, orders);
        }
        orders
    }

    /// Plays one order from a state on, drawn at random, whatever its interruptions.
    fn walk(&mut self, mut state: State, random: &mut u64) {
        loop {
            (state.last, state.interruptions) = (None, 0);
            let movers = self.movers(&state);
            if movers.is_empty() {
                return self.end(&state);
            }
            // Xorshift: any three shifts of its author's table.
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            state = self.step(&state, movers[(*random >> 33) as usize % movers.len()]);
        }
    }

    fn end(&mut self, state: &State) {
        let values = state.stored.iter().map(|slot| (slot.key, slot.value)).collect();
        self.ends.insert((state.at.clone(), values));
    }

    /// Those whose next step is tried.
    fn movers(&self, state: &State) -> Vec<usize> {
        let mut movers: Vec<_> =
            (0..self.jobs.len()).filter(|it| self.key(*it, state.at[*it]).is_some()).collect();
        let commutes = |it: &usize| !self.is_contested(*it, state.at[*it]);
        let alone = movers.iter().copied().find(commutes).or_else(|| {
            let Search::Bounded { interruptions, .. } = self.search else { return None };
            let goes_on = state.last.filter(|last| movers.contains(last));
            goes_on.filter(|_| state.interruptions >= interruptions)
        });
        if let Some(alone) = alone {
            movers = vec![alone];
        }
        movers
    }

    /// The key of the next step of a worker; `None` at its end.
    fn key(&self, worker: usize, at: usize) -> Option<usize> {
        match self.trees[worker].nodes[at].next {
            Next::Read(key) | Next::Write { key, .. } => Some(key),
            Next::Returned(_) => None,
        }
    }

    fn is_contested(&self, worker: usize, at: usize) -> bool {
        let users = self.key(worker, at).map(|key| self.users[&key]);
        self.search == Search::EveryStep || users.is_some_and(Users::are_in_conflict)
    }

    /// The state after the next step of a worker.
    fn step(&mut self, state: &State, worker: usize) -> State {
        let (mut state, at) = (state.clone(), state.at[worker]);
        if matches!(self.search, Search::Bounded { .. }) && self.is_contested(worker, at) {
            let is_other =
                |last: &usize| *last != worker && self.key(*last, state.at[*last]).is_some();
            state.interruptions += u32::from(state.last.as_ref().is_some_and(is_other));
            state.last = Some(worker);
        }
        let answer = match self.trees[worker].nodes[at].next {
            Next::Read(key) => {
                let may_write = self.users[&key].writers & (1 << worker) != 0;
                let slot = state.slot(key);
                Answer::Value(slot.map(|slot| {
                    let mine = (worker, at);
                    if may_write && let Err(place) = slot.read_by.binary_search(&mine) {
                        slot.read_by.insert(place, mine);
                    }
                    slot.value
                }))
            }
            Next::Write { key, value, token } => {
                let read = (worker, (token.0 as usize).wrapping_sub(1));
                let is_written = self.writes == Writes::Unconditional
                    || state.slot(key).is_none_or(|it| it.read_by.contains(&read))
                    || token.0 == 0;
                if is_written {
                    state.put(key, value);
                }
                self.refused += u64::from(!is_written);
                Answer::Written(is_written)
            }
            Next::Returned(_) => panic!("a worker has ended"),
        };
        let after = match self.trees[worker].nodes[at].after.get(&answer) {
            Some(after) => *after,
            None => self.grow(worker, Some((at, answer))),
        };
        state.at[worker] = after;
        if self.key(worker, after).is_none() || self.trees[worker].nodes[after].since.1.is_empty() {
            // It presents no token that it has.
            for slot in &mut state.stored {
                slot.read_by.retain(|(reader, _)| *reader != worker);
            }
        }
        state
    }

    /// Finds out what a worker does after one more answer. Returns the new history.
    fn grow(&mut self, worker: usize, before: Option<(usize, Answer)>) -> usize {
        let answers = self.answers(worker, before);
        let shared = Worker::new(&answers);
        let next = match catch_unwind(AssertUnwindSafe(|| self.jobs[worker](&shared))) {
            Ok(returned) => Next::Returned(returned),
            Err(why) if why.is::<Left>() => match shared.next.take().unwrap() {
                Call::Read(key) => Next::Read(self.keys.number(&key)),
                Call::Write(key, value, token) => {
                    let (key, value) = (self.keys.number(&key), self.values.number(&value));
                    Next::Write { key, value, token }
                }
            },
            Err(panic) => resume_unwind(panic),
        };
        let since = self.since(worker, before, shared.said.take());
        self.note_use(worker, &next);
        let tree = &mut self.trees[worker];
        let new = tree.nodes.len();
        let node = match &next {
            Next::Returned(returned) => tree.returned.entry(format!("{returned:?}")).or_insert(new),
            Next::Read(_) | Next::Write { .. } => tree.known.entry(since.clone()).or_insert(new),
        };
        let node = *node;
        if node == new {
            tree.nodes.push(Node { next, before, after: HashMap::new(), since });
        }
        if let Some((parent, answer)) = before {
            tree.nodes[parent].after.insert(answer, node);
        }
        node
    }

    fn since(
        &mut self,
        worker: usize,
        before: Option<(usize, Answer)>,
        said: Option<String>,
    ) -> (usize, Vec<Answer>) {
        match (said, before) {
            (Some(said), _) => (self.said.number(&said), Vec::new()),
            (None, None) => (self.said.number(&String::new()), Vec::new()),
            (None, Some((at, answer))) => {
                let (said, answers) = &self.trees[worker].nodes[at].since;
                (*said, [&answers[..], &[answer]].concat())
            }
        }
    }

    /// The answers that lead to a history, each with the key that was asked for.
    fn answers(
        &self,
        worker: usize,
        mut before: Option<(usize, Answer)>,
    ) -> Vec<(String, Result<Stored, bool>)> {
        let mut answers = Vec::new();
        while let Some((at, answer)) = before {
            let key = self.keys.all[self.key(worker, at).unwrap()].clone();
            answers.push((
                key,
                match answer {
                    Answer::Value(None) => Ok(Stored::default()),
                    Answer::Value(Some(value)) => {
                        let cas = Cas(u32::try_from(at).unwrap() + 1);
                        Ok(Stored { value: self.values.all[value].clone(), cas })
                    }
                    Answer::Written(is_written) => Err(is_written),
                },
            ));
            before = self.trees[worker].nodes[at].before;
        }
        answers.reverse();
        answers
    }

    fn note_use(&mut self, worker: usize, next: &Next<T>) {
        let (key, writes) = match next {
            Next::Read(key) => (*key, 0),
            Next::Write { key, .. } => (*key, 1 << worker),
            Next::Returned(_) => return,
        };
        let users = self.users.entry(key).or_default();
        let before = *users;
        users.all |= 1 << worker;
        users.writers |= writes;
        let is_news =
            users.writers != before.writers || users.are_in_conflict() != before.are_in_conflict();
        self.is_outdated |= is_news;
    }
}
