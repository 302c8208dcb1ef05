//! New objects in the form of their vendor.

use std::time::Duration;

use serde_json::{Value, json};

use super::catalog::rfc3339;
use super::error::ApiError;
use super::missing;
use super::objects::{Kind, Object, Phase};
use super::place::Place;
use super::turn::{fresh_id, unix_seconds};
use super::upload;
use super::vendor::Vendor;

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

/// New objects with their ids; the first is the one that was asked for.
pub(super) type New = Vec<(String, Object)>;

/// What a request to a collection creates.
pub(super) fn create(
    vendor: Vendor,
    kind: Kind,
    body: &[u8],
    place: &Place<'_>,
) -> Result<New, ApiError> {
    if matches!(kind, Kind::File | Kind::Skill) {
        return Ok(match (vendor, kind) {
            (Vendor::OpenAi, _) => openai_file(body),
            (Vendor::Anthropic, Kind::Skill) => skill(),
            (Vendor::Anthropic, _) => anthropic_file(body),
            (Vendor::Gemini, _) => gemini_file(body, place),
        });
    }
    let body = &if body.is_empty() { json!({}) } else { super::account::parse_json(body)? };
    match (vendor, kind) {
        (Vendor::Anthropic, _) => message_batch(body, place),
        (Vendor::Gemini, _) => cached_content(body, place),
        (Vendor::OpenAi, Kind::Batch) => openai_batch(body, place),
        (Vendor::OpenAi, _) => Ok(openai(kind, body, place)),
    }
}

fn one(id: String, object: Object) -> New {
    vec![(id, object)]
}

/// The objects of OpenAI that need nothing to begin with.
fn openai(kind: Kind, body: &Value, place: &Place<'_>) -> New {
    let created_at = unix_seconds();
    let name = body["name"].as_str().unwrap_or_default();
    let (id, shown) = match kind {
        Kind::VectorStore => {
            let id = format!("vs_{}", fresh_id());
            let ids = body["file_ids"].as_array().map_or(0, Vec::len);
            let counts = json!({
                "in_progress": 0, "completed": ids, "failed": 0, "cancelled": 0, "total": ids,
            });
            let shown = json!({
                "id": id, "object": "vector_store", "created_at": created_at, "name": name,
                "usage_bytes": 0, "file_counts": counts, "status": "completed",
                "expires_after": body["expires_after"], "last_active_at": created_at,
                "metadata": or_empty(&body["metadata"]),
            });
            (id, shown)
        }
        Kind::Container => return container(name, place),
        _ => {
            let id = format!("upload_{}", fresh_id());
            let shown = json!({
                "id": id, "object": "upload", "bytes": body["bytes"].as_u64().unwrap_or(0),
                "created_at": created_at, "filename": body["filename"],
                "purpose": body["purpose"], "status": "pending", "expires_at": created_at + HOUR,
                "file": null,
            });
            (id, shown)
        }
    };
    one(id, Object::new(kind, shown))
}

/// A container of OpenAI, which ends after 20 minutes.
pub(super) fn container(name: &str, place: &Place<'_>) -> New {
    let (id, created_at) = (format!("cntr_{}", fresh_id()), unix_seconds());
    let shown = json!({
        "id": id, "object": "container", "created_at": created_at, "status": "running",
        "name": name, "last_active_at": created_at, "memory_limit": "1g",
        "expires_after": {"anchor": "last_active_at", "minutes": 20},
    });
    let expires = Some(place.now + Duration::from_secs(20 * 60));
    one(id, Object { expires, ..Object::new(Kind::Container, shown) })
}

fn openai_file(body: &[u8]) -> New {
    let upload = upload::read(body);
    one_file(&upload.filename, &upload.purpose, upload.length, upload.content)
}

/// A file of OpenAI.
pub(super) fn one_file(filename: &str, purpose: &str, length: usize, content: String) -> New {
    let id = format!("file-{}", fresh_id());
    let shown = json!({
        "id": id, "object": "file", "bytes": length, "created_at": unix_seconds(),
        "filename": filename, "purpose": purpose, "status": "processed", "expires_at": null,
    });
    one(id, Object { items: vec![json!(content)], ..Object::new(Kind::File, shown) })
}

/// A batch, with the file of its results.
fn openai_batch(body: &Value, place: &Place<'_>) -> Result<New, ApiError> {
    let input = body["input_file_id"].as_str();
    let input = input.ok_or_else(|| ApiError::missing("input_file_id"))?;
    if !place.knows(Kind::File, input) {
        return Err(missing::error(Vendor::OpenAi, Kind::File, input));
    }
    let (id, created_at) = (format!("batch_{}", fresh_id()), unix_seconds());
    let output = one_file("output.jsonl", "batch_output", 0, String::new());
    let output_id = output.first().map(|(id, _)| id.clone());
    let shown = json!({
        "id": id, "object": "batch", "endpoint": body["endpoint"], "errors": null,
        "input_file_id": input, "completion_window": "24h", "status": "completed",
        "output_file_id": output_id, "error_file_id": null, "created_at": created_at,
        "expires_at": created_at + DAY, "completed_at": created_at,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": body["metadata"],
    });
    let batch = Object { phase: Phase::Queued, ..Object::new(Kind::Batch, shown) };
    Ok(one(id, batch).into_iter().chain(output).collect())
}

fn anthropic_file(body: &[u8]) -> New {
    let (upload, id) = (upload::read(body), format!("file_{}", fresh_id()));
    let shown = json!({
        "id": id, "type": "file", "filename": upload.filename, "mime_type": "text/plain",
        "size_bytes": upload.length, "created_at": rfc3339(unix_seconds()), "downloadable": false,
    });
    one(id, Object { items: vec![json!(upload.content)], ..Object::new(Kind::File, shown) })
}

fn skill() -> New {
    let (id, now) = (format!("skill_{}", fresh_id()), rfc3339(unix_seconds()));
    let version = format!("skillver_{}", fresh_id());
    let shown = json!({
        "id": id, "type": "skill", "display_name": "skill", "source": {"type": "custom"},
        "latest_version_id": version, "latest_version": version, "display_title": "skill",
        "created_at": now, "updated_at": now,
    });
    one(id, Object::new(Kind::Skill, shown))
}

fn message_batch(body: &Value, place: &Place<'_>) -> Result<New, ApiError> {
    let requests = body["requests"].as_array().filter(|requests| !requests.is_empty());
    let requests = requests.ok_or_else(|| ApiError::missing("requests"))?;
    let (id, now) = (format!("msgbatch_{}", fresh_id()), unix_seconds());
    let host = place.header("host").unwrap_or("localhost");
    let shown = json!({
        "id": id, "type": "message_batch", "processing_status": "ended",
        "request_counts": counts(0, requests.len()), "ended_at": rfc3339(now),
        "created_at": rfc3339(now), "expires_at": rfc3339(now + DAY), "archived_at": null,
        "cancel_initiated_at": null,
        "results_url": format!("http://{host}/v1/messages/batches/{id}/results"),
    });
    let error = json!({"type": "error", "error": {"type": "api_error", "message": "Not run."}});
    let results = requests.iter().map(|request| {
        let result = json!({"type": "errored", "error": error});
        json!({"custom_id": request["custom_id"], "result": result})
    });
    let object = Object { phase: Phase::Queued, ..Object::new(Kind::Batch, shown) };
    Ok(one(id, Object { items: results.collect(), ..object }))
}

/// The counts of a message batch, of which no request is run here.
pub(super) fn counts(processing: usize, errored: usize) -> Value {
    json!({
        "processing": processing, "succeeded": 0, "errored": errored, "canceled": 0, "expired": 0,
    })
}

/// An Anthropic container, as an answer names it, which ends after an hour.
pub(super) fn anthropic_container(skills: &Value, place: &Place<'_>) -> (String, Object) {
    let id = format!("container_{}", fresh_id());
    let expires_at = rfc3339(unix_seconds() + HOUR);
    let shown = json!({"id": id, "expires_at": expires_at, "skills": skills});
    let expires = Some(place.now + Duration::from_secs(HOUR));
    (id, Object { expires, ..Object::new(Kind::Container, shown) })
}

fn gemini_file(body: &[u8], place: &Place<'_>) -> New {
    let (name, now) = (format!("files/{}", fresh_id()), unix_seconds());
    let host = place.header("host").unwrap_or("localhost");
    let shown = json!({
        "name": name, "mimeType": "text/plain", "sizeBytes": body.len().to_string(),
        "createTime": rfc3339(now), "updateTime": rfc3339(now),
        "expirationTime": rfc3339(now + 2 * DAY), "state": "ACTIVE", "source": "UPLOADED",
        "uri": format!("http://{host}/v1beta/{name}"),
    });
    let expires = Some(place.now + Duration::from_secs(2 * DAY));
    one(name, Object { expires, ..Object::new(Kind::File, shown) })
}

/// A cached content, of which only this is shown; what is cached is its one item.
fn cached_content(body: &Value, place: &Place<'_>) -> Result<New, ApiError> {
    let model = body["model"].as_str().ok_or_else(|| ApiError::missing("model"))?;
    let (name, now) = (format!("cachedContents/{}", fresh_id()), unix_seconds());
    let seconds = body["ttl"].as_str().and_then(|ttl| ttl.strip_suffix('s')?.parse().ok());
    let seconds: f64 = seconds.unwrap_or(3600.0);
    let life = Duration::try_from_secs_f64(seconds)
        .map_err(|_| ApiError::invalid("ttl: expected a duration such as `300s`"))?;
    let tokens = super::gemini::cached_prompt(body)?.tokens();
    let shown = json!({
        "name": name, "model": model, "displayName": body["displayName"],
        "createTime": rfc3339(now), "updateTime": rfc3339(now),
        "expireTime": rfc3339(now + life.as_secs()), "usageMetadata": {"totalTokenCount": tokens},
    });
    let object = Object::new(Kind::CachedContent, shown);
    Ok(one(name, Object { expires: Some(place.now + life), items: vec![body.clone()], ..object }))
}

fn or_empty(value: &Value) -> Value {
    if value.is_null() { json!({}) } else { value.clone() }
}
