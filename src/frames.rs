//! The frames that a server sends over a WebSocket, in pieces of any size.
//!
//! Nothing is kept but the header of the frame that arrives. What is wanted of a message is its
//! reader's to keep.

use crate::steps;

/// What comes of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A message begins: whether it is text that can be read, and whether it is compressed.
    Begin { is_text: bool, is_compressed: bool },
    /// A part of it.
    Payload(&'a [u8]),
    /// It is complete.
    End,
}

/// The reader of the frames.
#[derive(Debug, Default)]
pub struct Frames {
    /// The header of the frame that arrives, as far as it is there.
    header: Vec<u8>,
    /// What is left of its payload.
    left: u64,
    is_broken: bool,
}

impl Frames {
    /// Whether this is no WebSocket, or has gone out of step.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Reads a piece.
    pub fn feed(&mut self, piece: &[u8], each: &mut dyn FnMut(Part<'_>)) {
        let mut rest = piece;
        while !self.is_broken && (!rest.is_empty() || self.is_complete()) {
            if !self.has_header() {
                let Some((&byte, tail)) = rest.split_first() else { break };
                self.header.push(byte);
                rest = tail;
                if self.has_header() {
                    self.begin(each);
                }
                continue;
            }
            let length = usize::try_from(self.left).map_or(rest.len(), |left| left.min(rest.len()));
            let (payload, tail) = rest.split_at(length);
            steps::count(length + 1);
            if !self.is_control() && !payload.is_empty() {
                each(Part::Payload(payload));
            }
            self.left -= payload.len() as u64;
            rest = tail;
            if self.left == 0 {
                let is_last = self.first() & 0x80 != 0 && !self.is_control();
                self.header.clear();
                if is_last {
                    each(Part::End);
                }
            }
        }
    }

    fn first(&self) -> u8 {
        self.header.first().copied().unwrap_or_default()
    }

    fn is_control(&self) -> bool {
        self.first() & 0x08 != 0
    }

    fn has_header(&self) -> bool {
        let length = match self.header.get(1).map(|byte| byte & 0x7f) {
            None => return false,
            Some(126) => 4,
            Some(127) => 10,
            Some(_) => 2,
        };
        self.header.len() >= length
    }

    fn is_complete(&self) -> bool {
        self.has_header() && self.left == 0
    }

    fn begin(&mut self, each: &mut dyn FnMut(Part<'_>)) {
        self.left = match self.header.as_slice() {
            // Servers do not mask.
            [_, second, ..] if second & 0x80 != 0 => {
                self.is_broken = true;
                0
            }
            [_, 126 | 127, length @ ..] => {
                length.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
            }
            [_, length, ..] => u64::from(*length),
            _ => 0,
        };
        let opcode = self.first() & 0x0f;
        if !self.is_control() && opcode != 0 {
            // A reserved bit means a compressed message.
            let is_compressed = self.first() & 0x70 != 0;
            each(Part::Begin { is_text: opcode == 1 && !is_compressed, is_compressed });
        }
    }
}
