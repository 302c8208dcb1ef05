//! Anthropic's message threads: conversations that the server holds.
//!
//! A request with `thread: {"type": "create"}` is answered as any other, and its answer can be
//! continued for five minutes, once, by a request that has only what is new. Such a request stands
//! for the one that sends everything again. If its client leaves before its answer begins, the
//! thread stays in flight.

use std::time::Duration;

use serde_json::{Value, json};

use super::cache_control;
use super::error::ApiError;
use super::lock::locked;
use super::missing;
use super::objects::{Kind, Object, Phase};
use super::place::{Place, Trace};
use super::vendor::Vendor;

const BETA: &str = "message-threads-2026-08-12";
const LIFE: Duration = Duration::from_secs(5 * 60);

/// The thread of a request.
#[derive(Debug)]
pub(super) struct Thread {
    /// The answer that it continues.
    previous: Option<String>,
}

/// Reads the thread of a request, if it has one, and completes the request with what is stored.
pub(super) fn open(body: &mut Value, place: &Place<'_>) -> Result<Option<Thread>, ApiError> {
    let previous = match body["thread"]["type"].as_str() {
        Some("create") => None,
        Some("continue") => {
            let id = body["thread"]["previous_message_id"].as_str();
            Some(id.ok_or_else(|| ApiError::missing("thread.previous_message_id"))?.to_owned())
        }
        _ => return Ok(None),
    };
    if !place.has_beta(BETA) {
        return Err(ApiError::invalid("thread: Extra inputs are not permitted"));
    }
    if let Some(id) = &previous {
        complete(body, id, place)?;
    }
    // What the server holds is cached without being asked for.
    if body["cache_control"].is_null() {
        body["cache_control"] = json!({"type": "ephemeral"});
    }
    Ok(Some(Thread { previous }))
}

fn complete(body: &mut Value, id: &str, place: &Place<'_>) -> Result<(), ApiError> {
    let stored = place.find(Kind::Thread, id);
    let stored = stored.ok_or_else(|| missing::error(Vendor::Anthropic, Kind::Thread, id))?;
    if let Some(field) = ["system", "tools"].into_iter().find(|field| !body[field].is_null()) {
        let message = format!("thread: `{field}` is kept by the Thread and cannot be changed");
        return Err(refused("thread_fingerprint_mismatch", message));
    }
    for field in ["system", "tools"] {
        if !stored.shown[field].is_null() {
            body[field] = stored.shown[field].clone();
        }
    }
    let mut messages = stored.shown["messages"].as_array().cloned().unwrap_or_default();
    messages.extend(body["messages"].as_array().cloned().unwrap_or_default());
    body["messages"] = json!(messages);
    Ok(())
}

impl Thread {
    /// Takes the answer that this request continues: no other request may from now on.
    pub(super) fn claim(&self, place: &Place<'_>) -> Result<(), ApiError> {
        let Some(id) = &self.previous else { return Ok(()) };
        let mut objects = locked(&place.group.objects);
        let stored = objects.get(Kind::Thread, id, place.now);
        match stored.map(|stored| stored.phase) {
            None => Err(missing::error(Vendor::Anthropic, Kind::Thread, id)),
            Some(Phase::Continued) => Err(refused(
                "thread_already_continued",
                format!("`{id}` has already been continued."),
            )),
            Some(Phase::InFlight) => Err(refused(
                "thread_continue_in_flight",
                format!("Another request is still continuing from `{id}`."),
            )),
            Some(Phase::Ready | Phase::Queued) => {
                objects.set_phase(id, Phase::InFlight);
                Ok(())
            }
        }
    }

    /// What an answer with this content leaves behind. `body` is the whole request.
    pub(super) fn traces(
        self,
        message_id: &str,
        body: &Value,
        content: &Value,
        place: &Place<'_>,
    ) -> Result<Vec<Trace>, ApiError> {
        let mut messages = Vec::new();
        for message in body["messages"].as_array().into_iter().flatten() {
            messages.push(cache_control::take(message)?.0);
        }
        messages.push(json!({"role": "assistant", "content": content}));
        let stored =
            json!({"system": body["system"], "tools": body["tools"], "messages": messages});
        let expires = Some(place.now + LIFE);
        let object = Object { expires, ..Object::new(Kind::Thread, stored) };
        let continued = self.previous.map(|id| Trace::Continued { id });
        let answer = Trace::Object { id: message_id.to_owned(), object };
        Ok(continued.into_iter().chain([answer]).collect())
    }
}

fn refused(code: &'static str, message: String) -> ApiError {
    ApiError { details: Some(code), ..ApiError::invalid(message) }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::http::HeaderMap;

    use super::super::ciphertext::Foreign;
    use super::super::group::Group;
    use super::*;

    fn code(error: &ApiError) -> (u16, Option<&'static str>) {
        (error.status, error.details)
    }

    #[test]
    fn an_answer_is_continued_once_and_for_five_minutes() {
        let group = Group::new(Vendor::Anthropic, "a");
        let headers: HeaderMap = [("anthropic-beta", format!("x, {BETA}"))]
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .into_iter()
            .collect();
        let now = Instant::now();
        let foreign = Foreign::Removed;
        let place = Place { group: &group, socket: None, headers: &headers, foreign, now };
        let question = json!([{"role": "user", "content": "x"}]);
        let mut first = json!({"thread": {"type": "create"}, "system": "s", "messages": question});
        let thread = open(&mut first, &place).unwrap().unwrap();
        for trace in thread.traces("msg_1", &first, &json!("answer"), &place).unwrap() {
            trace.leave(&group, None, now);
        }

        let next = json!({"type": "continue", "previous_message_id": "msg_1"});
        let next = json!({"thread": next, "messages": question});
        let mut whole = next.clone();
        let thread = open(&mut whole, &place).unwrap().unwrap();
        assert_eq!(whole["system"], "s");
        assert_eq!(whole["messages"][1], json!({"role": "assistant", "content": "answer"}));
        thread.claim(&place).unwrap();
        let again = thread.claim(&place).unwrap_err();
        assert_eq!(code(&again), (400, Some("thread_continue_in_flight")));
        locked(&group.objects).set_phase("msg_1", Phase::Continued);
        let again = thread.claim(&place).unwrap_err();
        assert_eq!(code(&again), (400, Some("thread_already_continued")));

        let late = Place { now: now + LIFE, ..place };
        let lost = open(&mut next.clone(), &late).unwrap_err();
        assert_eq!(code(&lost), (404, Some("thread_not_found")));

        let mut changed = next.clone();
        changed["system"] = json!("other");
        let refused = open(&mut changed, &place).unwrap_err();
        assert_eq!(code(&refused), (400, Some("thread_fingerprint_mismatch")));
    }
}
