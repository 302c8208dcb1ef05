//! OpenAI conversations: `/v1/conversations` and the items in them.

use serde_json::{Value, json};

use super::account::parse_json;
use super::collection::page;
use super::error::ApiError;
use super::lock::locked;
use super::missing;
use super::objects::{Kind, Object};
use super::openai_input;
use super::place::{Place, Trace};
use super::prompt::Prompt;
use super::reply::Reply;
use super::turn::{fresh_id, unix_seconds};
use super::vendor::Vendor;

/// A new conversation, which may have items from the beginning.
pub(super) fn create(body: &[u8], place: &Place<'_>) -> Result<Reply, ApiError> {
    let body = if body.is_empty() { json!({}) } else { parse_json(body)? };
    let id = format!("conv_{}", fresh_id());
    let metadata = if body["metadata"].is_null() { json!({}) } else { body["metadata"].clone() };
    let shown = json!({
        "id": id, "object": "conversation", "created_at": unix_seconds(), "metadata": metadata,
    });
    let object = Object::new(Kind::Conversation, shown.clone());
    locked(&place.group.objects).put(id.clone(), object);
    grow(&id, &body["items"], place)?;
    Ok(Reply { created: vec![id], ..Reply::plain(shown) })
}

/// All items of a conversation, or one of them.
pub(super) fn items(id: &str, below: &str, place: &Place<'_>) -> Result<Reply, ApiError> {
    let conversation = find(id, place)?;
    if below == "items" {
        return Ok(Reply::plain(page(&conversation.items)));
    }
    let item_id = item_id(below)?;
    let item = conversation.items.into_iter().find(|item| item["id"] == item_id);
    item.map(Reply::plain).ok_or_else(|| missing::error(Vendor::OpenAi, Kind::Item, item_id))
}

/// Adds items to a conversation, and returns them.
pub(super) fn add(
    id: &str,
    below: &str,
    body: &[u8],
    place: &Place<'_>,
) -> Result<Reply, ApiError> {
    find(id, place)?;
    if below != "items" {
        return Err(ApiError::new(404, format!("`{below}` is not simulated here.")));
    }
    let added = grow(id, &parse_json(body)?["items"], place)?;
    Ok(Reply::plain(page(&added)))
}

/// Takes an item out of the list. The prompt of later turns stays as it was.
pub(super) fn delete_item(id: &str, below: &str, place: &Place<'_>) -> Result<Reply, ApiError> {
    let mut conversation = find(id, place)?;
    let item_id = item_id(below)?;
    conversation.items.retain(|item| item["id"] != item_id);
    let shown = conversation.shown.clone();
    locked(&place.group.objects).put(id.to_owned(), conversation);
    Ok(Reply::plain(shown))
}

fn grow(id: &str, given: &Value, place: &Place<'_>) -> Result<Vec<Value>, ApiError> {
    let items = if given.is_null() { vec![] } else { openai_input::items("items", given)? };
    let mut prompt = Prompt::default();
    items.iter().for_each(|item| openai_input::render(&mut prompt, item, place));
    let items: Vec<Value> = items.into_iter().map(openai_input::with_id).collect();
    let trace = Trace::Growth {
        conversation: id.to_owned(),
        items: items.clone(),
        history: prompt.text().to_owned(),
    };
    trace.leave(place.group, None, place.now);
    Ok(items)
}

fn find(id: &str, place: &Place<'_>) -> Result<Object, ApiError> {
    let found = place.find(Kind::Conversation, id);
    found.ok_or_else(|| missing::error(Vendor::OpenAi, Kind::Conversation, id))
}

fn item_id(below: &str) -> Result<&str, ApiError> {
    let id = below.strip_prefix("items/");
    id.ok_or_else(|| ApiError::new(404, format!("`{below}` is not simulated here.")))
}
