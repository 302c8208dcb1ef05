//! The input of the Responses API: items, and what of them is part of the prompt.

use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::objects::Kind;
use super::place::Place;
use super::prompt::Prompt;
use super::request::missing_or;
use super::turn::fresh_id;

/// The items of a request. A text is a message of the user.
pub(super) fn items(name: &'static str, value: &Value) -> Result<Vec<Value>, ApiError> {
    match value {
        Value::String(text) => Ok(vec![json!({"role": "user", "content": text})]),
        Value::Array(items) => Ok(items.clone()),
        _ => Err(missing_or(&json!({ name: value }), name, "a string or a list is expected")),
    }
}

/// Adds an item to the prompt. Reasoning is known by its ciphertext, because clients send the rest
/// of it back in other words; a reference is the item that it names.
pub(super) fn render(prompt: &mut Prompt, item: &Value, place: &Place<'_>) {
    match (item["role"].as_str(), item["type"].as_str()) {
        (Some(role), _) => prompt.message(role, &item["content"]),
        (None, Some("reasoning")) => {
            prompt.open("reasoning");
            let text = &item["encrypted_content"];
            prompt.part(if text.is_string() { text } else { &item["id"] });
        }
        (None, Some("item_reference")) => {
            let id = item["id"].as_str().unwrap_or_default();
            if let Some(object) = place.find(Kind::Item, id) {
                render(prompt, &object.shown, place);
            }
        }
        (None, _) => {
            prompt.open("item");
            prompt.part(&without_null(item));
        }
    }
}

/// An item as a list shows it: with an id, and the content of a message in a list.
pub(super) fn with_id(mut item: Value) -> Value {
    if item["role"].is_string() {
        item["type"] = json!("message");
        item["status"] = json!("completed");
        if let Value::String(text) = &item["content"] {
            let kind = if item["role"] == "assistant" { "output_text" } else { "input_text" };
            item["content"] = json!([{"type": kind, "text": text}]);
        }
    }
    if !item["id"].is_string() {
        let prefix = if item["type"] == "message" { "msg" } else { "item" };
        item["id"] = json!(format!("{prefix}_{}", fresh_id()));
    }
    item
}

/// SDKs send fields back that the provider has not sent, as null.
fn without_null(item: &Value) -> Value {
    let Value::Object(fields) = item else { return item.clone() };
    let fields = fields.iter().filter(|(_, value)| !value.is_null());
    let fields: Map<_, _> = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_shown_with_an_id_and_a_list_of_content() {
        let item = with_id(json!({"role": "user", "content": "x"}));
        assert!(item["id"].as_str().unwrap().starts_with("msg_"));
        assert_eq!(item["content"], json!([{"type": "input_text", "text": "x"}]));
        assert_eq!(with_id(json!({"type": "reasoning", "id": "rs_1"}))["id"], "rs_1");
    }

    #[test]
    fn fields_that_are_null_are_not_there() {
        let item = json!({"type": "function_call", "name": "f", "status": null});
        assert_eq!(without_null(&item), json!({"type": "function_call", "name": "f"}));
    }
}
