//! A second `model` in what is not read.
//!
//! A request is decided by the beginning of its body where its headers settle the session, and by
//! `body.max_bytes` of it where it is longer. Of two members `model` providers take the last. If
//! that one came later, a client could name one model to the filter and another to the provider:
//! it would evade `match.models`, and a limit of the second model would be booked on the first, for
//! everybody. So the rest of the document is watched as it passes, and the request ends where the
//! second one shows. Nothing is held and nothing is stored but the state below.

use crate::json::Value;
use crate::json::block::{BLOCK, Block, escaped, parity};
use crate::steps;

/// The longest spelling of `model`: five escapes of six bytes.
const LONGEST_SPELLING: usize = 30;

/// The shortest spelling of `model` with an escape.
const SHORTEST_ESCAPED: usize = 10;

/// Watches the names in the outermost object of a document that passes in pieces.
#[derive(Debug, Default)]
pub struct SecondModel {
    place: Place,
    /// Open objects and arrays.
    depth: u32,
    /// Whether the outermost value is an object, and a name may come next.
    expects_name: bool,
    /// The name that is being read, as it is spelled; with one byte more if it is too long.
    name: Vec<u8>,
    /// How often `model` was named.
    count: u8,
}

/// Where the next byte belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before the document.
    #[default]
    Before,
    /// Between strings.
    Between,
    Text,
    /// Behind a backslash in a text.
    Escape,
    Name,
    /// Behind a backslash in a name.
    EscapeInName,
    /// Behind the document.
    Behind,
}

impl SecondModel {
    /// Reads the next piece; returns whether a second `model` has shown.
    pub fn read(&mut self, piece: &[u8]) -> bool {
        let (blocks, rest) = piece.as_chunks::<BLOCK>();
        for block in blocks {
            steps::count(BLOCK);
            if !self.pass(block) {
                self.walk(block);
            }
        }
        self.walk(rest);
        self.count > 1
    }

    /// Passes over a block that lies within texts and nested values, as nearly all do. Returns
    /// whether it does.
    fn pass(&mut self, bytes: &[u8; BLOCK]) -> bool {
        let (begins_in_text, mut is_escaped) = match self.place {
            Place::Text => (true, false),
            Place::Escape => (true, true),
            Place::Between if self.depth > 1 => (false, false),
            _ => return false,
        };
        let block = Block::of(bytes);
        let backslashes = block.equal(b'\\');
        let quotes = block.equal(b'"') & !escaped(backslashes, &mut is_escaped);
        let in_text = if begins_in_text { !parity(quotes) } else { parity(quotes) };
        if begins_in_text && quotes == 0 {
            self.place = if is_escaped { Place::Escape } else { Place::Text };
            return true;
        }
        let opened = (block.opening() & !in_text).count_ones();
        let closed = (block.closing() & !in_text).count_ones();
        // Outside of texts a backslash escapes nothing: that is no JSON.
        if self.depth <= closed + 1 || backslashes & !in_text != 0 {
            return false;
        }
        self.depth = (self.depth - closed).saturating_add(opened);
        self.place = match (in_text >> 63, is_escaped) {
            (0, _) => Place::Between,
            (_, true) => Place::Escape,
            (_, false) => Place::Text,
        };
        true
    }

    /// Walks through a piece.
    #[inline(never)]
    fn walk(&mut self, mut piece: &[u8]) {
        while let Some(at) = self.next(piece) {
            steps::count(at + 1);
            let Some((&byte, rest)) = piece.get(at..).and_then(<[u8]>::split_first) else {
                break;
            };
            self.step(byte);
            piece = rest;
        }
    }

    /// The next byte that needs a step; what precedes it is passed over.
    fn next(&mut self, piece: &[u8]) -> Option<usize> {
        match self.place {
            Place::Text => end_of_run(piece),
            Place::Between if self.depth > 1 => self.pass_nested(piece),
            Place::Before => memchr::memchr2(b'{', b'[', piece),
            Place::Behind => None,
            _ => (!piece.is_empty()).then_some(0),
        }
    }

    /// Passes over nested values, up to a text or the end of the outermost of them.
    fn pass_nested(&mut self, piece: &[u8]) -> Option<usize> {
        let mut depth = self.depth;
        let at = piece.iter().position(|byte| match byte {
            b'"' => true,
            b'{' | b'[' | b'(' => {
                depth = depth.saturating_add(1);
                false
            }
            b'}' | b']' | b')' if depth == 2 => true,
            b'}' | b']' | b')' => {
                depth -= 1;
                false
            }
            _ => false,
        });
        self.depth = depth;
        at
    }

    fn step(&mut self, byte: u8) {
        self.place = match (self.place, byte) {
            (Place::Text, b'\\') => Place::Escape,
            (Place::Text, b'"') => Place::Between,
            (Place::Text | Place::Escape, _) => Place::Text,
            (Place::Name, b'"') => {
                self.end_name();
                Place::Between
            }
            (Place::Name | Place::EscapeInName, _) => {
                if self.name.len() <= LONGEST_SPELLING {
                    self.name.push(byte);
                }
                let is_escape = self.place == Place::Name && byte == b'\\';
                if is_escape { Place::EscapeInName } else { Place::Name }
            }
            (Place::Before | Place::Between, _) => self.step_between(byte),
            (Place::Behind, _) => Place::Behind,
        };
    }

    fn step_between(&mut self, byte: u8) -> Place {
        match byte {
            b'"' if self.depth == 1 && self.expects_name => return Place::Name,
            b'"' => return Place::Text,
            // Parentheses are no JSON, but the reader counts them too, and so do blocks.
            b'{' | b'[' | b'(' => {
                if self.depth == 0 {
                    self.expects_name = byte == b'{';
                    // An array names no model.
                    if byte == b'[' {
                        return Place::Behind;
                    }
                }
                self.depth = self.depth.saturating_add(1);
            }
            b'}' | b']' | b')' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    return Place::Behind;
                }
            }
            b',' if self.depth == 1 => self.expects_name = true,
            _ => {}
        }
        Place::Between
    }

    fn end_name(&mut self) {
        self.expects_name = false;
        if self.name.len() <= LONGEST_SPELLING && is_model(&self.name) {
            self.count = self.count.saturating_add(1);
        }
        self.name.clear();
    }
}

/// Where a text ends or has an escape. Most texts are short: a search that is fast for long ones
/// begins behind their first bytes.
fn end_of_run(text: &[u8]) -> Option<usize> {
    const SHORT: usize = 16;
    let ends = |byte: &u8| matches!(byte, b'"' | b'\\');
    let short = text.get(..SHORT).unwrap_or(text);
    short.iter().position(ends).or_else(|| {
        let long = text.get(SHORT..)?;
        Some(SHORT + memchr::memchr2(b'"', b'\\', long)?)
    })
}

/// Whether a name is `model`, however it is spelled.
fn is_model(spelled: &[u8]) -> bool {
    if !spelled.contains(&b'\\') || spelled.len() < SHORTEST_ESCAPED {
        return spelled == b"model";
    }
    let document = [b"{\"", spelled, b"\":0}"].concat();
    let member = Value::document(&document).and_then(|object| object.members().next());
    member.is_some_and(|(name, _)| name.as_ref() == b"model")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(document: &str) -> bool {
        SecondModel::default().read(document.as_bytes())
    }

    #[test]
    fn a_second_model_is_found_however_it_is_spelled_and_wherever_pieces_end() {
        for document in [
            r#"{"model":"a","messages":[],"model":"b"}"#,
            r#"{"model":"a","x":{"y":["]}",{}]},"mod\u0065l":"b"}"#,
            r#"{"\u006D\u006f\u0064\u0065\u006c":"a" , "model" : "b"}"#,
            r#"{"model":{"model":1},"model":"b"}"#,
            r#"{"x":"\\","model":"a","y":"\"","model":"b"}"#,
            "\u{feff} {\"model\":1,\"model\":2",
            r#"{"model":"a","messages":"cut off?","model":"#,
        ] {
            assert!(shows(document), "{document}");
            let mut piecewise = SecondModel::default();
            let found = document.as_bytes().chunks(1).any(|piece| piecewise.read(piece));
            assert!(found, "in pieces: {document}");
        }
    }

    #[test]
    fn a_second_model_is_found_behind_any_blocks() {
        let text = r#"\"quoted\\\" [{ \\ ]}"#.repeat(50);
        for gap in 0..130 {
            let padding = " ".repeat(gap);
            let document = format!(
                r#"{{"model":"a","x":[{{"t":"{text}",{padding}"u":["{text}"]}}],"s":"{text}","model":"b"}}"#
            );
            assert!(shows(&document), "{gap}");
            let once = document.replace(r#","model":"b""#, "");
            assert!(!shows(&once), "{gap}");
            for size in [1, 63, 64, 65, 1000] {
                let mut piecewise = SecondModel::default();
                let found = document.as_bytes().chunks(size).any(|piece| piecewise.read(piece));
                assert!(found, "{gap} {size}");
            }
        }
    }

    #[test]
    fn what_is_called_model_elsewhere_is_no_second_one() {
        for document in [
            r#"{"model":"a","tools":[{"properties":{"model":{}}}],"metadata":{"model":"b"}}"#,
            r#"{"messages":"\"model\":\"b\",\"model\":","model":"a"}"#,
            r#"{"model":"model","x":"model","models":1,"Model":2,"model ":3}"#,
            r#"{"model":"a"} {"model":"b"}"#,
            r#"[{"model":"a","model":"b"}]"#,
            r#""model" "model""#,
            "",
        ] {
            assert!(!shows(document), "{document}");
        }
    }

    #[test]
    fn parentheses_count_alike_wherever_pieces_end() {
        let behind = " ".repeat(2 * BLOCK);
        for nested in ["(", ")", "()", "[(]", "[)]"] {
            for gap in 0..BLOCK {
                let padding = " ".repeat(BLOCK + gap);
                let document =
                    format!(r#"{{"model":"a","x":[[{padding}{nested}{behind}]],"model":"b"}}"#);
                let whole = shows(&document);
                for size in [1, 7, 64, 100] {
                    let mut piecewise = SecondModel::default();
                    let found = document.as_bytes().chunks(size).any(|piece| piecewise.read(piece));
                    assert_eq!(found, whole, "{size}: {document}");
                }
            }
        }
    }

    #[test]
    fn a_long_name_is_not_stored() {
        let mut watch = SecondModel::default();
        watch.read(format!("{{\"{}", "x".repeat(1 << 20)).as_bytes());
        assert!(watch.name.len() <= LONGEST_SPELLING + 1);
        assert!(!watch.read(b"\":1,\"model\":1"));
        assert!(watch.read(b",\"model\":1"));
    }
}
