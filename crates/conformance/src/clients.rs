//! Requests as real clients write them, in both profiles.

use serde_json::{Value, json};
use session_affinity::body::Paths;
use session_affinity::session::Sources;

use super::case;
use super::identity::{equal, identify};

/// One request, in both profiles. A group is a client.
pub(super) fn check(case: &Value) -> Vec<(String, Result<(), String>)> {
    let client = case::text(case, "client");
    let mut paths = Paths::default();
    let recommended = Sources::recommended(&mut paths);
    let (key, fallback) = found(case, &recommended, &paths);
    let fallbacks: Vec<_> =
        Some(fallback).into_iter().filter(|fallback| !fallback.is_empty()).collect();
    let recommended = equal(&json!(case::text(case, "expected_key")), &json!(key))
        .and_then(|()| equal(&case["expected_fallbacks"], &json!(fallbacks)));

    let mut paths = Paths::default();
    let (key, fallback) = found(case, &Sources::reference(&mut paths), &paths);
    let keys: Vec<_> = [key, fallback].into_iter().filter(|key| !key.is_empty()).collect();
    let reference = equal(&case["reference_keys"], &json!(keys));
    vec![
        (format!("{client} (recommended)"), recommended),
        (format!("{client} (reference)"), reference),
    ]
}

fn found(case: &Value, sources: &Sources, paths: &Paths) -> (String, String) {
    // The body is an object with its members in the order of the client, which `serde_json` keeps.
    let body = match &case["body"] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    identify(sources, paths, &case::headers(case), body.as_bytes())
}
