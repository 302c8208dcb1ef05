//! What is known of a worker: a tree of histories, each with the step that follows.

use std::collections::HashMap;
use std::hash::Hash;

use session_affinity::shared::Cas;

/// What a worker does next.
pub(crate) enum Next<T> {
    Read(usize),
    Write {
        key: usize,
        value: usize,
        token: Cas,
    },
    /// Nothing: it has returned this.
    Returned(T),
}

/// What the host answers: a value, if there is one; whether it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Value(Option<usize>),
    Written(bool),
}

/// A history of a worker: what comes next, how it came here, and where answers lead.
pub(crate) struct Node<T> {
    pub(crate) next: Next<T>,
    pub(crate) before: Option<(usize, Answer)>,
    pub(crate) after: HashMap<Answer, usize>,
    /// The number of what the worker has last said to know, and the answers
    /// since then.
    pub(crate) since: (usize, Vec<Answer>),
}

/// The histories of a worker. Those are one that cannot be told apart from here on: the answers
/// since the worker has last said what it knows are the same, or what it has
/// returned is.
pub(crate) struct Tree<T> {
    pub(crate) nodes: Vec<Node<T>>,
    pub(crate) known: HashMap<(usize, Vec<Answer>), usize>,
    pub(crate) returned: HashMap<String, usize>,
}

impl<T> Tree<T> {
    pub(crate) fn new() -> Self {
        Self { nodes: Vec::new(), known: HashMap::new(), returned: HashMap::new() }
    }
}

/// Things with numbers.
pub(crate) struct Numbered<K> {
    pub(crate) numbers: HashMap<K, usize>,
    pub(crate) all: Vec<K>,
}

impl<K: Clone + Eq + Hash> Numbered<K> {
    pub(crate) fn new() -> Self {
        Self { numbers: HashMap::new(), all: Vec::new() }
    }

    pub(crate) fn number(&mut self, of: &K) -> usize {
        if let Some(number) = self.numbers.get(of) {
            return *number;
        }
        self.all.push(of.clone());
        self.numbers.insert(of.clone(), self.all.len() - 1);
        self.all.len() - 1
    }
}
