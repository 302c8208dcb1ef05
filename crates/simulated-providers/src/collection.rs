//! Requests by path: what is made, seen, changed and deleted of server-side state.

use serde_json::{Value, json};

use super::conversations;
use super::created;
use super::error::ApiError;
use super::lock::locked;
use super::missing;
use super::objects::{Kind, Object, Phase};
use super::place::Place;
use super::reply::Reply;
use super::route::Action;
use super::stream::Payload;
use super::turn::fresh_id;
use super::vendor::Vendor;

/// Serves a request for a collection or one of its objects, at once: its effect is there whether or
/// not the client waits for the response.
pub(super) fn serve(
    vendor: Vendor,
    kind: Kind,
    action: &Action,
    body: &[u8],
    place: &Place<'_>,
) -> Result<Reply, ApiError> {
    let shelf = Shelf { vendor, kind, place };
    match (kind, action) {
        (Kind::Conversation, Action::Create) => conversations::create(body, place),
        (Kind::Conversation, Action::Below(id, below)) => conversations::items(id, below, place),
        (Kind::Conversation, Action::Add(id, below)) => conversations::add(id, below, body, place),
        (Kind::Conversation, Action::DeleteBelow(id, below)) => {
            conversations::delete_item(id, below, place)
        }
        (Kind::File, Action::Create) if place.header("x-goog-upload-command") == Some("start") => {
            Ok(shelf.begin_upload())
        }
        (_, Action::Create) => shelf.create(body),
        (_, Action::List) => Ok(shelf.list()),
        (_, Action::Get(id)) => shelf.get(id).map(|object| Reply::plain(object.shown)),
        (Kind::File, Action::Update(id)) if vendor == Vendor::Gemini => shelf.end_upload(id, body),
        (_, Action::Update(id)) => shelf.update(id, body),
        (_, Action::Delete(id)) => shelf.delete(id),
        (_, Action::Do(id, step)) => shelf.step(id, step),
        (_, Action::Below(id, below)) => shelf.below(id, below),
        (Kind::Upload, Action::Add(id, below)) if below == "parts" => shelf.add_part(id),
        (_, Action::Add(id, below) | Action::DeleteBelow(id, below)) => {
            shelf.get(id)?;
            Err(ApiError::new(404, format!("`{below}` is not simulated here.")))
        }
    }
}

/// One collection.
struct Shelf<'a> {
    vendor: Vendor,
    kind: Kind,
    place: &'a Place<'a>,
}

impl Shelf<'_> {
    fn create(&self, body: &[u8]) -> Result<Reply, ApiError> {
        let new = created::create(self.vendor, self.kind, body, self.place)?;
        let shown = new.first().map(|(_, object)| self.early(object)).unwrap_or_default();
        let shown = match (self.vendor, self.kind) {
            (Vendor::Gemini, Kind::File) => json!({"file": shown}),
            _ => shown,
        };
        let reply = Reply { created: ids(&new), ..Reply::plain(shown) };
        self.put(new);
        Ok(reply)
    }

    /// The first step of a resumable upload, which names the URL of the second.
    fn begin_upload(&self) -> Reply {
        let id = format!("upload-{}", fresh_id());
        let host = self.place.header("host").unwrap_or("localhost");
        let url = format!("http://{host}/upload/v1beta/files?upload_id={id}");
        let new = vec![(id, Object::new(Kind::Upload, json!({})))];
        let headers = vec![("x-goog-upload-url", url), status_of_upload("active")];
        let reply = Reply { created: ids(&new), headers, ..Reply::plain(json!({})) };
        self.put(new);
        reply
    }

    fn end_upload(&self, id: &str, body: &[u8]) -> Result<Reply, ApiError> {
        let known = self.place.knows(Kind::Upload, id);
        if !known {
            return Err(ApiError::new(404, "Upload not found."));
        }
        locked(&self.place.group.objects).take(id);
        Ok(Reply { headers: vec![status_of_upload("final")], ..self.create(body)? })
    }

    fn put(&self, new: created::New) {
        let mut objects = locked(&self.place.group.objects);
        new.into_iter().for_each(|(id, object)| objects.put(id, object));
    }

    /// An object as its creation shows it, where work goes on in the background.
    fn early(&self, object: &Object) -> Value {
        let mut shown = object.shown.clone();
        if object.phase == Phase::Queued {
            match self.vendor {
                Vendor::Anthropic => {
                    shown["processing_status"] = json!("in_progress");
                    shown["request_counts"] = created::counts(object.items.len(), 0);
                    shown["ended_at"] = Value::Null;
                    shown["results_url"] = Value::Null;
                }
                _ => {
                    shown["status"] = json!("validating");
                    shown["output_file_id"] = Value::Null;
                    shown["completed_at"] = Value::Null;
                }
            }
        }
        shown
    }

    fn list(&self) -> Reply {
        let shown = locked(&self.place.group.objects).list(self.kind, self.place.now);
        Reply::plain(match (self.vendor, self.kind) {
            (Vendor::Gemini, Kind::File) => json!({"files": shown}),
            (Vendor::Gemini, _) => json!({"cachedContents": shown}),
            _ => page(&shown),
        })
    }

    /// An object, with the work on it done.
    fn get(&self, id: &str) -> Result<Object, ApiError> {
        let id = self.full(id);
        let object = self.place.find(self.kind, &id);
        let object = object.ok_or_else(|| missing::error(self.vendor, self.kind, &id))?;
        if object.phase == Phase::Queued {
            locked(&self.place.group.objects).set_phase(&id, Phase::Ready);
        }
        Ok(object)
    }

    /// What an object is called: Gemini's names contain their collection.
    fn full(&self, id: &str) -> String {
        match (self.vendor, self.kind) {
            (Vendor::Gemini, Kind::File) => format!("files/{id}"),
            (Vendor::Gemini, Kind::CachedContent) => format!("cachedContents/{id}"),
            _ => id.to_owned(),
        }
    }

    fn update(&self, id: &str, body: &[u8]) -> Result<Reply, ApiError> {
        let mut object = self.get(id)?;
        let changes = super::account::parse_json(body)?;
        for (name, value) in changes.as_object().into_iter().flatten() {
            if ["metadata", "name", "displayName"].contains(&name.as_str()) {
                object.shown[name] = value.clone();
            }
        }
        let shown = object.shown.clone();
        self.put(vec![(self.full(id), object)]);
        Ok(Reply::plain(shown))
    }

    fn delete(&self, id: &str) -> Result<Reply, ApiError> {
        let object = self.get(id)?;
        locked(&self.place.group.objects).take(&self.full(id));
        let name = match (self.vendor, self.kind) {
            (Vendor::Gemini, _) => return Ok(Reply::plain(json!({}))),
            (Vendor::Anthropic, Kind::Batch) => "message_batch_deleted",
            (Vendor::Anthropic, Kind::File) => "file_deleted",
            (Vendor::Anthropic, _) => "skill_deleted",
            (Vendor::OpenAi, Kind::Conversation) => "conversation.deleted",
            (Vendor::OpenAi, Kind::VectorStore) => "vector_store.deleted",
            (Vendor::OpenAi, Kind::Container) => "container.deleted",
            (Vendor::OpenAi, _) => object.shown["object"].as_str().unwrap_or_default(),
        };
        Ok(Reply::plain(match self.vendor {
            Vendor::Anthropic => json!({"id": id, "type": name}),
            _ => json!({"id": id, "object": name, "deleted": true}),
        }))
    }

    fn step(&self, id: &str, step: &str) -> Result<Reply, ApiError> {
        let id = self.full(id);
        let object = self.place.find(self.kind, &id);
        let mut object = object.ok_or_else(|| missing::error(self.vendor, self.kind, &id))?;
        let was_queued = object.phase == Phase::Queued;
        object.phase = Phase::Ready;
        let mut new = Vec::new();
        match (self.vendor, self.kind, step) {
            (Vendor::OpenAi, Kind::Response, "cancel") => cancel_response(&mut object, was_queued)?,
            (Vendor::Anthropic, Kind::Batch, "cancel") => {
                object.shown["processing_status"] = json!("canceling");
                object.shown["cancel_initiated_at"] = object.shown["created_at"].clone();
            }
            (Vendor::OpenAi, Kind::Batch, "cancel") => object.shown["status"] = json!("cancelling"),
            (_, Kind::Upload | Kind::Interaction, "cancel") => {
                object.shown["status"] = json!("cancelled");
            }
            (Vendor::OpenAi, Kind::Upload, "complete") => {
                object.shown["status"] = json!("completed");
                new = completed_file(&object.shown);
                object.shown["file"] = new.first().map_or(Value::Null, |(_, it)| it.shown.clone());
            }
            _ => return Err(ApiError::new(404, format!("There is no `{step}` here."))),
        }
        let reply = Reply { created: ids(&new), ..Reply::plain(object.shown.clone()) };
        new.push((id, object));
        self.put(new);
        Ok(reply)
    }

    fn below(&self, id: &str, below: &str) -> Result<Reply, ApiError> {
        let object = self.get(id)?;
        match (self.kind, below) {
            (Kind::Response, "input_items") => Ok(Reply::plain(page(&object.items))),
            (Kind::File, "content") => {
                let content = object.items.first().and_then(Value::as_str).unwrap_or_default();
                Ok(Reply::with(Payload::Text("application/octet-stream", content.to_owned())))
            }
            (Kind::Batch, "results") => {
                let lines: Vec<String> = object.items.iter().map(ToString::to_string).collect();
                let lines = lines.join("\n") + "\n";
                Ok(Reply::with(Payload::Text("application/x-jsonl", lines)))
            }
            (Kind::VectorStore | Kind::Container, "files") => Ok(Reply::plain(page(&[]))),
            _ => Err(ApiError::new(404, format!("`{below}` is not simulated here."))),
        }
    }

    fn add_part(&self, id: &str) -> Result<Reply, ApiError> {
        let upload = self.get(id)?;
        Ok(Reply::plain(json!({
            "id": format!("part_{}", fresh_id()), "object": "upload.part", "upload_id": id,
            "created_at": upload.shown["created_at"],
        })))
    }
}

/// Only what still runs in the background can be cancelled.
fn cancel_response(object: &mut Object, was_queued: bool) -> Result<(), ApiError> {
    let shown = &mut object.shown;
    if shown["background"] != true {
        return Err(ApiError::invalid("Cannot cancel a synchronous response."));
    }
    if !was_queued && shown["status"] != "cancelled" {
        return Err(ApiError::invalid("Cannot cancel a completed response."));
    }
    shown["status"] = json!("cancelled");
    shown["output"] = json!([]);
    shown["usage"] = Value::Null;
    Ok(())
}

fn completed_file(upload: &Value) -> created::New {
    let [filename, purpose] =
        ["filename", "purpose"].map(|name| upload[name].as_str().unwrap_or_default());
    let length = upload["bytes"].as_u64().and_then(|it| usize::try_from(it).ok()).unwrap_or(0);
    created::one_file(filename, purpose, length, String::new())
}

/// A list of OpenAI or Anthropic in one page.
pub(super) fn page(data: &[Value]) -> Value {
    let id = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    json!({
        "object": "list", "data": data, "has_more": false,
        "first_id": id(data.first()), "last_id": id(data.last()),
    })
}

fn status_of_upload(status: &str) -> (&'static str, String) {
    ("x-goog-upload-status", status.to_owned())
}

/// The ids of what was asked for, not of what comes with it.
fn ids(new: &created::New) -> Vec<String> {
    new.first().map(|(id, _)| id.clone()).into_iter().collect()
}
