//! The counts, as they are found in the parts of a response.

use super::Usage;
use super::places::{Ends, Place, members};
use super::row::{Counts, ROWS, Row};
use crate::api::Api;
use crate::json::{Kind, Value, places_of};
use crate::steps;

/// Where the counts are looked for first: with nearly all providers they are the last KB.
const NEAR: usize = 2 << 10;

/// The checksum behind the last frame of AWS.
const CHECKSUM: usize = 4;

/// What was found so far. What comes last in a response counts, so it is read backward, and what
/// is found first stays.
pub(super) struct Found {
    api: Api,
    usage: Usage,
    includes_cached: bool,
}

impl Found {
    pub(super) fn new(api: Api) -> Self {
        Self { api, usage: Usage::default(), includes_cached: true }
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage.comparable(self.includes_cached)
    }

    /// Whether nothing is left to look for. Where the prompt's count includes what was cached, few
    /// servers count what was written.
    fn is_complete(&self) -> bool {
        let Usage { input, cache_read, cache_write, output } = self.usage;
        let has_written = self.includes_cached || cache_write.is_some();
        input.is_some() && cache_read.is_some() && output.is_some() && has_written
    }

    /// Reads a document, of which this is the end.
    pub(super) fn read_document(&mut self, end: &[u8]) {
        // Gemini's array has a level more, unless it was cut off between two elements.
        let end = end.trim_ascii_end();
        let around = i32::from(end.ends_with(b"]"));
        self.read(end, Ends::Document, around);
    }

    /// Reads server-sent events, of which this is the end or the beginning.
    pub(super) fn read_events(&mut self, part: &[u8], is_end: bool) {
        let ends = if is_end { Ends::LinesAndRest } else { Ends::Lines };
        self.read(part, ends, 0);
    }

    /// Reads the last frame of AWS' events. Its payload is a document, up to the checksum: the
    /// event of the API itself, or in InvokeModel the model's event in base64.
    pub(super) fn read_last_frame(&mut self, end: &[u8]) {
        const BYTES: &[u8] = br#""bytes":""#;
        let end = end.get(..end.len().saturating_sub(CHECKSUM)).unwrap_or_default();
        self.read(end, Ends::Document, 0);
        let near = end.get(end.len().saturating_sub(NEAR)..).unwrap_or_default();
        if let Some(last) = places_of(BYTES, near).last() {
            self.read_document(&base64(near.get(last + BYTES.len()..).unwrap_or_default()));
        }
    }

    fn read(&mut self, text: &[u8], ends: Ends, around: i32) {
        let near = text.get(text.len().saturating_sub(NEAR)..).unwrap_or_default();
        self.read_part(near, ends, around);
        if near.len() < text.len() && !self.is_complete() {
            self.read_part(text, ends, around);
        }
    }

    fn read_part(&mut self, text: &[u8], ends: Ends, around: i32) {
        let (api, mut member) = (self.api, "");
        for row in ROWS.iter().filter(|row| row.apis.contains(&api)) {
            // The rows of one member are next to each other.
            if row.member != member && !self.is_complete() {
                member = row.member;
                self.read_members(text, member, ends, around);
            }
        }
    }

    fn read_members(&mut self, text: &[u8], member: &str, ends: Ends, around: i32) {
        for Place { object, depth } in members(text, member, ends) {
            let depth = depth - around;
            let api = self.api;
            let rows = ROWS.iter().filter(|row| row.apis.contains(&api) && row.member == member);
            let rows = rows.filter(|row| (1..=row.deepest).contains(&depth));
            let mut counted: Vec<(&Row, Counts)> = rows.map(|row| (row, [None; 4])).collect();
            if let Some(object) = Value::document(object).filter(|_| !counted.is_empty()) {
                count_fields(object, b"", &mut counted);
            }
            for (row, counts) in counted {
                self.take(row, counts);
            }
            if self.is_complete() {
                return;
            }
        }
    }

    fn take(&mut self, row: &Row, [input, cache_read, cache_write, output]: Counts) {
        if self.usage.input.is_none() && input.is_some() {
            self.includes_cached = row.includes_cached;
        }
        let absent = (row.leaves_out_zeros && input.is_some()).then_some(0);
        let usage = &mut self.usage;
        usage.input = usage.input.or(input);
        usage.cache_read = usage.cache_read.or(cache_read).or(absent);
        usage.cache_write = usage.cache_write.or(cache_write);
        usage.output = usage.output.or(output).or(absent);
    }
}

/// Counts the fields of an object, and those of the objects in it, in one pass.
fn count_fields(object: Value<'_>, name: &[u8], counted: &mut [(&Row, Counts)]) {
    for (key, value) in object.members() {
        match value.kind() {
            Kind::Number => {
                let Some(count) = count(&value.text()) else { continue };
                counted.iter_mut().for_each(|(row, counts)| row.add(counts, name, &key, count));
            }
            Kind::Object if name.is_empty() => count_fields(value, &key, counted),
            _ => {}
        }
    }
}

/// The most tokens that one response can have cost: a hundred times the longest prompt that any
/// model takes. A provider that claims more would spoil sums and money for good.
const MOST: u32 = 100_000_000;

/// A count as it is written; `None` for what cannot be one.
pub(super) fn count(text: &[u8]) -> Option<u64> {
    let count: u32 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (count <= MOST).then_some(u64::from(count))
}

/// The bytes that base64 stands for, up to the first byte that is none of it.
fn base64(text: &[u8]) -> Vec<u8> {
    steps::count(text.len());
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for &letter in text {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => break,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_up_to_its_end() {
        for (text, expected) in
            [("", ""), ("Zg==", "f"), ("Zm9v\"}", "foo"), ("Zm9vYmE=", "fooba"), ("+/8", "\u{fb}")]
        {
            let bytes = base64(text.as_bytes());
            match text {
                "+/8" => assert_eq!(bytes, [0xfb, 0xff]),
                _ => assert_eq!(bytes, expected.as_bytes()),
            }
        }
    }
}
