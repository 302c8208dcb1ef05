//! Reads fields of a JSON request. Absent and `null` are the same; a wrong type is an error of the
//! client.

use serde_json::Value;

use super::error::ApiError;

pub(super) fn required_string(owner: &Value, name: &'static str) -> Result<String, ApiError> {
    string(owner, name)?
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .ok_or_else(|| ApiError::missing(name))
}

pub(super) fn string<'a>(
    owner: &'a Value,
    name: &'static str,
) -> Result<Option<&'a str>, ApiError> {
    typed(owner, name, "a string", Value::as_str)
}

pub(super) fn list<'a>(
    owner: &'a Value,
    name: &'static str,
) -> Result<Option<&'a [Value]>, ApiError> {
    typed(owner, name, "a list", |value| value.as_array().map(Vec::as_slice))
}

pub(super) fn integer(owner: &Value, name: &'static str) -> Result<Option<u64>, ApiError> {
    typed(owner, name, "a whole number", Value::as_u64)
}

/// Absent is false.
pub(super) fn boolean(owner: &Value, name: &'static str) -> Result<bool, ApiError> {
    boolean_or(owner, name, false)
}

pub(super) fn boolean_or(
    owner: &Value,
    name: &'static str,
    default: bool,
) -> Result<bool, ApiError> {
    Ok(typed(owner, name, "true or false", Value::as_bool)?.unwrap_or(default))
}

/// The error for a field that is absent, or that is wrong for this reason.
pub(super) fn missing_or(owner: &Value, name: &'static str, problem: &str) -> ApiError {
    match owner[name] {
        Value::Null => ApiError::missing(name),
        _ => ApiError::invalid(format!("{name}: {problem}")).about(name, "invalid_value"),
    }
}

fn typed<'a, T>(
    owner: &'a Value,
    name: &'static str,
    expected: &str,
    read: impl Fn(&'a Value) -> Option<T>,
) -> Result<Option<T>, ApiError> {
    let value = &owner[name];
    match (value.is_null(), read(value)) {
        (true, _) => Ok(None),
        (false, Some(value)) => Ok(Some(value)),
        (false, None) => {
            Err(ApiError::invalid(format!("{name}: expected {expected}"))
                .about(name, "invalid_type"))
        }
    }
}
