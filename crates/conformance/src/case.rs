//! Reading the parts of a recorded request.

use serde_json::{Map, Value};
use session_affinity::request::Headers;

/// A text field; empty if absent.
pub(super) fn text<'c>(case: &'c Value, name: &str) -> &'c str {
    case[name].as_str().unwrap_or_default()
}

/// The field `headers`: each value a string, or a list of strings for a header that is repeated.
pub(super) fn headers(case: &Value) -> Headers {
    let none = Map::new();
    let headers = case["headers"].as_object().unwrap_or(&none).iter();
    let values = headers.flat_map(|(name, value)| {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        // Spaces around a value are not part of it: every HTTP codec strips them.
        values.iter().filter_map(move |value| Some((name.as_str(), value.as_str()?.trim())))
    });
    values.collect()
}

/// The bytes of a body in any of the recorded forms: `body`, `body_b64`, or `body_parts` to be
/// repeated.
pub(super) fn body(case: &Value) -> Result<Vec<u8>, String> {
    if let Some(encoded) = case["body_b64"].as_str() {
        return base64(encoded);
    }
    let Some(parts) = case["body_parts"].as_array() else {
        return Ok(text(case, "body").into());
    };
    let mut body = Vec::new();
    for part in parts {
        let (Some(text), Some(times)) = (part[0].as_str(), part[1].as_u64()) else {
            return Err(format!("{part} is not a text with a number of repetitions"));
        };
        body.extend((0..times).flat_map(|_| text.bytes()));
    }
    match case["body_len"].as_u64() {
        Some(length) if length != body.len() as u64 => {
            Err(format!("the body has {} bytes, not {length}", body.len()))
        }
        _ => Ok(body),
    }
}

/// The bytes of a text field that may also be given as `<name>_b64`.
pub(super) fn bytes(case: &Value, name: &str) -> Result<Vec<u8>, String> {
    match case[format!("{name}_b64")].as_str() {
        Some(encoded) => base64(encoded),
        None => Ok(text(case, name).into()),
    }
}

fn base64(encoded: &str) -> Result<Vec<u8>, String> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map_err(|error| format!("{encoded:?}: {error}"))
}
