//! On valid JSON the reader says what `serde_json` says: the same members in the same order, the
//! same strings, and what was sent of everything else.

use serde_json::Value as Model;
use session_affinity::json::{Kind, Value};

pub(crate) fn run(bytes: &[u8]) {
    let Ok(model) = serde_json::from_slice::<Model>(bytes) else { return };
    if model.is_object() || model.is_array() {
        compare(Value::document(bytes).unwrap(), &model);
    }
}

fn compare(value: Value<'_>, model: &Model) {
    let text = value.text();
    match model {
        Model::Null => assert_eq!((value.kind(), text.as_ref()), (Kind::Null, b"".as_slice())),
        Model::Bool(expected) => assert_eq!(text.as_ref(), expected.to_string().as_bytes()),
        Model::String(expected) => assert_eq!(text.as_ref(), expected.as_bytes()),
        Model::Number(expected) => {
            assert_eq!(value.kind(), Kind::Number);
            let read: f64 = std::str::from_utf8(&text).unwrap().parse().unwrap();
            let expected = expected.as_f64().unwrap();
            assert!((read - expected).abs() <= expected.abs() * 1e-15, "{read} {expected}");
        }
        Model::Array(expected) => {
            let elements: Vec<_> = value.elements().collect();
            assert_eq!(elements.len(), expected.len());
            elements
                .into_iter()
                .zip(expected)
                .for_each(|(element, expected)| compare(element, expected));
        }
        Model::Object(expected) => {
            // Of equal keys the reader takes the first and the model the last: only the last can be
            // compared.
            let mut seen = std::collections::BTreeSet::new();
            let members: Vec<_> = value.members().collect();
            for (key, member) in members.into_iter().rev() {
                let key = String::from_utf8(key.into_owned()).unwrap();
                if seen.insert(key.clone()) {
                    compare(member, &expected[&key]);
                }
            }
            assert_eq!(seen.len(), expected.len());
        }
    }
}
