//! What is kept of a response while it passes: its beginning and its end.
//!
//! Providers tell what a response has cost at its end, and Anthropic's streams in their first event
//! as well. So a few KB of both are kept, whatever the length. Nothing is read while it passes, but
//! the first byte: it shows whether there is anything to keep.

use std::ops::Range;

/// Bytes that are kept of the beginning: more than the first event of any provider.
pub const HEAD: usize = 4 << 10;

/// Bytes that are kept of the end. Behind the counts of OpenAI's Responses there may be 9 KB of
/// metadata; all others are within the last KB.
pub const TAIL: usize = 16 << 10;

/// What a body is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One object of JSON.
    Document,
    /// An array of JSON that grows, as Gemini streams without `alt=sse`.
    Array,
    /// Server-sent events.
    Events,
    /// The binary events of AWS.
    Frames,
    Compressed,
    Other,
}

impl Format {
    fn of(first: u8) -> Self {
        match first {
            b'{' => Self::Document,
            b'[' => Self::Array,
            // `data:`, `event:`, `id:`, `retry:` and comments.
            b'd' | b'e' | b'i' | b'r' | b':' => Self::Events,
            // The length of a frame, which is far below 16 MB.
            0 => Self::Frames,
            // The first bytes of gzip, zstd and zlib.
            0x1f | 0x28 | 0x78 => Self::Compressed,
            _ => Self::Other,
        }
    }

    fn is_readable(self) -> bool {
        !matches!(self, Self::Compressed | Self::Other)
    }
}

/// The beginning and the end of a body that passes.
#[derive(Debug, Default)]
pub struct Excerpt {
    format: Option<Format>,
    head: Vec<u8>,
    /// A ring of what came behind the beginning.
    tail: Vec<u8>,
    /// Where in the ring the oldest byte is.
    oldest: usize,
    /// All bytes that have passed.
    length: u64,
}

/// What was kept, in the order in which it came.
pub(super) enum Kept {
    /// All of it.
    Whole(Vec<u8>),
    /// The beginning and the end, with something between them.
    Parts(Vec<u8>, Vec<u8>),
}

impl Excerpt {
    /// An excerpt of a body of which the headers say that it is compressed: nothing is kept.
    pub fn of_compressed() -> Self {
        Self { format: Some(Format::Compressed), ..Self::default() }
    }

    /// Takes from a piece of this size what is to be kept. `read` gives the bytes of a part of it;
    /// it is called at most twice, and not at all where there is nothing to read.
    pub fn take(&mut self, size: usize, mut read: impl FnMut(Range<usize>) -> Vec<u8>) {
        self.length += size as u64;
        if size == 0 || self.format.is_some_and(|format| !format.is_readable()) {
            return;
        }
        let of_head = (HEAD - self.head.len()).min(size);
        let of_tail = (size - of_head).min(TAIL);
        if of_head + of_tail == size {
            let piece = read(0..size);
            let (head, tail) = piece.split_at(of_head.min(piece.len()));
            self.begin(head);
            self.keep(tail);
            return;
        }
        if of_head > 0 {
            self.begin(&read(0..of_head));
        }
        self.keep(&read(size - of_tail..size));
    }

    /// Takes from a piece that is at hand what is to be kept.
    pub(super) fn keep_all(&mut self, piece: &[u8]) {
        self.take(piece.len(), |range| piece.get(range).unwrap_or_default().to_vec());
    }

    /// What is kept of the beginning.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    fn begin(&mut self, piece: &[u8]) {
        self.head.extend_from_slice(piece);
        if self.format.is_none() {
            let text = self.head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.head);
            self.format = text.trim_ascii_start().first().map(|&first| Format::of(first));
        }
    }

    /// Writes a piece, no longer than the ring, over what is oldest.
    fn keep(&mut self, piece: &[u8]) {
        if piece.is_empty() {
            return;
        }
        self.tail.reserve_exact(TAIL - self.tail.len());
        let free = (TAIL - self.tail.len()).min(piece.len());
        let (added, mut rest) = piece.split_at(free);
        self.tail.extend_from_slice(added);
        while !rest.is_empty() {
            let length = rest.len().min(TAIL - self.oldest);
            let (now, later) = rest.split_at(length);
            if let Some(place) = self.tail.get_mut(self.oldest..self.oldest + length) {
                place.copy_from_slice(now);
            }
            self.oldest = (self.oldest + length) % TAIL;
            rest = later;
        }
    }

    /// What the body is; `None` if nothing has come but white space.
    pub(super) fn format(&self) -> Option<Format> {
        self.format
    }

    pub(super) fn kept(&self) -> Kept {
        let (newer, older) = self.tail.split_at(self.oldest.min(self.tail.len()));
        if self.length <= (HEAD + TAIL) as u64 {
            return Kept::Whole([&self.head, older, newer].concat());
        }
        Kept::Parts(self.head.clone(), [older, newer].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The excerpt of a body in pieces of this size, and the bytes that were read for it.
    fn excerpt(body: &[u8], size: usize) -> (Excerpt, usize) {
        let (mut excerpt, mut count) = (Excerpt::default(), 0);
        for piece in body.chunks(size) {
            excerpt.take(piece.len(), |range| {
                count += range.len();
                piece[range].to_vec()
            });
        }
        (excerpt, count)
    }

    #[test]
    fn beginning_and_end_are_kept_however_the_body_is_cut_into_pieces() {
        for length in [1, 100, HEAD, HEAD + 1, HEAD + TAIL, HEAD + TAIL + 1, 100_000] {
            let body: Vec<u8> = (0..length).map(|at| b'{' + (at / 7 % 3) as u8).collect();
            for size in [1, 7, 1000, HEAD, TAIL, TAIL + 1, 30_000, 100_000] {
                let (excerpt, _) = excerpt(&body, size);
                match excerpt.kept() {
                    Kept::Whole(whole) => assert_eq!(whole, body, "{length} {size}"),
                    Kept::Parts(head, tail) => {
                        assert!(length > HEAD + TAIL);
                        assert_eq!(head, body[..HEAD], "{length} {size}");
                        assert_eq!(tail, body[length - TAIL..], "{length} {size}");
                    }
                }
                assert!(excerpt.head.capacity() <= 2 * HEAD && excerpt.tail.capacity() <= TAIL);
            }
        }
    }

    #[test]
    fn of_a_large_piece_only_both_ends_are_read() {
        let body = vec![b'{'; 1 << 20];
        assert_eq!(excerpt(&body, body.len()).1, HEAD + TAIL);
    }

    #[test]
    fn nothing_more_is_read_of_what_cannot_be_read() {
        for first in [0x1f, 0x28, 0x78, 0xff, b'<'] {
            let body = vec![first; 10_000];
            assert_eq!(excerpt(&body, 100).1, 100, "{first}");
        }
        let mut compressed = Excerpt::of_compressed();
        compressed.take(10, |_| panic!("nothing is read"));
    }

    #[test]
    fn white_space_and_a_byte_order_mark_come_before_the_first_byte() {
        for body in [&b"\xef\xbb\xbf{}"[..], b"\r\n {}", b"{}"] {
            for size in [1, 4] {
                let (excerpt, _) = excerpt(body, size);
                let is_cut_mark = size == 1 && body.starts_with(b"\xef");
                let expected = if is_cut_mark { Format::Other } else { Format::Document };
                assert_eq!(excerpt.format(), Some(expected), "{body:?} {size}");
            }
        }
        assert_eq!(excerpt(b" \n", 1).0.format(), None);
    }
}
