//! What one pass over a request body yields: the places of the few values that decide.
//!
//! A path counts where it is first found whole: an object without the rest of the path is passed over, and a later
//! one of the same name is tried; a `null` at the full path ends the search. Nothing is copied or unescaped here.

use crate::json::Value;

/// The values of a request body that name the session or the model. A body that is absent, or not JSON, has none.
#[derive(Clone, Copy, Default)]
pub struct Body<'a> {
    /// `model`
    pub model: Option<Value<'a>>,
    /// `metadata.user_id`: Claude Code's session, or the end user of an application.
    pub user_id: Option<Value<'a>>,
    /// `conversation_id`
    pub conversation_id: Option<Value<'a>>,
    /// `messages`: OpenAI Chat Completions and Anthropic Messages.
    pub messages: Option<Value<'a>>,
    /// `system`: Anthropic Messages.
    pub system: Option<Value<'a>>,
    /// `systemInstruction.parts`: Gemini.
    pub system_instruction_parts: Option<Value<'a>>,
    /// `contents`: Gemini.
    pub contents: Option<Value<'a>>,
    /// `instructions`: OpenAI Responses.
    pub instructions: Option<Value<'a>>,
    /// `input`: OpenAI Responses.
    pub input: Option<Value<'a>>,
}

impl<'a> Body<'a> {
    /// Reads a body, whole or cut off at any byte.
    pub fn read(bytes: &'a [u8]) -> Self {
        let mut body = Self::default();
        let Some(document) = Value::document(bytes) else {
            return body;
        };
        for (key, value) in document.members() {
            match key.as_ref() {
                b"model" => keep_first(&mut body.model, Some(value)),
                b"metadata" => keep_first(&mut body.user_id, value.get("user_id")),
                b"conversation_id" => keep_first(&mut body.conversation_id, Some(value)),
                b"messages" => keep_first(&mut body.messages, Some(value)),
                b"system" => keep_first(&mut body.system, Some(value)),
                b"systemInstruction" => keep_first(&mut body.system_instruction_parts, value.get("parts")),
                b"contents" => keep_first(&mut body.contents, Some(value)),
                b"instructions" => keep_first(&mut body.instructions, Some(value)),
                b"input" => keep_first(&mut body.input, Some(value)),
                _ => {}
            }
        }
        body
    }
}

fn keep_first<'a>(place: &mut Option<Value<'a>>, found: Option<Value<'a>>) {
    if place.is_none() {
        *place = found;
    }
}
