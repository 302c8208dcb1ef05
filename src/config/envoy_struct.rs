//! A `google.protobuf.Struct` as JSON.
//!
//! Envoy hands a configuration of type `StringValue` over as its text. One of type `Struct` it
//! hands over as the bytes of the protobuf message, whatever its documentation says, so they are
//! decoded here.

use prost::Message;
use prost_types::Struct;
use prost_types::value::Kind;
use serde_json::Value;

/// Reads the bytes of a `Struct`; `None` if they are none.
pub(super) fn decode(bytes: &[u8]) -> Option<Value> {
    Struct::decode(bytes).ok().map(object)
}

fn object(message: Struct) -> Value {
    Value::Object(message.fields.into_iter().map(|(key, value)| (key, value_of(value))).collect())
}

fn value_of(message: prost_types::Value) -> Value {
    match message.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(value)) => Value::from(value),
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::StructValue(value)) => object(value),
        Some(Kind::ListValue(list)) => {
            Value::Array(list.values.into_iter().map(value_of).collect())
        }
    }
}
