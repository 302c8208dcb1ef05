//! The canonical form of a prompt: what a tokenizer would read, in the order of the vendor.
//!
//! Every part of a request becomes a block of text: a text part as it is, anything else (a tool, a
//! tool call, an image) as its compact JSON with the keys in the order of the client. Roles are
//! between control characters, so that `("user", "ab")` and `("user", "a"), ("user", "b")` differ.
//! **Four bytes of this text are one token.** That is off by some tens of percent for every real
//! tokenizer and the same for all of them, which is enough to compare.
//!
//! A prefix is identified by a chained hash: the hash of a block covers the hash of everything
//! before it, and the chain starts from the model, because no provider shares a cache between
//! models. 64 bits are enough here: a collision costs a wrong number in `usage`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde_json::Value;

use super::cache::Prefix;

const BYTES_PER_TOKEN: usize = 4;

/// Before a role, and between a role and its content.
const MESSAGE_SEPARATOR: char = '\u{1e}';
const ROLE_SEPARATOR: char = '\u{1f}';

/// A prompt under construction, then an immutable text with marks.
#[derive(Debug, Default)]
pub(super) struct Prompt {
    text: String,
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    end: usize,
    /// Set where the client requests to cache up to here.
    keep: Option<Duration>,
}

impl Prompt {
    /// Opens a message, or a section such as the tools. The content follows as blocks.
    pub(super) fn open(&mut self, role: &str) {
        self.text.push(MESSAGE_SEPARATOR);
        self.text.push_str(role);
        self.text.push(ROLE_SEPARATOR);
    }

    /// A message whose content is a string, a list of parts, or absent.
    pub(super) fn message(&mut self, role: &str, content: &Value) {
        self.open(role);
        match content {
            Value::Null => {}
            Value::Array(parts) => parts.iter().for_each(|part| self.part(part)),
            other => self.part(other),
        }
    }

    /// One part of a message: its text if it is nothing but text, else its JSON.
    pub(super) fn part(&mut self, part: &Value) {
        match plain_text(part) {
            Some(text) => self.text.push_str(text),
            None => self.text.push_str(&part.to_string()),
        }
        self.blocks.push(Block { end: self.text.len(), keep: None });
    }

    /// Marks the end of the newest block: the client requests to cache up to there.
    pub(super) fn keep_newest(&mut self, keep: Duration) {
        if let Some(block) = self.blocks.last_mut() {
            block.keep = Some(keep);
        }
    }

    /// Text that was rendered by an earlier prompt.
    pub(super) fn append_rendered(&mut self, rendered: &str) {
        self.text.push_str(rendered);
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn tokens(&self) -> u64 {
        tokens(self.text.len())
    }

    /// The requested lifetimes, in order.
    pub(super) fn keeps(&self) -> impl Iterator<Item = Duration> {
        self.blocks.iter().filter_map(|block| block.keep)
    }

    /// Automatic caching: prefixes that end on a multiple of `step` tokens, from `minimum` tokens
    /// on.
    pub(super) fn steps(
        &self,
        model: &str,
        minimum: u64,
        step: usize,
        keep: Duration,
    ) -> Vec<Prefix> {
        let mut chain = start(model);
        let mut prefixes = Vec::new();
        for (index, bytes) in self.text.as_bytes().chunks_exact(step * BYTES_PER_TOKEN).enumerate()
        {
            chain = link(chain, bytes);
            let tokens = ((index + 1) * step) as u64;
            if tokens >= minimum {
                prefixes.push(Prefix { hash: chain, tokens, keep: Some(keep) });
            }
        }
        prefixes
    }

    /// Caching on request: prefixes that end with a marked block, to be written, and for each the
    /// block ends shortly before it (`look_back` in all), to be read.
    pub(super) fn marked(&self, model: &str, minimum: u64, look_back: usize) -> Vec<Prefix> {
        let mut chain = start(model);
        let mut begin = 0;
        let mut prefixes = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            let text = self.text.get(begin..block.end).unwrap_or_default();
            (chain, begin) = (link(chain, text.as_bytes()), block.end);
            let near_a_mark =
                self.blocks.iter().skip(index).take(look_back).any(|block| block.keep.is_some());
            if near_a_mark && tokens(block.end) >= minimum {
                prefixes.push(Prefix { hash: chain, tokens: tokens(block.end), keep: block.keep });
            }
        }
        prefixes
    }
}

/// The tokens of this many bytes of text.
pub(super) fn tokens(bytes: usize) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN) as u64
}

fn plain_text(part: &Value) -> Option<&str> {
    match part {
        Value::String(text) => Some(text),
        // A bare string and a lone text part mean the same to every vendor, with or without these
        // companions.
        Value::Object(fields) => {
            let lone = fields
                .keys()
                .all(|key| matches!(key.as_str(), "type" | "text" | "annotations" | "logprobs"));
            fields.get("text").filter(|_| lone)?.as_str()
        }
        _ => None,
    }
}

fn start(model: &str) -> u64 {
    link(0, model.as_bytes())
}

fn link(chain: u64, bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (chain, bytes).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEEP: Duration = Duration::from_secs(300);

    fn prompt(messages: &[(&str, Value)]) -> Prompt {
        let mut prompt = Prompt::default();
        messages.iter().for_each(|(role, content)| prompt.message(role, content));
        prompt
    }

    fn hashes(prefixes: &[Prefix]) -> Vec<u64> {
        prefixes.iter().map(|prefix| prefix.hash).collect()
    }

    #[test]
    fn a_string_and_a_lone_text_part_are_the_same() {
        let text = prompt(&[("user", json!("hello"))]);
        for part in [json!({"type": "text", "text": "hello"}), json!({"text": "hello"})] {
            assert_eq!(prompt(&[("user", json!([part]))]).text(), text.text());
        }
        assert_ne!(
            prompt(&[("user", json!([{"text": "hello", "thoughtSignature": "x"}]))]).text(),
            text.text()
        );
    }

    #[test]
    fn messages_are_separated() {
        let joined = prompt(&[("user", json!("ab"))]);
        assert_ne!(prompt(&[("user", json!("a")), ("user", json!("b"))]).text(), joined.text());
    }

    #[test]
    fn steps_begin_at_the_minimum_and_chain() {
        let long = "x".repeat(4 * 1400);
        let first = prompt(&[("user", json!(long))]).steps("m", 1024, 128, KEEP);
        assert_eq!(
            first.iter().map(|prefix| prefix.tokens).collect::<Vec<_>>(),
            [1024, 1152, 1280]
        );

        let second = prompt(&[("user", json!(long)), ("assistant", json!("y".repeat(4 * 128)))]);
        assert_eq!(hashes(&second.steps("m", 1024, 128, KEEP))[..3], hashes(&first));
        assert_ne!(hashes(&second.steps("another model", 1024, 128, KEEP))[0], hashes(&first)[0]);

        let changed =
            prompt(&[("system", json!("new")), ("user", json!(long))]).steps("m", 1024, 128, KEEP);
        assert!(hashes(&changed).iter().all(|hash| !hashes(&first).contains(hash)));
    }

    #[test]
    fn marks_are_written_and_the_blocks_before_them_are_read() {
        let mut prompt = Prompt::default();
        for index in 0..30 {
            prompt.message("user", &json!("x".repeat(400)));
            if index == 24 {
                prompt.keep_newest(KEEP);
            }
        }
        let prefixes = prompt.marked("m", 1024, 20);
        // Block 9 is the first with 1,024 tokens; 25 blocks end at or before the mark, the last 20
        // count.
        assert_eq!(prefixes.len(), 15);
        assert_eq!(prefixes.iter().filter(|prefix| prefix.keep.is_some()).count(), 1);
        assert_eq!(prefixes.last().and_then(|prefix| prefix.keep), Some(KEEP));
        assert_eq!(prompt.marked("m", 1024, 3).len(), 3);
    }
}
