//! Gemini's Interactions: `POST /v1beta/interactions`, of which each may continue an earlier one.
//! What is stored is the input and the output, not the system instruction or the tools.

use serde_json::{Value, json};

use super::catalog::rfc3339;
use super::error::ApiError;
use super::gemini;
use super::missing;
use super::objects::{Kind, Object, Phase};
use super::place::{Place, Trace};
use super::prompt::Prompt;
use super::request::{boolean, boolean_or, integer, list, missing_or, required_string, string};
use super::turn::{Call, Turn};
use super::vendor::Vendor;

/// A parsed request for an interaction.
#[derive(Debug)]
pub(super) struct Interaction {
    pub(super) call: Call,
    store: bool,
    pub(super) background: bool,
    previous: Option<String>,
    /// Where in the text of the prompt the history begins.
    history_start: usize,
}

/// Reads a request that is served at this place.
pub(super) fn parse(body: &Value, place: &Place<'_>) -> Result<Interaction, ApiError> {
    let model = required_string(body, "model")?;
    let previous = string(body, "previous_interaction_id")?.map(str::to_owned);
    let mut prompt = Prompt::default();
    if let Some(system) = string(body, "system_instruction")? {
        prompt.message("system", &json!(system));
    }
    if let Some(tools) = list(body, "tools")? {
        prompt.message("tools", &json!(tools));
    }
    let history_start = prompt.text().len();
    if let Some(id) = &previous {
        let history = place.history(Kind::Interaction, id);
        let missing = || missing::error(Vendor::Gemini, Kind::Interaction, id);
        prompt.append_rendered(&history.ok_or_else(missing)?);
    }
    read_input(&mut prompt, body)?;
    let call = Call {
        prefixes: gemini::prefixes(&prompt, &model),
        stream: boolean(body, "stream")?,
        max_output_tokens: integer(&body["generation_config"], "max_output_tokens")?,
        model,
        prompt,
    };
    let (store, background) = (boolean_or(body, "store", true)?, boolean(body, "background")?);
    Ok(Interaction { call, store, background, previous, history_start })
}

fn read_input(prompt: &mut Prompt, body: &Value) -> Result<(), ApiError> {
    let input = &body["input"];
    let Value::Array(parts) = input else {
        return match input {
            Value::String(_) | Value::Object(_) => {
                prompt.message("user", input);
                Ok(())
            }
            _ => Err(missing_or(body, "input", "a string or a list is expected")),
        };
    };
    for part in parts {
        match part["type"].as_str() {
            Some("user_input") => prompt.message("user", &part["content"]),
            Some("model_output") => prompt.message("model", &part["content"]),
            _ => prompt.message(part["role"].as_str().unwrap_or("user"), part),
        }
    }
    Ok(())
}

impl Interaction {
    /// What the interaction leaves behind.
    pub(super) fn traces(self, turn: &Turn) -> Option<Trace> {
        let mut history = Prompt::default();
        let text = self.call.prompt.text();
        history.append_rendered(text.get(self.history_start..).unwrap_or_default());
        history.message("model", &json!([text_content(turn)]));
        let shown = self.whole(turn);
        let phase = if self.background { Phase::Queued } else { Phase::Ready };
        let history = history.text().into();
        let object = Object { phase, history, ..Object::new(Kind::Interaction, shown) };
        self.store.then(|| Trace::Object { id: id(turn), object })
    }

    /// The interaction in one piece.
    pub(super) fn whole(&self, turn: &Turn) -> Value {
        let mut whole = self.envelope(turn, "completed");
        whole["steps"] = json!([{"type": "model_output", "content": [text_content(turn)]}]);
        whole["usage"] = usage(turn);
        whole
    }

    /// The interaction before it is made in the background.
    pub(super) fn begun(&self, turn: &Turn) -> Value {
        self.envelope(turn, "in_progress")
    }

    /// The interaction as a stream of events.
    pub(super) fn events(&self, turn: &Turn) -> Vec<Value> {
        let step = json!({"type": "model_output", "content": []});
        let mut events = vec![
            json!({"event_type": "interaction.created", "interaction": self.begun(turn)}),
            json!({"event_type": "step.start", "index": 0, "step": step}),
        ];
        events.extend(turn.pieces().into_iter().map(|piece| {
            let delta = json!({"type": "text", "text": piece});
            json!({"event_type": "step.delta", "index": 0, "delta": delta})
        }));
        events.push(json!({"event_type": "step.stop", "index": 0}));
        // The steps have come as events already.
        let mut end = self.envelope(turn, "completed");
        end["usage"] = usage(turn);
        events.push(json!({"event_type": "interaction.completed", "interaction": end}));
        events
    }

    fn envelope(&self, turn: &Turn, status: &str) -> Value {
        let created = rfc3339(turn.created);
        let mut envelope = json!({
            "id": id(turn),
            "object": "interaction",
            "model": turn.model,
            "status": status,
            "created": created,
            "updated": created,
        });
        if let Some(previous) = &self.previous {
            envelope["previous_interaction_id"] = json!(previous);
        }
        envelope
    }
}

fn id(turn: &Turn) -> String {
    format!("v1_{}", turn.id)
}

fn text_content(turn: &Turn) -> Value {
    json!({"type": "text", "text": turn.text})
}

fn usage(turn: &Turn) -> Value {
    let usage = turn.usage;
    json!({
        "total_input_tokens": usage.prompt_tokens,
        "total_cached_tokens": usage.cached_tokens,
        "total_output_tokens": usage.output_tokens,
        "total_tool_use_tokens": 0,
        "total_thought_tokens": 0,
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
    })
}
