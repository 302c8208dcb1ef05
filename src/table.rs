//! A table of fixed size in shared data.
//!
//! The host can never delete a key, so the table has a fixed number of rows, each one key, and
//! every row has room for [`WAYS`] entries. An entry can be only in the row that its key's hash
//! names; in a full row the least recently used entry gives way, or the one of the lowest rank. So
//! memory is a product known from the configuration: rows × 16 entries, and about 100 bytes more
//! for each row's key in the host.
//!
//! A row is a version byte and its entries, little endian: the hash of the key (16 bytes), the time
//! of last use in milliseconds since the epoch (8), and what is kept, as many numbers as the table
//! says (8 each). A row that does not read so is empty.

use std::time::Duration;

use crate::codec::{Reader, Writer};
use crate::hash::KeyHash;
use crate::shared::{self, Cas, CasMismatch, Note, SharedData, Updated};
use crate::time::Timestamp;

/// Entries of a row.
pub const WAYS: usize = 16;

const VERSION: u8 = 2;

/// What a table keeps for a key: `N` numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<const N: usize> {
    /// The hash of the key.
    pub key: KeyHash,
    /// When it was last used.
    pub used: Timestamp,
    /// What is kept.
    pub numbers: [u64; N],
}

/// Which entry of a full row gives way: the one with the lowest rank.
pub type Rank<const N: usize> = fn(&Entry<N>) -> (bool, Timestamp);

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit<const N: usize> {
    /// It stays as it is.
    Leave,
    /// It is kept with these numbers, used now.
    Put([u64; N]),
    /// It goes.
    Remove,
}

/// A table: the first part of its keys, and their number.
#[derive(Clone, Copy, Debug)]
pub struct Table<const N: usize> {
    name: &'static str,
    rows: u32,
    rank: Rank<N>,
    /// For so long after its last use an entry that gives way is missed.
    life: Duration,
}

impl<const N: usize> Table<N> {
    /// A table with room for at least `entries` entries.
    pub fn new(name: &'static str, entries: u32) -> Self {
        let rows = entries.div_ceil(WAYS as u32).max(1);
        Self { name, rows, rank: |entry| (true, entry.used), life: Duration::ZERO }
    }

    /// The same with another rule of eviction than "the least recently used".
    pub fn ranked(self, rank: Rank<N>) -> Self {
        Self { rank, ..self }
    }

    /// The same, whose entries are of use for so long after their last use.
    pub fn living(self, life: Duration) -> Self {
        Self { life, ..self }
    }

    /// The entries that it has room for.
    pub fn capacity(&self) -> u64 {
        u64::from(self.rows) * WAYS as u64
    }

    /// About how many entries are of use, from the given number of rows that begin at `from`; all of
    /// them, if there are no more.
    pub fn count(&self, shared: &impl SharedData, rows: u32, from: u32, now: Timestamp) -> u64 {
        let most = rows.min(self.rows);
        let first = if most < self.rows { from } else { 0 };
        let mut found = 0;
        for row in 0..most {
            let row = first.wrapping_add(row) % self.rows;
            let entries = Entry::decode_row(&shared.get(&self.row_name(row)).value);
            found += entries.iter().filter(|entry| self.is_of_use(entry, now)).count() as u64;
        }
        found * u64::from(self.rows) / u64::from(most.max(1))
    }

    fn is_of_use(&self, entry: &Entry<N>, now: Timestamp) -> bool {
        (self.rank)(entry).0 && now < entry.used + self.life
    }

    /// Every key that the table ever writes.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.rows).map(|row| self.row_name(row))
    }

    /// The number of rows.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// The entries of a row.
    pub fn row(&self, shared: &impl SharedData, row: u32) -> Vec<Entry<N>> {
        Entry::decode_row(&shared.get(&self.row_name(row)).value)
    }

    /// The entry of a key.
    pub fn find(&self, shared: &impl SharedData, key: KeyHash) -> Option<Entry<N>> {
        let stored = shared.get(&self.row_name(key.slot(self.rows)));
        find(&Entry::decode_row(&stored.value), key)
    }

    /// Reads the row of a key in order to change its entry.
    pub fn slot<'a, S: SharedData>(&self, shared: &'a S, key: KeyHash) -> Slot<'a, S, N> {
        let row = self.row_name(key.slot(self.rows));
        let stored = shared.get(&row);
        Slot {
            shared,
            row,
            cas: stored.cas,
            key,
            table: *self,
            entries: Entry::decode_row(&stored.value),
        }
    }

    /// Changes the entry of a key, as [`shared::update`] does: `change` gets the current entry and
    /// returns what becomes of it. In a full row the least recently used entry is evicted.
    pub fn update<T>(
        &self,
        shared: &impl SharedData,
        key: KeyHash,
        now: Timestamp,
        mut change: impl FnMut(Option<Entry<N>>) -> (Edit<N>, T),
    ) -> Updated<T> {
        shared::retry(shared, || {
            let slot = self.slot(shared, key);
            let (edit, result) = change(slot.entry());
            (slot.apply(edit, now), result)
        })
    }

    fn row_name(&self, row: u32) -> String {
        format!("session_affinity/{}/{row}", self.name)
    }
}

/// The entry of a key as it was read, and the right to change just that.
pub struct Slot<'a, S, const N: usize> {
    shared: &'a S,
    row: String,
    cas: Cas,
    key: KeyHash,
    table: Table<N>,
    entries: Vec<Entry<N>>,
}

impl<S: SharedData, const N: usize> Slot<'_, S, N> {
    /// The entry; `None` if there is none.
    pub fn entry(&self) -> Option<Entry<N>> {
        find(&self.entries, self.key)
    }

    /// Changes the entry.
    ///
    /// # Errors
    /// [`CasMismatch`] if another worker has written the row since it was read.
    pub fn apply(mut self, edit: Edit<N>, now: Timestamp) -> Result<(), CasMismatch> {
        let mut evicted = None;
        match edit {
            Edit::Leave => return Ok(()),
            Edit::Put(numbers) => {
                let entry = Entry { key: self.key, used: now, numbers };
                evicted = put(&mut self.entries, entry, self.table.rank);
            }
            Edit::Remove => self.entries.retain(|other| other.key != self.key),
        }
        self.shared.set(&self.row, &Entry::encode_row(&self.entries), self.cas)?;
        if evicted.is_some_and(|entry| self.table.is_of_use(&entry, now)) {
            self.shared.note(Note::Evicted(self.table.name));
        }
        Ok(())
    }
}

impl<const N: usize> Entry<N> {
    const BYTES: usize = 24 + 8 * N;

    /// The bytes of a row.
    pub fn encode_row(entries: &[Self]) -> Vec<u8> {
        let mut row = Writer::with_capacity(1 + entries.len() * Self::BYTES);
        row.byte(VERSION);
        for entry in entries {
            row.hash(entry.key.0);
            row.time(entry.used);
            entry.numbers.iter().for_each(|number| row.number(*number));
        }
        row.finish()
    }

    /// The entries of a row; none if its bytes are anything else.
    pub fn decode_row(bytes: &[u8]) -> Vec<Self> {
        match bytes.split_first() {
            Some((&VERSION, entries))
                if entries.len() % Self::BYTES == 0 && entries.len() <= WAYS * Self::BYTES =>
            {
                entries.chunks_exact(Self::BYTES).filter_map(Self::decode).collect()
            }
            _ => Vec::new(),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (key, used) = (KeyHash(reader.hash()?), reader.time()?);
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = reader.number()?;
        }
        Some(Self { key, used, numbers })
    }
}

fn find<const N: usize>(entries: &[Entry<N>], key: KeyHash) -> Option<Entry<N>> {
    entries.iter().copied().find(|entry| entry.key == key)
}

/// Puts an entry in the place of the key's old one, of a free one, or of the one with the lowest
/// rank, which is returned. One that ranks in the lower half does not displace one of the upper
/// half. Of those in a half, what seems to be used after the new one, because the clock was set
/// back, gives way first: else it would keep its place until the clock is there again.
fn put<const N: usize>(
    entries: &mut Vec<Entry<N>>,
    entry: Entry<N>,
    rank: Rank<N>,
) -> Option<Entry<N>> {
    let mut evicted = None;
    entries.retain(|other| other.key != entry.key);
    if entries.len() >= WAYS {
        let ((is_upper, _), lowest) = lowest(&mut entries.iter().map(rank), entry.used);
        if is_upper && !rank(&entry).0 {
            return None;
        }
        evicted = Some(entries.swap_remove(lowest));
    }
    entries.push(entry);
    evicted
}

/// The lowest of ranks, and which one it is.
fn lowest(
    ranks: &mut dyn Iterator<Item = (bool, Timestamp)>,
    now: Timestamp,
) -> ((bool, Timestamp), usize) {
    let mut lowest = ((true, Timestamp::MAX), 0);
    for (at, (is_upper, used)) in ranks.enumerate() {
        let rank = (is_upper, if used.is_to_come(now) { Timestamp::EPOCH } else { used });
        if rank < lowest.0 {
            lowest = (rank, at);
        }
    }
    lowest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::{CAS_RETRIES, Cas, InMemory};

    fn at(milliseconds: u64) -> Timestamp {
        Timestamp::from_millis(milliseconds)
    }

    fn entry(key: u128, used: u64) -> Entry<2> {
        Entry { key: KeyHash(key), used: at(used), numbers: [used * 10, used + 1] }
    }

    fn put_entry(table: &Table<2>, shared: &InMemory, entry: Entry<2>) {
        let updated =
            table.update(shared, entry.key, entry.used, |_| (Edit::Put(entry.numbers), ()));
        assert_eq!(updated, Updated { result: (), written: true });
    }

    #[test]
    fn what_was_written_is_read_again() {
        let (table, shared) = (Table::new("t", 16), InMemory::default());
        put_entry(&table, &shared, entry(7, 1));
        put_entry(&table, &shared, entry(8, 2));
        put_entry(&table, &shared, entry(7, 3));
        assert_eq!(table.find(&shared, KeyHash(7)), Some(entry(7, 3)));
        assert_eq!(table.find(&shared, KeyHash(8)), Some(entry(8, 2)));
        assert_eq!(table.find(&shared, KeyHash(9)), None);
    }

    #[test]
    fn in_a_full_row_the_least_recently_used_gives_way() {
        let (table, shared) = (Table::new("t", 1), InMemory::default());
        for key in 0..=WAYS as u128 {
            put_entry(&table, &shared, entry(key, 100 - key as u64));
        }
        let kept: Vec<_> =
            (0..=WAYS as u128).filter(|&key| table.find(&shared, KeyHash(key)).is_some()).collect();
        assert_eq!(kept.len(), WAYS);
        assert!(
            !kept.contains(&(WAYS as u128 - 1)),
            "it was used before all others but the newcomer"
        );
        assert!(kept.contains(&(WAYS as u128)), "the newcomer stays");
    }

    #[test]
    fn what_is_left_alone_is_not_written() {
        let (table, shared) = (Table::<2>::new("t", 1), InMemory::default());
        let updated = table.update(&shared, KeyHash(1), at(1), |_| (Edit::Leave, "seen"));
        assert_eq!(updated, Updated { result: "seen", written: true });
        assert!(shared.keys().is_empty());
    }

    #[test]
    fn what_is_removed_leaves_the_others() {
        let (table, shared) = (Table::new("t", 1), InMemory::default());
        put_entry(&table, &shared, entry(7, 1));
        put_entry(&table, &shared, entry(8, 2));
        table.update(&shared, KeyHash(7), at(3), |_| (Edit::Remove, ()));
        assert_eq!(table.find(&shared, KeyHash(7)), None);
        assert_eq!(table.find(&shared, KeyHash(8)), Some(entry(8, 2)));
    }

    #[test]
    fn an_update_sees_what_another_worker_wrote_meanwhile() {
        let (table, shared) = (Table::new("t", 1), InMemory::default());
        let mut others = 3;
        let updated = table.update(&shared, KeyHash(1), at(9), |entry| {
            if others > 0 {
                others -= 1;
                put_entry(
                    &table,
                    &shared,
                    Entry { key: KeyHash(1), used: at(1), numbers: [100 + others, 0] },
                );
            }
            (Edit::Put([entry.map_or(0, |entry| entry.numbers[0]) + 1, 0]), ())
        });
        assert_eq!(updated, Updated { result: (), written: true });
        assert_eq!(table.find(&shared, KeyHash(1)).map(|entry| entry.numbers), Some([101, 0]));
    }

    #[test]
    fn an_update_gives_up_after_a_bounded_number_of_attempts() {
        let (table, shared) = (Table::new("t", 1), InMemory::default());
        let mut calls = 0;
        let updated = table.update(&shared, KeyHash(1), at(9), |_| {
            calls += 1;
            put_entry(&table, &shared, entry(2, calls));
            (Edit::Put([0, 0]), "chosen all the same")
        });
        assert_eq!(updated, Updated { result: "chosen all the same", written: false });
        assert_eq!(calls, u64::from(CAS_RETRIES));
        assert_eq!(table.find(&shared, KeyHash(1)), None);
    }

    #[test]
    fn a_row_of_another_layout_is_empty() {
        let (table, shared) = (Table::new("t", 1), InMemory::default());
        let name = table.row_name(0);
        let good = Entry::encode_row(&[entry(1, 1)]);
        for bad in [
            vec![],
            vec![VERSION + 1],
            [&[VERSION + 1], &good[1..]].concat(),
            good[..20].to_vec(),
            vec![VERSION; 2000],
        ] {
            shared.set(&name, &bad, Cas(0)).unwrap();
            assert_eq!(table.find(&shared, KeyHash(1)), None, "{bad:?}");
        }
        shared.set(&name, &good, Cas(0)).unwrap();
        assert_eq!(table.find(&shared, KeyHash(1)), Some(entry(1, 1)));
    }

    #[test]
    fn the_number_of_keys_never_exceeds_what_was_configured() {
        let (table, shared) = (Table::new("t", 64), InMemory::default());
        for key in 0..10_000_u128 {
            put_entry(&table, &shared, entry((key << 64) | (key * 0x9e37_79b9_7f4a_7c15), 1));
        }
        let known: Vec<_> = table.keys().collect();
        assert_eq!(known.len(), 4);
        assert!(shared.keys().iter().all(|key| known.contains(key)));
    }
}
