//! How many requests are under way at each credential, on all workers together.
//!
//! Every VM knows its own. It publishes their number, under a name of its own, with every change,
//! and again every few seconds: so what a VM leaves behind that has trapped or ended is ignored
//! after [`LASTS`]. The value of `session_affinity/flights/<16 hex digits>` is a version byte and, for
//! each VM, its name (4 bytes), the number (2) and the time (8).

use std::time::Duration;

use crate::codec::{Reader, Writer};
use crate::shared::{self, SharedData};
use crate::time::Timestamp;

const VERSION: u8 = 1;
const ENTRY_BYTES: usize = 14;

/// VMs whose numbers are kept: more than Envoy has workers on most machines. Beyond it the oldest
/// gives way.
const VMS: usize = 128;

/// A number that was not published for so long does not count.
const LASTS: Duration = Duration::from_secs(30);

/// In place of where a request is: it is over.
const OVER: usize = usize::MAX;

/// The requests of one VM that are under way.
#[derive(Debug, Default)]
pub struct Flights {
    vm: u32,
    last: u32,
    /// By ticket, so sorted. One that is over leaves its place later, together with others: to close
    /// each gap at once would cost more the more there are.
    open: Vec<(u32, usize)>,
    /// How many of them are over.
    over: usize,
    /// The number for each key that was ever used.
    counts: Vec<(String, u16)>,
}

impl Flights {
    /// The requests of a VM with this name, which no other has.
    pub fn new(vm: u32) -> Self {
        Self { vm, ..Self::default() }
    }

    /// A request is sent to the credential with this key. Returns the ticket by which it is known
    /// from now on; never 0.
    pub fn begin(&mut self, key: &str, shared: &impl SharedData, now: Timestamp) -> u32 {
        self.last = self.last.wrapping_add(1).max(1);
        let at = self.position(key);
        // After four billion requests tickets begin anew, and one could be in its place by age only.
        let place = self.open.partition_point(|(ticket, _)| *ticket < self.last);
        self.open.insert(place, (self.last, at));
        self.change(at, 1, shared, now);
        self.last
    }

    /// A request is sent to another credential.
    pub fn go_on(&mut self, ticket: u32, key: &str, shared: &impl SharedData, now: Timestamp) {
        let to = self.position(key);
        let Ok(place) = self.find(ticket) else { return };
        let Some((_, at)) = self.open.get_mut(place).filter(|(_, at)| *at != OVER) else { return };
        let from = std::mem::replace(at, to);
        if from != to {
            self.change(from, -1, shared, now);
            self.change(to, 1, shared, now);
        }
    }

    /// A request is over.
    pub fn end(&mut self, ticket: u32, shared: &impl SharedData, now: Timestamp) {
        let Ok(place) = self.find(ticket) else { return };
        let Some((_, at)) = self.open.get_mut(place).filter(|(_, at)| *at != OVER) else { return };
        let at = std::mem::replace(at, OVER);
        self.over += 1;
        if self.over > self.open.len() / 2 {
            self.open.retain(|(_, at)| *at != OVER);
            self.over = 0;
        }
        self.change(at, -1, shared, now);
    }

    /// Publishes what there is once more: some seconds have passed.
    pub fn refresh(&self, shared: &impl SharedData, now: Timestamp) {
        for (key, count) in self.counts.iter().filter(|(_, count)| *count > 0) {
            self.publish(key, *count, shared, now);
        }
    }

    fn find(&self, ticket: u32) -> Result<usize, usize> {
        self.open.binary_search_by_key(&ticket, |(ticket, _)| *ticket)
    }

    fn position(&mut self, key: &str) -> usize {
        match self.counts.iter().position(|(known, _)| known == key) {
            Some(at) => at,
            None => {
                self.counts.push((key.to_owned(), 0));
                self.counts.len() - 1
            }
        }
    }

    fn change(&mut self, at: usize, by: i16, shared: &impl SharedData, now: Timestamp) {
        if let Some((_, count)) = self.counts.get_mut(at) {
            *count = count.saturating_add_signed(by);
        }
        if let Some((key, count)) = self.counts.get(at) {
            self.publish(key, *count, shared, now);
        }
    }

    fn publish(&self, key: &str, count: u16, shared: &impl SharedData, now: Timestamp) {
        shared::update(shared, key, |value| {
            let mut entries: Vec<_> =
                entries(value).filter(|entry| entry.vm != self.vm && entry.counts(now)).collect();
            if count > 0 {
                entries.push(Entry { vm: self.vm, count, at: now });
            }
            let from = entries.len().saturating_sub(VMS);
            (Some(encode(entries.get(from..).unwrap_or_default())), ())
        });
    }
}

/// How many requests are under way, as far as VMs have published it.
pub(super) fn in_flight(key: &str, shared: &impl SharedData, now: Timestamp) -> u32 {
    let value = shared.get(key).value;
    entries(&value).filter(|entry| entry.counts(now)).map(|entry| u32::from(entry.count)).sum()
}

struct Entry {
    vm: u32,
    count: u16,
    at: Timestamp,
}

impl Entry {
    fn counts(&self, now: Timestamp) -> bool {
        now.is_within(LASTS, self.at)
    }
}

/// The entries of a value; none of one that does not decode.
fn entries(value: &[u8]) -> impl Iterator<Item = Entry> {
    let entries = value.strip_prefix(&[VERSION]).unwrap_or_default().chunks_exact(ENTRY_BYTES);
    entries.filter_map(|bytes| {
        let mut entry = Reader::new(bytes);
        let (vm, count) = (entry.word()?, u16::from_le_bytes(entry.array()?));
        Some(Entry { vm, count, at: entry.time()? })
    })
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut value = Writer::with_capacity(1 + ENTRY_BYTES * entries.len());
    value.byte(VERSION);
    for entry in entries {
        value.word(entry.vm);
        value.bytes(&entry.count.to_le_bytes());
        value.time(entry.at);
    }
    value.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::InMemory;

    const A: &str = "a";
    const B: &str = "b";

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(1_800_000_000 + seconds)
    }

    #[test]
    fn requests_of_all_workers_count_where_they_are() {
        let shared = InMemory::default();
        let (mut one, mut other) = (Flights::new(1), Flights::new(2));
        let first = one.begin(A, &shared, at(0));
        let second = one.begin(A, &shared, at(0));
        other.begin(A, &shared, at(1));
        assert_eq!(in_flight(A, &shared, at(1)), 3);
        one.go_on(first, B, &shared, at(2));
        assert_eq!((in_flight(A, &shared, at(2)), in_flight(B, &shared, at(2))), (2, 1));
        one.end(first, &shared, at(3));
        one.end(second, &shared, at(3));
        one.end(second, &shared, at(3));
        one.end(77, &shared, at(3));
        assert_eq!((in_flight(A, &shared, at(3)), in_flight(B, &shared, at(3))), (1, 0));
    }

    #[test]
    fn requests_may_end_in_any_order_and_leave_nothing_behind() {
        let shared = InMemory::default();
        let mut flights = Flights::new(1);
        for round in 1..=3 {
            let mut tickets: Vec<_> = (0..300).map(|_| flights.begin(A, &shared, at(0))).collect();
            let stays = tickets.remove(150);
            for place in (0..299).step_by(2).chain((1..299).step_by(2)) {
                flights.go_on(tickets[place], B, &shared, at(0));
                flights.end(tickets[place], &shared, at(0));
                flights.end(tickets[place], &shared, at(0));
                flights.go_on(tickets[place], A, &shared, at(0));
            }
            assert_eq!((in_flight(A, &shared, at(0)), in_flight(B, &shared, at(0))), (round, 0));
            assert!(flights.find(stays).is_ok());
        }
        assert!(flights.open.len() < 10, "{}", flights.open.len());
    }

    #[test]
    fn what_a_worker_leaves_behind_is_ignored_and_what_is_long_under_way_is_not() {
        let shared = InMemory::default();
        let (mut trapped, mut lives) = (Flights::new(1), Flights::new(2));
        trapped.begin(A, &shared, at(0));
        lives.begin(A, &shared, at(0));
        for seconds in (10..=100).step_by(10) {
            lives.refresh(&shared, at(seconds));
        }
        assert_eq!(in_flight(A, &shared, at(101)), 1);
    }

    #[test]
    fn what_does_not_decode_counts_nothing_and_a_flood_of_workers_is_bounded() {
        let shared = InMemory::default();
        shared.set(A, &[9; 400], crate::shared::Cas::ABSENT).unwrap();
        assert_eq!(in_flight(A, &shared, at(0)), 0);
        for vm in 0..1_000 {
            Flights::new(vm).begin(A, &shared, at(0));
        }
        assert_eq!(in_flight(A, &shared, at(0)), VMS as u32);
        assert!(shared.get(A).value.len() <= 1 + VMS * ENTRY_BYTES);
    }
}
