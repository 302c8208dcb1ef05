//! What is known of the load of a credential: what it carries, how much of its limits is used, and
//! how many requests at once it takes.
//!
//! It is one value in shared data, `session_affinity/load/<16 hex digits>`: a version byte, a hash
//! of the credential's entry in the configuration (4 bytes), the sessions that it carries in
//! thousandths (4), those that began lately (4) and when that was so (8), the most requests at once
//! (2) and since when that is known (8), whether it is spared (1), and up to [`WINDOWS`] windows of
//! 25 bytes. A value of another layout is empty; of one of another entry only the sessions count.

use std::time::Duration;

use super::windows::{WINDOWS, Window};
use crate::codec::{Reader, Writer};
use crate::time::Timestamp;

const VERSION: u8 = 2;
const HEADER_BYTES: usize = 32;
const WINDOW_BYTES: usize = 25;

/// In this time what a session adds to the load of its credential fades to a third, unless another
/// turn comes: about as long as prompts are cached.
const FADES_IN: Duration = Duration::from_mins(5);

/// In this time what a session that begins adds to those that began lately fades to a third.
const BEGINS_IN: Duration = Duration::from_mins(1);

/// What providers tell is written again after this time, or when it differs by so many thousandths.
const WRITTEN_EVERY: Duration = Duration::from_secs(3);
const DIFFERENCE: u16 = 50;

/// A ceiling of requests at once is learnt for this time, and grows by one in each part of it.
const CEILING_LASTS: Duration = Duration::from_mins(10);
const CEILING_GROWS: Duration = Duration::from_mins(1);

/// The load of a credential.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadRecord {
    /// The sessions that it carried, and those that had begun lately, in thousandths, at this time.
    carried: u32,
    begun: u32,
    since: Timestamp,
    /// The most requests at once, if a provider has shown it, and when.
    ceiling: Option<(u16, Timestamp)>,
    /// Whether it was said to be spared.
    pub(super) is_spared: bool,
    windows: Vec<Window>,
}

impl LoadRecord {
    /// Reads a value of shared data; `entry` is the hash of the credential's entry now.
    pub fn decode(bytes: &[u8], entry: u32) -> Self {
        Self::read(bytes, entry).unwrap_or_default()
    }

    fn read(bytes: &[u8], entry: u32) -> Option<Self> {
        let mut header = Reader::new(bytes);
        let (version, of) = (header.byte()?, header.word()?);
        let (carried, begun, since) = (header.word()?, header.word()?, header.time()?);
        let ceiling = (u16::from_le_bytes(header.array()?), header.time()?);
        let is_spared = header.byte()? != 0;
        let windows = header.rest().chunks_exact(WINDOW_BYTES);
        if version != VERSION || windows.len() > WINDOWS || !windows.remainder().is_empty() {
            return None;
        }
        if of != entry {
            // Its sessions stay bound to it; its limits may be another account's.
            return Some(Self { carried, begun, since, ..Self::default() });
        }
        let windows = windows.filter_map(read_window).collect();
        let ceiling = (ceiling.0 > 0).then_some(ceiling);
        Some(Self { carried, begun, since, ceiling, is_spared, windows })
    }

    /// The value for shared data.
    pub fn encode(&self, entry: u32) -> Vec<u8> {
        let bytes = HEADER_BYTES + WINDOW_BYTES * self.windows.len();
        let mut value = Writer::with_capacity(bytes);
        value.byte(VERSION);
        value.word(entry);
        value.word(self.carried);
        value.word(self.begun);
        value.time(self.since);
        let (ceiling, since) = self.ceiling.unwrap_or_default();
        value.bytes(&ceiling.to_le_bytes());
        value.time(since);
        value.byte(self.is_spared.into());
        for window in &self.windows {
            value.byte(window.row);
            value.word(window.models);
            value.bytes(&window.used.to_le_bytes());
            value.bytes(&window.minutes.to_le_bytes());
            value.time(window.seen);
            value.time(window.reset);
        }
        value.finish()
    }

    /// The sessions that it carries: one counts as one when a turn of it came, and fades from then
    /// on.
    pub fn carried(&self, now: Timestamp) -> f64 {
        self.left_of(self.carried, FADES_IN, now)
    }

    /// The sessions that have begun here lately.
    pub fn begun(&self, now: Timestamp) -> f64 {
        self.left_of(self.begun, BEGINS_IN, now)
    }

    fn left_of(&self, thousandths: u32, fades_in: Duration, now: Timestamp) -> f64 {
        if self.since.is_to_come(now) {
            return 0.0;
        }
        f64::from(thousandths) / 1000.0 * fading(now.since(self.since), fades_in)
    }

    /// A turn of a session came, `idle` after the one before it; `None`: its first.
    pub(super) fn carry(&mut self, idle: Option<Duration>, now: Timestamp) {
        // What the turn before has left of the session is made up to a whole one.
        let part = 1.0 - idle.map_or(0.0, |idle| fading(idle, FADES_IN));
        let begins = if idle.is_none() { 1.0 } else { 0.0 };
        let thousandths = |sessions: f64| (sessions * 1000.0 + 0.5) as u32;
        self.carried = thousandths(self.carried(now) + part);
        self.begun = thousandths(self.begun(now) + begins);
        self.since = now;
    }

    /// The most requests at once, as far as a provider has shown it.
    pub fn ceiling(&self, now: Timestamp) -> Option<u32> {
        let (ceiling, since) = self.ceiling.filter(|(_, since)| !since.is_to_come(now))?;
        let age = now.since(since);
        let grown = age.as_millis() / CEILING_GROWS.as_millis();
        (age < CEILING_LASTS).then_some(u32::from(ceiling) + grown as u32)
    }

    /// So many requests at once were one too many.
    pub(super) fn learn_ceiling(&mut self, in_flight: u32, now: Timestamp) {
        // That it refuses one does not show that it takes more than it was known to.
        let most = in_flight.saturating_sub(1).max(1);
        let most = self.ceiling(now).map_or(most, |known| known.min(most));
        self.ceiling = Some((u16::try_from(most).unwrap_or(u16::MAX), now));
    }

    /// The windows that are not over.
    pub fn windows(&self, now: Timestamp) -> impl Iterator<Item = &Window> {
        let told = self.windows.iter();
        told.filter(move |window| window.reset > now && !window.seen.is_to_come(now))
    }

    /// By name, what is used of the windows that are not over, in percent, and when they are whole
    /// again. Windows of single models with one name are one: the tightest.
    pub fn tightest(&self, now: Timestamp) -> Vec<(&'static str, u16, Timestamp)> {
        let windows = super::names().filter_map(|name| {
            let named = self.windows(now).filter(|window| window.name() == Some(name));
            let tightest = named.max_by_key(|window| window.used_at(now))?;
            Some((name, tightest.used_at(now).div_ceil(10), tightest.reset()))
        });
        windows.collect()
    }

    /// Keeps what a provider has told. Returns whether that is worth writing.
    pub(super) fn keep(&mut self, told: Vec<Window>, now: Timestamp) -> bool {
        let is_known = |new: &Window| {
            self.windows.iter().any(|old| {
                is_same(old, new)
                    && now.is_within(WRITTEN_EVERY, old.seen)
                    && old.used.abs_diff(new.used) < DIFFERENCE
            })
        };
        if told.iter().all(is_known) {
            return false;
        }
        self.windows.retain(|old| {
            let is_over = old.reset <= now || old.seen.is_to_come(now);
            !is_over && !told.iter().any(|new| is_same(old, new))
        });
        self.windows.extend(told);
        super::windows::drop_overage(&mut self.windows);
        while self.windows.len() > WINDOWS {
            // Those of single models give way first, and of them the oldest.
            let worth = |window: &Window| (window.models == 0, window.seen);
            let least = (0..self.windows.len())
                .min_by_key(|&at| self.windows.get(at).map(worth))
                .unwrap_or_default();
            self.windows.swap_remove(least);
        }
        true
    }
}

/// What is left, after this time, of what fades to a third in that time.
fn fading(after: Duration, fades_in: Duration) -> f64 {
    libm::exp(-after.as_secs_f64() / fades_in.as_secs_f64())
}

fn is_same(one: &Window, other: &Window) -> bool {
    (one.row, one.models) == (other.row, other.models)
}

fn read_window(bytes: &[u8]) -> Option<Window> {
    let mut window = Reader::new(bytes);
    Some(Window {
        row: window.byte()?,
        models: window.word()?,
        used: u16::from_le_bytes(window.array()?).min(super::windows::WHOLE),
        minutes: u16::from_le_bytes(window.array()?),
        seen: window.time()?,
        reset: window.time()?,
    })
}
