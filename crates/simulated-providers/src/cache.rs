//! The prompt cache of an account: the prefixes of prompts that the provider has computed before,
//! and until when.
//!
//! A prefix is known by its chained hash alone ([`Prefix`], made in [`super::prompt`]). So equal
//! beginnings of different sessions are one entry, and no prompt is kept. The vendors differ in
//! which prefixes they offer for reading and writing, and for how long; that is data in the
//! `Prefix`, so this file knows no vendor.
//!
//! Time is an argument of every call. The number of entries is bounded. Beyond it the least
//! recently used entry is evicted, and of one prompt the longest prefix first, so that what remains
//! is still a usable beginning.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// A beginning of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prefix {
    /// Chained over everything from the model to the end of the prefix.
    pub(super) hash: u64,
    pub(super) tokens: u64,
    /// How long it is kept when this request writes it; `None` where the request may only read.
    pub(super) keep: Option<Duration>,
}

/// The prefixes that an account has cached.
#[derive(Debug)]
pub(super) struct PromptCache {
    entries: HashMap<u64, Entry>,
    by_use: BTreeSet<Rank>,
    capacity: usize,
}

#[derive(Debug)]
struct Entry {
    rank: Rank,
    expires: Instant,
    keep: Duration,
}

/// Orders entries for eviction: least recently used first, then the longest prefix. The hash
/// distinguishes equals.
type Rank = (Instant, Reverse<u64>, u64);

impl PromptCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), by_use: BTreeSet::new(), capacity }
    }

    /// The tokens of the longest cached prefix, 0 if there is none. Reading refreshes it and the
    /// shorter ones.
    pub(super) fn read(&mut self, prefixes: &[Prefix], now: Instant) -> u64 {
        let live: Vec<(&Prefix, Duration)> = prefixes
            .iter()
            .filter_map(|prefix| Some((prefix, self.live(prefix.hash, now)?)))
            .collect();
        for (prefix, keep) in &live {
            self.put(prefix, *keep, now);
        }
        live.iter().map(|(prefix, _)| prefix.tokens).max().unwrap_or(0)
    }

    /// Keeps the prefixes that this request may write. It is not part of [`read`](Self::read),
    /// because a provider has computed a prefix only when its response begins: of two first
    /// requests at the same time both miss.
    pub(super) fn write(&mut self, prefixes: &[Prefix], now: Instant) {
        for prefix in prefixes {
            if let Some(keep) = prefix.keep {
                self.put(prefix, keep, now);
            }
        }
        while self.entries.len() > self.capacity {
            let Some((_, _, hash)) = self.by_use.pop_first() else {
                break;
            };
            self.entries.remove(&hash);
        }
    }

    /// The lifetime of a live entry.
    fn live(&self, hash: u64, now: Instant) -> Option<Duration> {
        self.entries.get(&hash).filter(|entry| now < entry.expires).map(|entry| entry.keep)
    }

    /// A shorter lifetime must not shorten that of a prefix that is already there.
    fn put(&mut self, prefix: &Prefix, keep: Duration, now: Instant) {
        let keep = self.live(prefix.hash, now).map_or(keep, |known| known.max(keep));
        let rank = (now, Reverse(prefix.tokens), prefix.hash);
        let entry = Entry { rank, expires: now + keep, keep };
        if let Some(previous) = self.entries.insert(prefix.hash, entry) {
            self.by_use.remove(&previous.rank);
        }
        self.by_use.insert(rank);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn prefix(hash: u64, tokens: u64, keep: Option<Duration>) -> Prefix {
        Prefix { hash, tokens, keep }
    }

    /// Plays `(minute, written, read, expected tokens)` on one cache, reading before writing as a
    /// request does.
    fn check(capacity: usize, steps: &[(u32, &[Prefix], &[Prefix], u64)]) {
        let start = Instant::now();
        let mut cache = PromptCache::new(capacity);
        for (index, (minute, written, read, expected)) in steps.iter().enumerate() {
            let now = start + *minute * MINUTE;
            assert_eq!(cache.read(read, now), *expected, "step {index}");
            cache.write(written, now);
        }
        assert!(cache.entries.len() <= capacity);
        assert_eq!(cache.entries.len(), cache.by_use.len());
    }

    #[test]
    fn the_longest_cached_prefix_is_read() {
        let (short, long) = (prefix(1, 1024, Some(5 * MINUTE)), prefix(2, 1152, Some(5 * MINUTE)));
        let longer = prefix(3, 1280, Some(5 * MINUTE));
        check(
            9,
            &[
                (0, &[short.clone(), long.clone()], &[], 0),
                (1, &[], &[short.clone(), long.clone(), longer], 1152),
                (1, &[], &[short, prefix(4, 1152, None)], 1024),
            ],
        );
    }

    #[test]
    fn a_prefix_expires_when_its_time_is_over() {
        let five = [prefix(1, 2000, Some(5 * MINUTE))];
        check(9, &[(0, &five, &[], 0), (5, &[], &five, 0)]);
    }

    #[test]
    fn reading_refreshes_for_the_lifetime_it_was_written_with() {
        let five = [prefix(1, 2000, Some(5 * MINUTE))];
        let read = [prefix(1, 2000, None)];
        check(
            9,
            &[
                (0, &five, &[], 0),
                (4, &[], &read, 2000),
                (8, &[], &read, 2000),
                (13, &[], &read, 0),
            ],
        );
    }

    #[test]
    fn a_shorter_lifetime_does_not_shorten_a_longer_one() {
        let hour = [prefix(1, 2000, Some(60 * MINUTE))];
        let five = [prefix(1, 2000, Some(5 * MINUTE))];
        check(9, &[(0, &hour, &[], 0), (1, &five, &five, 2000), (50, &[], &five, 2000)]);
    }

    #[test]
    fn what_may_only_be_read_is_not_written() {
        let read_only = [prefix(1, 2000, None)];
        check(9, &[(0, &read_only, &[], 0), (1, &[], &read_only, 0)]);
    }

    #[test]
    fn the_entry_unused_for_longest_is_evicted_and_of_one_prompt_the_longest() {
        let old = [prefix(1, 1024, Some(60 * MINUTE)), prefix(2, 1152, Some(60 * MINUTE))];
        let new = [prefix(3, 1024, Some(60 * MINUTE)), prefix(4, 1152, Some(60 * MINUTE))];
        check(
            3,
            &[(0, &old, &[], 0), (1, &new, &[], 0), (2, &[], &old, 1024), (2, &[], &new, 1152)],
        );
    }
}
