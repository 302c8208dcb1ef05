//! The reply of the model: a text made from the prompt, and the token counts that the vendor
//! reports with it.

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::cache::Prefix;
use super::prompt::{self, Prompt};

/// Token counts of one reply, in names of no vendor. The `usage` objects of the vendors are made
/// from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The whole prompt, cached or not.
    pub prompt_tokens: u64,
    /// The part of the prompt that came from the cache of the account.
    pub cached_tokens: u64,
    /// Anthropic only: written to the cache for five minutes.
    pub written_5m_tokens: u64,
    /// Anthropic only: written to the cache for an hour.
    pub written_1h_tokens: u64,
    /// OpenAI's Responses only: written to the cache for half an hour.
    pub written_30m_tokens: u64,
    /// The reply.
    pub output_tokens: u64,
}

/// A parsed request, the same for every API.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) model: String,
    pub(super) prompt: Prompt,
    /// Shortest first.
    pub(super) prefixes: Vec<Prefix>,
    pub(super) stream: bool,
    pub(super) max_output_tokens: Option<u64>,
}

/// The reply to a [`Call`], before the API of a vendor gives it a shape.
#[derive(Debug)]
pub(super) struct Turn {
    /// 32 hexadecimal digits, never the same twice; the APIs put their own prefix before it.
    pub(super) id: String,
    pub(super) model: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) text: String,
    /// The text was cut at the limit of the client.
    pub(super) truncated: bool,
    pub(super) usage: Usage,
}

impl Turn {
    /// Makes the reply to `call`, of whose prompt the cache held `cached_tokens`.
    pub(super) fn new(call: &Call, cached_tokens: u64) -> Self {
        let (text, truncated) = limited(sentences(call), call.max_output_tokens);
        let usage = Usage {
            prompt_tokens: call.prompt.tokens(),
            cached_tokens,
            output_tokens: prompt::tokens(text.len()),
            ..Usage::default()
        };
        Self {
            id: fresh_id(),
            model: call.model.clone(),
            created: unix_seconds(),
            text,
            truncated,
            usage,
        }
    }

    /// The text in the pieces in which it is streamed: a few words each, at least one piece.
    pub(super) fn pieces(&self) -> Vec<String> {
        let words: Vec<&str> = self.text.split_inclusive(' ').collect();
        if words.is_empty() {
            vec![String::new()]
        } else {
            words.chunks(3).map(|chunk| chunk.concat()).collect()
        }
    }
}

/// An id that no other account, and not this one after a restart, issues.
pub(super) fn fresh_id() -> String {
    static RANDOM: OnceLock<[RandomState; 2]> = OnceLock::new();
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let random = RANDOM.get_or_init(|| [RandomState::new(), RandomState::new()]);
    random.iter().map(|state| format!("{:016x}", state.hash_one(count))).collect()
}

/// The identifier of a request, as Anthropic and OpenAI give one to each.
pub(super) fn request_id() -> String {
    format!("req_{}", fresh_id())
}

/// Now, in seconds since 1970.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

const FINDINGS: [&str; 4] = [
    "The second case depends on the order of the first one",
    "The value is read before the configuration has been loaded",
    "Both callers wait for the same lock",
    "The test compares a time that was taken twice",
];
const PROPOSALS: [&str; 4] = [
    "I would move that step up and keep the rest as it is.",
    "A small change in one function is enough, and I can add a test for it.",
    "Let me look at the callers before I change anything.",
    "The safest way is to pass the value in as an argument.",
];

/// Two sentences chosen by the prompt and nothing else. Every account gives the same reply, so a
/// session that is replayed over other accounts stays the same.
fn sentences(call: &Call) -> String {
    let mut hasher = DefaultHasher::new();
    (&call.model, call.prompt.text()).hash(&mut hasher);
    let hash = hasher.finish();
    let [finding, proposal] =
        [(FINDINGS, hash), (PROPOSALS, hash >> 8)].map(|(list, bits)| list[(bits % 4) as usize]);
    format!("{finding} (note {:04x}). {proposal}", hash >> 48)
}

/// The text is ASCII, so that it can be cut at any byte.
fn limited(mut text: String, max_output_tokens: Option<u64>) -> (String, bool) {
    let Some(limit) = max_output_tokens.filter(|limit| prompt::tokens(text.len()) > *limit) else {
        return (text, false);
    };
    while prompt::tokens(text.len()) > limit {
        text.pop();
    }
    (text, true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn turn(text: &str, max_output_tokens: Option<u64>) -> Turn {
        let mut prompt = Prompt::default();
        prompt.message("user", &json!(text));
        Turn::new(
            &Call { model: "m".into(), prompt, prefixes: vec![], stream: false, max_output_tokens },
            0,
        )
    }

    #[test]
    fn the_text_depends_on_the_prompt_and_the_id_does_not() {
        assert_eq!(turn("a", None).text, turn("a", None).text);
        assert_ne!(turn("a", None).text, turn("b", None).text);
        assert_ne!(turn("a", None).id, turn("a", None).id);
    }

    #[test]
    fn the_pieces_make_the_text() {
        let turn = turn("a", None);
        assert!(turn.pieces().len() > 2);
        assert_eq!(turn.pieces().concat(), turn.text);
    }

    #[test]
    fn the_limit_of_output_tokens_holds() {
        let cut = turn("a", Some(3));
        assert_eq!((cut.text.len(), cut.truncated, cut.usage.output_tokens), (12, true, 3));
        assert_eq!(turn("a", Some(0)).pieces(), [""]);
        assert!(!turn("a", Some(1000)).truncated);
    }
}
