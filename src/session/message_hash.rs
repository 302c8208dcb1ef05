//! The identity of last resort in the profile `reference`: a hash of how the session began.
//!
//! Three texts are looked for: the system prompt, the first user text and the first assistant text,
//! each cut to 100 bytes. Their FNV-1a hash is the id. Three body formats are read, in the
//! reference's order; a format adds only what the ones before it did not find. Agents share their
//! first hundred bytes of prompt, so different sessions of one agent get one id. The profile
//! `recommended` goes by [`super::opening`] instead.

use std::hash::Hasher;

use fnv::FnvHasher;

use crate::body::{Body, PathId, Paths};
use crate::json::{Kind, Value};

/// Bytes of a text that count. The cut may fall inside a character: bytes are hashed, not
/// characters.
const TEXT_LIMIT: usize = 100;

/// Where the texts are in a body.
#[derive(Clone, Debug)]
pub(super) struct MessagePaths {
    /// OpenAI Chat Completions, Anthropic Messages, Bedrock Converse.
    messages: PathId,
    /// Anthropic Messages.
    system: PathId,
    gemini: GeminiPaths,
    /// OpenAI Responses.
    instructions: PathId,
    /// OpenAI Responses.
    input: PathId,
}

#[derive(Clone, Copy, Debug)]
struct GeminiPaths {
    system_parts: PathId,
    contents: PathId,
}

impl MessagePaths {
    /// Adds the paths to those that are looked for.
    pub(super) fn new(paths: &mut Paths) -> Self {
        Self {
            messages: paths.add(["messages"]),
            system: paths.add(["system"]),
            gemini: GeminiPaths {
                system_parts: paths.add(["systemInstruction", "parts"]),
                contents: paths.add(["contents"]),
            },
            instructions: paths.add(["instructions"]),
            input: paths.add(["input"]),
        }
    }

    /// Finds the texts in a body of any format.
    pub(super) fn first_texts(&self, body: &Body<'_>) -> FirstTexts {
        let mut texts = FirstTexts::default();
        texts.read_messages(body.get(self.messages));
        if texts.system.is_empty() {
            texts.read_top_level_system(body.get(self.system));
        }
        if texts.are_empty() {
            texts.read_gemini(body.get(self.gemini.system_parts), body.get(self.gemini.contents));
        }
        if texts.are_empty() {
            texts.read_responses(body.get(self.instructions), body.get(self.input));
        }
        texts
    }
}

/// The first text of each role; empty if the session has none.
#[derive(Default)]
pub(super) struct FirstTexts {
    system: Vec<u8>,
    user: Vec<u8>,
    assistant: Vec<u8>,
}

impl FirstTexts {
    /// The hash of all three texts, and the hash without the assistant's if there is one. `None` if
    /// neither a system nor a user text was found.
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

    fn are_empty(&self) -> bool {
        self.system.is_empty() && self.user.is_empty()
    }

    fn has_user_and_assistant(&self) -> bool {
        !self.user.is_empty() && !self.assistant.is_empty()
    }

    /// OpenAI Chat Completions and Anthropic Messages: `messages[]`.
    fn read_messages(&mut self, messages: Option<Value<'_>>) {
        for message in array(messages) {
            let text = content_text(member(message, "content"), &|kind| kind == b"text");
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

    /// Anthropic Messages: `system`, a string or an array of parts of which the first with text
    /// counts.
    fn read_top_level_system(&mut self, system: Option<Value<'_>>) {
        match system {
            Some(system) if system.kind() == Kind::String => {
                keep_first(&mut self.system, &system.text())
            }
            system => keep_first(&mut self.system, &first_part_text(system.filter(is_array))),
        }
    }

    /// Gemini: `systemInstruction.parts[]` and `contents[]`.
    fn read_gemini(&mut self, system_parts: Option<Value<'_>>, contents: Option<Value<'_>>) {
        keep_first(&mut self.system, &first_part_text(system_parts.filter(is_array)));
        for content in array(contents) {
            let text = first_part_text(member(content, "parts"));
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

    /// OpenAI Responses: `instructions` and `input[]`. Items that are no messages (reasoning, tool
    /// calls) do not count; one without a type is a message if it has a role.
    fn read_responses(&mut self, instructions: Option<Value<'_>>, input: Option<Value<'_>>) {
        keep_first(&mut self.system, &text_of(instructions));
        for item in array(input) {
            if !matches!(text_of(member(item, "type")).as_slice(), b"" | b"message") {
                continue;
            }
            let text = content_text(member(item, "content"), &|kind| {
                matches!(kind, b"input_text" | b"output_text" | b"text")
            });
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
}

/// FNV-1a over `sys:<text>\n`, `usr:<text>\n`, `ast:<text>\n`, each only if there is such a text;
/// in 16 hex digits.
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

#[inline(never)]
fn member<'a>(value: Value<'a>, name: &str) -> Option<Value<'a>> {
    value.get(name)
}

#[inline(never)]
fn keep_first(place: &mut Vec<u8>, text: &[u8]) {
    if place.is_empty() {
        place.extend_from_slice(text.get(..TEXT_LIMIT).unwrap_or(text));
    }
}

fn is_array(value: &Value<'_>) -> bool {
    value.kind() == Kind::Array
}

fn array(value: Option<Value<'_>>) -> impl Iterator<Item = Value<'_>> {
    value.filter(is_array).into_iter().flat_map(Value::elements)
}

fn role_of(message: Value<'_>) -> Vec<u8> {
    text_of(member(message, "role"))
}

#[inline(never)]
fn text_of(value: Option<Value<'_>>) -> Vec<u8> {
    value.map(|value| value.text().into_owned()).unwrap_or_default()
}

/// The text of the first part that has one.
#[inline(never)]
fn first_part_text(parts: Option<Value<'_>>) -> Vec<u8> {
    let parts = parts.into_iter().flat_map(Value::elements);
    let mut texts = parts.map(|part| text_of(member(part, "text")));
    texts.find(|text| !text.is_empty()).unwrap_or_default()
}

/// The text of a message's content: the string itself, or the texts of its text parts with a blank
/// between them.
#[inline(never)]
fn content_text(content: Option<Value<'_>>, is_text: &dyn Fn(&[u8]) -> bool) -> Vec<u8> {
    if let Some(string) = content.filter(|content| content.kind() == Kind::String) {
        return string.text().into_owned();
    }
    let texts: Vec<_> = array(content)
        .filter(|part| is_text(&text_of(member(*part, "type"))))
        .map(|part| text_of(member(part, "text")))
        .filter(|text| !text.is_empty())
        .collect();
    texts.join(b" ".as_slice())
}
