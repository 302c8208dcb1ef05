//! A table of fixed size in shared data.
//!
//! The host can never delete a key, so the table has a fixed number of rows, each one key, and every row has room for
//! [`WAYS`] entries. An entry may stand only in the row that its key's hash names; in a full row the least recently used
//! entry gives way. So memory is a product known from the configuration: rows × 513 bytes, and about 100 more for each
//! row's key in the host.
//!
//! A row is a version byte and its entries of 32 bytes, little endian: the hash of the key (16), a number (8), the time
//! of last use in milliseconds since the epoch (8). A row that does not read so is empty.

use crate::hash::KeyHash;
use crate::shared::{self, SharedData, Updated};

/// Entries of a row.
pub const WAYS: usize = 16;

const VERSION: u8 = 1;
const ENTRY_BYTES: usize = 32;

/// What the table keeps for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The hash of the key.
    pub key: KeyHash,
    /// What is kept.
    pub number: u64,
    /// Milliseconds since the epoch of the last use.
    pub used: u64,
}

/// A table: the first part of its keys, and their number.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    name: &'static str,
    rows: u32,
}

impl Table {
    /// A table with room for at least so many entries.
    pub fn new(name: &'static str, entries: u32) -> Self {
        Self { name, rows: entries.div_ceil(WAYS as u32).max(1) }
    }

    /// Every key that the table ever writes.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.rows).map(|row| self.row_name(row))
    }

    /// The entry of a key.
    pub fn find(&self, shared: &impl SharedData, key: KeyHash) -> Option<Entry> {
        let stored = shared.get(&self.row_name(key.slot(self.rows)));
        find(&decode(&stored.value), key)
    }

    /// Changes the entry of a key, as [`shared::update`] does: `change` gets the entry as it stands, and gives the
    /// number to keep and a result. In a full row the least recently used entry gives way.
    pub fn update<T>(
        &self,
        shared: &impl SharedData,
        key: KeyHash,
        now: u64,
        mut change: impl FnMut(Option<Entry>) -> Option<(u64, T)>,
    ) -> Option<Updated<T>> {
        shared::update(shared, &self.row_name(key.slot(self.rows)), |value| {
            let mut entries = decode(value);
            let (number, result) = change(find(&entries, key))?;
            put(&mut entries, Entry { key, number, used: now });
            Some((encode(&entries), result))
        })
    }

    /// Drops the entries that are not to be kept, and gives the number of those that are. Reads every row: for an
    /// operator's wish, not for a request.
    pub fn retain(&self, shared: &impl SharedData, keep: impl Fn(&Entry) -> bool) -> usize {
        self.keys().map(|name| self.retain_in_row(shared, &name, &keep)).sum()
    }

    fn retain_in_row(&self, shared: &impl SharedData, name: &str, keep: &impl Fn(&Entry) -> bool) -> usize {
        let mut kept = 0;
        shared::update(shared, name, |value| {
            let mut entries = decode(value);
            let before = entries.len();
            entries.retain(|entry| keep(entry));
            kept = entries.len();
            (kept < before).then(|| (encode(&entries), ()))
        });
        kept
    }

    fn row_name(&self, row: u32) -> String {
        format!("session_affinity/{}/{row}", self.name)
    }
}

fn find(entries: &[Entry], key: KeyHash) -> Option<Entry> {
    entries.iter().copied().find(|entry| entry.key == key)
}

/// Puts an entry in the place of the key's old one, of a free one, or of the least recently used.
fn put(entries: &mut Vec<Entry>, entry: Entry) {
    entries.retain(|other| other.key != entry.key);
    if entries.len() >= WAYS
        && let Some(oldest) = (0..entries.len()).min_by_key(|&at| entries.get(at).map(|entry| entry.used))
    {
        entries.swap_remove(oldest);
    }
    entries.push(entry);
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + entries.len() * ENTRY_BYTES);
    bytes.push(VERSION);
    for entry in entries {
        bytes.extend_from_slice(&entry.key.0.to_le_bytes());
        bytes.extend_from_slice(&entry.number.to_le_bytes());
        bytes.extend_from_slice(&entry.used.to_le_bytes());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Vec<Entry> {
    match bytes.split_first() {
        Some((&VERSION, entries)) if entries.len() % ENTRY_BYTES == 0 && entries.len() <= WAYS * ENTRY_BYTES => {
            entries.chunks_exact(ENTRY_BYTES).filter_map(decode_entry).collect()
        }
        _ => Vec::new(),
    }
}

fn decode_entry(bytes: &[u8]) -> Option<Entry> {
    let (key, rest) = bytes.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (used, _) = rest.split_first_chunk()?;
    Some(Entry {
        key: KeyHash(u128::from_le_bytes(*key)),
        number: u64::from_le_bytes(*number),
        used: u64::from_le_bytes(*used),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::{ATTEMPTS, Cas, InMemory};

    fn entry(key: u128, used: u64) -> Entry {
        Entry { key: KeyHash(key), number: used * 10, used }
    }

    fn put_entry(table: &Table, shared: &InMemory, entry: Entry) {
        let updated = table.update(shared, entry.key, entry.used, |_| Some((entry.number, ())));
        assert_eq!(updated, Some(Updated { result: (), written: true }));
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
        let kept: Vec<_> = (0..=WAYS as u128).filter(|&key| table.find(&shared, KeyHash(key)).is_some()).collect();
        assert_eq!(kept.len(), WAYS);
        assert!(!kept.contains(&(WAYS as u128 - 1)), "it was used before all others but the newcomer");
        assert!(kept.contains(&(WAYS as u128)), "the newcomer stays");
    }

    #[test]
    fn a_change_without_result_writes_nothing() {
        let (table, shared) = (Table::new("t", 1), InMemory::default());
        assert_eq!(table.update(&shared, KeyHash(1), 1, |_| None::<(u64, ())>), None);
        assert!(shared.keys().is_empty());
    }

    #[test]
    fn an_update_sees_what_another_worker_wrote_meanwhile() {
        let (table, shared) = (Table::new("t", 1), InMemory::default());
        let mut others = 3;
        let updated = table.update(&shared, KeyHash(1), 9, |entry| {
            if others > 0 {
                others -= 1;
                put_entry(&table, &shared, Entry { key: KeyHash(1), number: 100 + others, used: 1 });
            }
            Some((entry.map_or(0, |entry| entry.number) + 1, ()))
        });
        assert_eq!(updated, Some(Updated { result: (), written: true }));
        assert_eq!(table.find(&shared, KeyHash(1)).map(|entry| entry.number), Some(101));
    }

    #[test]
    fn an_update_gives_up_after_a_bounded_number_of_attempts() {
        let (table, shared) = (Table::new("t", 1), InMemory::default());
        let mut asked = 0;
        let updated = table.update(&shared, KeyHash(1), 9, |_| {
            asked += 1;
            put_entry(&table, &shared, entry(2, asked));
            Some((0, "chosen all the same"))
        });
        assert_eq!(updated, Some(Updated { result: "chosen all the same", written: false }));
        assert_eq!(asked, u64::from(ATTEMPTS));
        assert_eq!(table.find(&shared, KeyHash(1)), None);
    }

    #[test]
    fn a_row_of_another_layout_is_empty() {
        let (table, shared) = (Table::new("t", 1), InMemory::default());
        let name = table.row_name(0);
        let good = encode(&[entry(1, 1)]);
        for bad in
            [vec![], vec![VERSION + 1], [&[VERSION + 1], &good[1..]].concat(), good[..20].to_vec(), vec![VERSION; 2000]]
        {
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
