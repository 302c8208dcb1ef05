//! Responses as real providers send them when something is wrong, or soon will be, by name:
//! `responses.jsonl`, one a line, each with its source.
//!
//! | field | |
//! |---|---|
//! | `status` | of an error; absent where `events` follow a 200 |
//! | `headers` | beside those of every response |
//! | `body`, `text` | JSON, or anything else |
//! | `events` | a stream in the framing of the API that the request came by |
//! | `wait` | seconds until the limit ends, if the request for the fault does not say |
//! | `hidden_gzip` | compressed without a `content-encoding` |
//!
//! In every string `{wait}`, `{at}` (seconds since 1970), `{rfc3339}`, `{date}`, `{model}` and
//! `{request_id}` are filled in. A string in a body that is nothing but one of the first two
//! becomes a number.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

static CATALOG: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let lines = include_str!("responses.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap_or_default()).collect()
});

/// The names of all responses that [`Fault::Response`](super::Fault::Response) knows.
pub fn response_names() -> impl Iterator<Item = &'static str> {
    CATALOG.iter().filter_map(|entry| entry["name"].as_str())
}

/// What a request fills in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blanks<'a> {
    pub(super) wait: Option<u64>,
    pub(super) model: &'a str,
    pub(super) request_id: &'a str,
}

/// A response from the catalog.
#[derive(Debug, PartialEq)]
pub(super) struct Canned {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) content: Content,
    pub(super) hidden_gzip: bool,
}

#[derive(Debug, PartialEq)]
pub(super) enum Content {
    Json(Value),
    Text(String),
    Events(Vec<Value>),
}

/// The response with this name, if there is one.
pub(super) fn canned(name: &str, blanks: Blanks<'_>) -> Option<Canned> {
    let entry = CATALOG.iter().find(|entry| entry["name"] == name)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let wait = blanks.wait.or(entry["wait"].as_u64()).unwrap_or_default();
    let filler = Filler { wait, at: now + wait, blanks };
    let content = match (&entry["events"], &entry["text"]) {
        (Value::Array(events), _) => {
            Content::Events(events.iter().map(|event| filler.value(event)).collect())
        }
        (_, Value::String(text)) => Content::Text(filler.text(text)),
        _ => Content::Json(filler.value(&entry["body"])),
    };
    let headers = entry["headers"].as_object().into_iter().flatten();
    Some(Canned {
        status: entry["status"].as_u64().and_then(|it| u16::try_from(it).ok()).unwrap_or(200),
        headers: headers
            .map(|(name, value)| (name.clone(), filler.text(value.as_str().unwrap_or_default())))
            .collect(),
        content,
        hidden_gzip: entry["hidden_gzip"] == true,
    })
}

struct Filler<'a> {
    wait: u64,
    at: u64,
    blanks: Blanks<'a>,
}

impl Filler<'_> {
    fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) if text == "{wait}" => json!(self.wait),
            Value::String(text) if text == "{at}" => json!(self.at),
            Value::String(text) => json!(self.text(text)),
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(members) => {
                let members = members.iter();
                members
                    .map(|(name, value)| (name.clone(), self.value(value)))
                    .collect::<Map<_, _>>()
                    .into()
            }
            other => other.clone(),
        }
    }

    fn text(&self, text: &str) -> String {
        text.replace("{wait}", &self.wait.to_string())
            .replace("{at}", &self.at.to_string())
            .replace("{rfc3339}", &rfc3339(self.at))
            .replace("{date}", rfc3339(self.at).get(..10).unwrap_or_default())
            .replace("{model}", self.blanks.model)
            .replace("{request_id}", self.blanks.request_id)
    }
}

/// A time in UTC. Days become a date as in Howard Hinnant's `civil_from_days`.
pub(super) fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const BLANKS: Blanks<'static> =
        Blanks { wait: Some(90), model: "some-model", request_id: "req_1" };

    #[test]
    fn every_line_of_the_catalog_has_a_name_of_its_own_a_source_and_a_content() {
        let mut names = HashSet::new();
        for entry in CATALOG.iter() {
            let name = entry["name"].as_str().unwrap();
            assert!(names.insert(name), "{name} is there twice");
            assert!(entry["source"].is_string(), "{name}");
            let contents = ["body", "text", "events"].map(|field| !entry[field].is_null());
            assert_eq!(contents.iter().filter(|there| **there).count(), 1, "{name}");
            assert_eq!(entry["status"].is_null(), !entry["events"].is_null(), "{name}");
        }
    }

    #[test]
    fn blanks_are_filled_in_and_none_is_left() {
        for name in response_names() {
            let filled = format!("{:?}", canned(name, BLANKS).unwrap());
            for blank in ["wait", "at", "rfc3339", "date", "model", "request_id"] {
                assert!(!filled.contains(&format!("{{{blank}}}")), "{name}: {filled}");
            }
        }
        let limit = canned("codex-usage-limit", BLANKS).unwrap();
        let Content::Json(body) = limit.content else { panic!("{limit:?}") };
        assert_eq!(body["error"]["resets_in_seconds"], 90);
        assert_eq!(canned("no-such-response", BLANKS), None);
    }

    #[test]
    fn times_are_dates_in_utc() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_796_133_599, "2026-12-01T13:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), expected);
        }
    }
}
