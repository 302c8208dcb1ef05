//! The one way in which records become bytes: for shared data and for filter state.
//!
//! Numbers are little endian and there is no padding. A record that ends too early reads as `None`,
//! so every `decode` is a chain of `?`, and whatever does not decode counts as absent.

use crate::time::Timestamp;

/// Takes a record apart, from front to back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What has not been read yet.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn word(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn hash(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    pub(crate) fn time(&mut self) -> Option<Timestamp> {
        self.number().map(Timestamp::from_millis)
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }
}

/// Puts a record together.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(crate) fn word(&mut self, word: u32) {
        self.bytes(&word.to_le_bytes());
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    pub(crate) fn hash(&mut self, hash: u128) {
        self.bytes(&hash.to_le_bytes());
    }

    pub(crate) fn time(&mut self, time: Timestamp) {
        self.number(time.as_millis());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let mut writer = Writer::default();
        writer.byte(1);
        writer.word(3);
        writer.number(4);
        writer.hash(5);
        writer.time(Timestamp::from_millis(6));
        writer.bytes(b"rest");
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.byte(), reader.word()), (Some(1), Some(3)));
        assert_eq!((reader.number(), reader.hash()), (Some(4), Some(5)));
        assert_eq!(reader.time(), Some(Timestamp::from_millis(6)));
        assert_eq!(reader.rest(), b"rest");
        assert_eq!(reader.number(), None, "four bytes are no number");
        assert_eq!(reader.rest(), b"rest", "and nothing was taken");
    }
}
