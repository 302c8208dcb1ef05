//! Reads the turns of a conversation, and hashes what counts of them.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::{Format, Ids, Place};
use crate::api::Api;
use crate::body::Body;
use crate::json::{Kind, Value};
use crate::session::part::{Part, each_member, each_part};
use crate::session::typed;

/// The longest string that is hashed whole. What people type and paste is shorter.
const WHOLE: usize = 64 << 10;

/// Bytes of each end of a longer one.
const END: usize = 4 << 10;

/// Bytes of a text of the system prompt.
const SYSTEM: usize = 1 << 10;

/// Context that a client makes up begins with one of the first ids. An acknowledgment that comes
/// later is the model's.
const CONTEXT_BEGINS: usize = 3;

/// The most parts of an acknowledgment.
const ACKNOWLEDGMENT_PARTS: usize = 16;

/// What Aider and Gemini CLI let the model say to their context.
const ACKNOWLEDGMENTS: [&str; 7] =
    ["ok", "ok.", "okay", "okay.", "got it", "got it.", "got it. thanks for the context!"];

/// The longest acknowledgment.
const ACKNOWLEDGMENT: usize = 32;

/// Messages and parts of one request that are looked at: more than any window of a model holds. So
/// the time is bounded, however small a client makes them.
const MOST_ELEMENTS: usize = 1 << 16;

/// Who says something.
enum Voice {
    System,
    User,
    Model,
    /// A tool, or somebody unknown.
    Other,
}

/// A conversation that is being read.
pub(super) struct Opening {
    format: Format,
    most: usize,
    /// Messages and parts that are looked at yet.
    left: usize,
    with_reminders: bool,
    /// Everything that counts, up to the last answer.
    beginning: SipHasher13,
    /// The same with what the user said since then.
    turn: Option<SipHasher13>,
    has_system: bool,
    has_user: bool,
    /// Whether the model has acknowledged something.
    has_context: bool,
    /// How many ids belong to the context at the beginning.
    context: usize,
    ids: Vec<String>,
    #[cfg(test)]
    hashed: usize,
}

impl Opening {
    /// Different APIs share no cache, so the same words in two of them are two conversations.
    pub(super) fn new(format: Format, api: Api, most: usize, with_reminders: bool) -> Self {
        let mut beginning = SipHasher13::new();
        beginning.write(&[format as u8, api as u8]);
        Self {
            format,
            most,
            left: MOST_ELEMENTS,
            with_reminders,
            beginning,
            turn: None,
            has_system: false,
            has_user: false,
            has_context: false,
            context: 0,
            ids: Vec::new(),
            #[cfg(test)]
            hashed: 0,
        }
    }

    pub(super) fn read(&mut self, place: &Place, body: &Body<'_>) {
        for system in place.system.iter().filter_map(|path| body.get(*path)) {
            self.hear(Voice::System, Some(system));
        }
        let Some(messages) = body.get(place.messages) else { return };
        match messages.kind() {
            Kind::Array => {
                for message in messages.elements() {
                    self.read_message(message);
                    self.left = self.left.saturating_sub(1);
                    if self.ids.len() >= self.most || self.left == 0 {
                        return;
                    }
                }
            }
            Kind::String if self.format == Format::Responses => {
                self.hear(Voice::User, Some(messages));
            }
            Kind::Object => self.read_message(messages),
            _ => {}
        }
    }

    fn read_message(&mut self, message: Value<'_>) {
        let (mut role, mut kind, mut content, mut calls) = (None, None, None, false);
        each_member(message, &mut |name, value| match name {
            b"role" => role = role.or(Some(value)),
            b"type" => kind = kind.or(Some(value)),
            b"content" | b"parts" => content = content.or(Some(value)),
            b"tool_calls" | b"function_call" => calls = true,
            _ => {}
        });
        let role = role.map(Value::text).unwrap_or_default();
        let kind = kind.map(Value::text).unwrap_or_default();
        match self.voice(&role, &kind) {
            // A part outside any message.
            Voice::User if content.is_none() => self.hear(Voice::User, Some(message)),
            Voice::Model if calls => self.answer(None),
            voice => self.hear(voice, content),
        }
    }

    fn voice(&self, role: &[u8], kind: &[u8]) -> Voice {
        match (role, self.format) {
            (b"system" | b"developer", _) => Voice::System,
            (b"user", _) | (b"", Format::Gemini) => Voice::User,
            (b"assistant" | b"model", _) => Voice::Model,
            (b"", Format::Responses) => match kind {
                _ if kind.ends_with(b"_output") || kind.ends_with(b"_result") => Voice::Other,
                b"" | b"message" | b"text" | b"image" | b"audio" | b"document" | b"video" => {
                    Voice::User
                }
                _ if kind.starts_with(b"input_") => Voice::User,
                // What the model thought or called.
                _ => Voice::Model,
            },
            _ => Voice::Other,
        }
    }

    fn hear(&mut self, voice: Voice, content: Option<Value<'_>>) {
        match voice {
            // What stands behind the first message of the user may move to the end with each turn.
            Voice::System if !self.has_user => content.into_iter().for_each(|it| self.system(it)),
            Voice::User => {
                self.has_user = true;
                content.into_iter().for_each(|it| self.user(it));
            }
            Voice::Model => self.answer(content),
            Voice::System | Voice::Other => {}
        }
    }

    fn system(&mut self, content: Value<'_>) {
        let mut left = self.left;
        each_part(content, &mut left, &mut |part| {
            if let Part::Text(text) = part {
                let lasting = typed::lasting(text.get(..SYSTEM).unwrap_or(&text));
                self.has_system |= !lasting.is_empty();
                self.write(None, b's', &lasting);
            }
        });
        self.left = left;
    }

    fn user(&mut self, content: Value<'_>) {
        let mut left = self.left;
        each_part(content, &mut left, &mut |part| match part {
            Part::Text(text) if self.with_reminders => self.said(b'u', text.trim_ascii()),
            Part::Text(text) => {
                for piece in typed::without_reminders(&text) {
                    let line = if self.has_context { typed::first_line(piece) } else { piece };
                    self.said(b'u', line);
                }
            }
            Part::Payload(payload) => self.said(b'p', &payload),
        });
        self.left = left;
    }

    fn said(&mut self, label: u8, text: &[u8]) {
        if !text.is_empty() {
            let turn = self.turn.unwrap_or(self.beginning);
            self.turn = self.write(Some(turn), label, text);
        }
    }

    /// The model says something: if the user did before, a turn has ended.
    fn answer(&mut self, content: Option<Value<'_>>) {
        let Some(turn) = self.turn.take() else { return };
        self.ids.push(id(&turn));
        if self.ids.len() >= self.most {
            return;
        }
        if content.is_some_and(acknowledges) {
            let ids = self.ids.len();
            if (self.context == 0 && ids <= CONTEXT_BEGINS) || self.context + 1 == ids {
                self.context = ids;
            }
            self.has_context = true;
        } else {
            self.beginning = turn;
        }
    }

    pub(super) fn finish(mut self) -> Ids {
        if self.ids.len() < self.most {
            self.ids.extend(self.turn.as_ref().map(id));
        }
        // The system prompt alone opens a conversation, but reminders come first.
        if self.ids.is_empty() && self.has_system && self.with_reminders {
            self.ids.push(id(&self.beginning));
        }
        Ids { all: self.ids, context: self.context }
    }

    /// Adds a string to the turn, or if there is none, to the beginning.
    #[inline(never)]
    fn write(
        &mut self,
        turn: Option<SipHasher13>,
        label: u8,
        string: &[u8],
    ) -> Option<SipHasher13> {
        let mut hasher = turn.unwrap_or(self.beginning);
        let [head, tail] = sample(string);
        for bytes in [&[label], (string.len() as u64).to_le_bytes().as_slice(), head, tail] {
            hasher.write(bytes);
        }
        #[cfg(test)]
        {
            self.hashed += head.len() + tail.len();
        }
        if turn.is_none() {
            self.beginning = hasher;
        }
        turn.map(|_| hasher)
    }
}

fn id(hasher: &SipHasher13) -> String {
    format!("{:032x}", hasher.finish128().as_u128())
}

/// All of a string, or the ends of a long one.
fn sample(bytes: &[u8]) -> [&[u8]; 2] {
    if bytes.len() <= WHOLE {
        return [bytes, b""];
    }
    let tail = bytes.len() - END;
    [bytes.get(..END).unwrap_or_default(), bytes.get(tail..).unwrap_or_default()]
}

/// Whether the model only says that it has understood.
/// Whether an answer says no more than that context was taken note of: one short text, and nothing
/// beside it. A model that says "Okay" and calls a tool is at work.
fn acknowledges(content: Value<'_>) -> bool {
    let (mut said, mut is_all, mut left) = (Vec::new(), true, ACKNOWLEDGMENT_PARTS);
    let parts = if content.kind() == Kind::Array { content.elements().count() } else { 1 };
    each_part(content, &mut left, &mut |part| match part {
        Part::Text(text) if said.is_empty() => {
            said.extend(text.trim_ascii().iter().take(ACKNOWLEDGMENT + 1));
        }
        Part::Text(_) | Part::Payload(_) => is_all = false,
    });
    said.make_ascii_lowercase();
    let is_ok = ACKNOWLEDGMENTS.iter().any(|word| {
        let rest = said.strip_prefix(word.as_bytes());
        rest.is_some_and(|rest| rest.first().is_none_or(|next| !next.is_ascii_alphanumeric()))
    });
    is_ok && is_all && parts == 1 && said.len() <= ACKNOWLEDGMENT
}

#[cfg(test)]
mod tests {
    use super::super::{MOST_IDS, OpeningPaths};
    use super::*;
    use crate::body::Paths;
    use serde_json::{Value as Json, json};

    /// The bytes that are hashed of a body in the format of Chat Completions, for all its ids.
    fn hashed(body: &Json) -> usize {
        let (mut paths, body) = (Paths::default(), body.to_string());
        let opening = OpeningPaths::new(&mut paths);
        let mut reader = Opening::new(Format::Messages, Api::OpenAi, MOST_IDS, false);
        reader.read(&opening.places[0], &Body::read(&paths, body.as_bytes()));
        reader.hashed
    }

    fn long_chat(turns: usize, bytes: usize) -> Json {
        let turn = |_| {
            [
                json!({"role": "user", "content": "x".repeat(bytes)}),
                json!({"role": "assistant", "content": "y".repeat(bytes)}),
            ]
        };
        json!({"messages": (0..turns).flat_map(turn).collect::<Vec<_>>()})
    }

    #[test]
    fn every_byte_is_hashed_once_however_many_ids_there_are() {
        assert_eq!(hashed(&long_chat(1, 30_000)), 30_000);
        assert_eq!(hashed(&long_chat(20, 30_000)), 20 * 30_000);
        assert_eq!(hashed(&long_chat(500, 30_000)), MOST_IDS * 30_000, "and not beyond the last");
    }

    #[test]
    fn a_megabyte_costs_its_ends() {
        assert_eq!(hashed(&long_chat(1, 1 << 20)), 2 * END);
        let image = json!({"type": "image_url", "image_url": {"url": "z".repeat(1 << 20)}});
        assert_eq!(hashed(&json!({"messages": [{"role": "user", "content": [image]}]})), 2 * END);
        let system = json!({"role": "system", "content": "x".repeat(1 << 20)});
        assert!(hashed(&json!({"messages": [system]})) <= SYSTEM + 1);
    }
}
