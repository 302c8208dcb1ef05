//! The identity of last resort: a hash of how the conversation began.
//!
//! Three texts are looked for: the system prompt, the first user text and the first assistant text, each cut to 100
//! bytes. Their FNV-1a hash is the id. Four body formats are read, in the reference's order; a format adds only what
//! the ones before it did not find. Agents share their first hundred bytes of prompt, so different conversations of one
//! agent may get one id: that concentrates them on a credential, and loses no cache.

use std::hash::Hasher;

use fnv::FnvHasher;

use crate::body::Body;
use crate::json::{Kind, Value};

/// Bytes of a text that count. The cut may fall inside a character: bytes are hashed, not characters.
const TEXT_LIMIT: usize = 100;

/// The first text of each role; empty if the conversation has none.
#[derive(Default)]
pub(super) struct FirstTexts {
    system: Vec<u8>,
    user: Vec<u8>,
    assistant: Vec<u8>,
}

impl FirstTexts {
    /// Finds the texts in a body of any of the four formats.
    pub(super) fn of(body: &Body<'_>) -> Self {
        let mut texts = Self::default();
        texts.read_messages(body);
        if texts.system.is_empty() {
            texts.read_top_level_system(body);
        }
        if texts.system.is_empty() && texts.user.is_empty() {
            texts.read_gemini(body);
        }
        if texts.system.is_empty() && texts.user.is_empty() {
            texts.read_responses(body);
        }
        texts
    }

    /// The hash of all three texts, and the hash without the assistant's if there is one. `None` if neither a system
    /// nor a user text was found.
    pub(super) fn hashes(&self) -> Option<(String, Option<String>)> {
        if self.system.is_empty() && self.user.is_empty() {
            return None;
        }
        let first_turn = hash(&self.system, &self.user, b"");
        if self.assistant.is_empty() {
            return Some((first_turn, None));
        }
        Some((hash(&self.system, &self.user, &self.assistant), Some(first_turn)))
    }

    /// OpenAI Chat Completions and Anthropic Messages: `messages[]`.
    fn read_messages(&mut self, body: &Body<'_>) {
        for message in array(body.messages) {
            let text = content_text(message.get("content"), |kind| kind == b"text");
            match role_of(message).as_slice() {
                b"system" => keep_first(&mut self.system, &text),
                b"user" => keep_first(&mut self.user, &text),
                b"assistant" => keep_first(&mut self.assistant, &text),
                _ => {}
            }
            if !self.system.is_empty() && self.has_user_and_assistant() {
                break;
            }
        }
    }

    /// Anthropic Messages: `system`, a string or an array of parts of which the first with text counts.
    fn read_top_level_system(&mut self, body: &Body<'_>) {
        match body.system {
            Some(system) if system.kind() == Kind::String => keep_first(&mut self.system, &system.text()),
            system => keep_first(&mut self.system, &first_part_text(array(system))),
        }
    }

    /// Gemini: `systemInstruction.parts[]` and `contents[]`.
    fn read_gemini(&mut self, body: &Body<'_>) {
        keep_first(&mut self.system, &first_part_text(array(body.system_instruction_parts)));
        for content in array(body.contents) {
            let text = first_part_text(content.get("parts").into_iter().flat_map(Value::elements));
            match role_of(content).as_slice() {
                b"user" => keep_first(&mut self.user, &text),
                b"model" => keep_first(&mut self.assistant, &text),
                _ => {}
            }
            if self.has_user_and_assistant() {
                break;
            }
        }
    }

    /// OpenAI Responses: `instructions` and `input[]`. Items that are no messages (reasoning, tool calls) do not count;
    /// one without a type is a message if it has a role.
    fn read_responses(&mut self, body: &Body<'_>) {
        keep_first(&mut self.system, &body.instructions.map(Value::text).unwrap_or_default());
        for item in array(body.input) {
            if !matches!(text_of(item.get("type")).as_slice(), b"" | b"message") {
                continue;
            }
            let is_text = |kind: &[u8]| matches!(kind, b"input_text" | b"output_text" | b"text");
            let text = content_text(item.get("content"), is_text);
            match role_of(item).as_slice() {
                b"developer" | b"system" => keep_first(&mut self.system, &text),
                b"user" => keep_first(&mut self.user, &text),
                b"assistant" => keep_first(&mut self.assistant, &text),
                _ => {}
            }
            if self.has_user_and_assistant() {
                break;
            }
        }
    }

    fn has_user_and_assistant(&self) -> bool {
        !self.user.is_empty() && !self.assistant.is_empty()
    }
}

/// FNV-1a over `sys:<text>\n`, `usr:<text>\n`, `ast:<text>\n`, each only if there is such a text; in 16 hex digits.
pub fn hash(system: &[u8], user: &[u8], assistant: &[u8]) -> String {
    let mut hasher = FnvHasher::default();
    for (label, text) in [(b"sys:", system), (b"usr:", user), (b"ast:", assistant)] {
        if !text.is_empty() {
            hasher.write(label);
            hasher.write(text);
            hasher.write(b"\n");
        }
    }
    format!("{:016x}", hasher.finish())
}

fn keep_first(place: &mut Vec<u8>, text: &[u8]) {
    if place.is_empty() {
        place.extend_from_slice(text.get(..TEXT_LIMIT).unwrap_or(text));
    }
}

fn array(value: Option<Value<'_>>) -> impl Iterator<Item = Value<'_>> {
    value.filter(|value| value.kind() == Kind::Array).into_iter().flat_map(Value::elements)
}

fn role_of(message: Value<'_>) -> Vec<u8> {
    text_of(message.get("role"))
}

fn text_of(value: Option<Value<'_>>) -> Vec<u8> {
    value.map(|value| value.text().into_owned()).unwrap_or_default()
}

/// The text of the first part that has one.
fn first_part_text<'a>(parts: impl Iterator<Item = Value<'a>>) -> Vec<u8> {
    parts.map(|part| text_of(part.get("text"))).find(|text| !text.is_empty()).unwrap_or_default()
}

/// The text of a message's content: the string itself, or the texts of its text parts with a blank between them.
fn content_text(content: Option<Value<'_>>, is_text: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    if let Some(string) = content.filter(|content| content.kind() == Kind::String) {
        return string.text().into_owned();
    }
    let texts: Vec<_> = array(content)
        .filter(|part| part.get("type").is_some_and(|kind| is_text(&kind.text())))
        .map(|part| text_of(part.get("text")))
        .filter(|text| !text.is_empty())
        .collect();
    texts.join(b" ".as_slice())
}
