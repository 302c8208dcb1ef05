//! Any bytes as the filter's configuration: problems or a router that serves. What Envoy hands over
//! as a `Struct` is read as the same JSON.

use prost::Message;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct};
use serde_json::Value;
use session_affinity::config::Config;
use session_affinity::hash::Seed;
use session_affinity::request::{Headers, Request};
use session_affinity::response::Response;
use session_affinity::router::{Decision, Router};
use session_affinity::shared::InMemory;
use session_affinity::time::Timestamp;

/// Numbers that are whole as a float of a `Struct`, too.
const EXACT: u64 = 1 << 53;

/// Levels that both decoders take.
const LEVELS: usize = 16;

pub(crate) fn run(bytes: &[u8]) {
    let environment = |name: &str| (name != "ABSENT").then(|| "sk-a-secret-key".to_owned());
    let config = Config::parse_with(bytes, &environment);
    if let Err(problems) = &config {
        let text = problems.to_string();
        assert!(!problems.is_empty() && !text.contains("sk-a-secret-key"));
        assert_eq!(problems.lines().len(), problems.len());
    }
    if let Ok(value @ Value::Object(_)) = serde_json::from_slice(bytes)
        && is_exact(&value, LEVELS)
    {
        let message = object(&value).encode_to_vec();
        let again = Config::parse_with(&message, &environment);
        match (&config, &again) {
            (Ok(one), Ok(other)) => assert_eq!(format!("{one:?}"), format!("{other:?}")),
            (Err(one), Err(other)) => assert_eq!(one.len(), other.len(), "{one}\n{other}"),
            _ => panic!("{config:?}\n{again:?}"),
        }
    }
    if let Ok(config) = config {
        serve(config);
    }
}

fn serve(config: Config) {
    // Tables of a size that nobody sends through a fuzzer.
    let is_large = config.session.max_bindings > 1 << 16 || config.pins.max > 1 << 16;
    let shared = InMemory::default();
    let router = Router::new(config, Seed::agree(&shared, [7; 16]));
    if !is_large {
        router.shared_keys().for_each(drop);
    }
    let paths = ["/v1/messages", "/v1/responses", "/v1beta/models/m:generateContent"];
    for (turn, path) in paths.into_iter().cycle().take(6).enumerate() {
        let headers: Headers =
            [(":method", "POST"), (":path", path), ("x-session-id", "1")].into_iter().collect();
        let request = Request::new(&headers, router.read_body(br#"{"model":"m"}"#));
        let now = Timestamp::from_secs(1_795_262_400 + turn as u64);
        let decision = router.route(&request, &shared, now);
        decision.words();
        if let Decision::Route(route) = decision {
            let mut plan = router.plan(&route, now);
            let status = if turn % 2 == 0 { 429 } else { 200 };
            let none = Headers::default();
            let response = Response::Received { status, headers: &none, body: b"" };
            for _ in 0..17 {
                router.attempt(&mut plan, "", &shared, now);
                if router.observe(&mut plan, &response, &shared, now).next.is_none() {
                    break;
                }
            }
        }
    }
}

fn is_exact(value: &Value, levels: usize) -> bool {
    levels > 0
        && match value {
            Value::Number(number) => number.as_u64().is_some_and(|number| number < EXACT),
            Value::Array(elements) => elements.iter().all(|it| is_exact(it, levels - 1)),
            Value::Object(members) => members.values().all(|it| is_exact(it, levels - 1)),
            _ => true,
        }
}

fn object(value: &Value) -> Struct {
    let members = value.as_object().into_iter().flatten();
    Struct { fields: members.map(|(key, value)| (key.clone(), value_of(value))).collect() }
}

fn value_of(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(elements) => {
            Kind::ListValue(ListValue { values: elements.iter().map(value_of).collect() })
        }
        Value::Object(_) => Kind::StructValue(object(value)),
    };
    prost_types::Value { kind: Some(kind) }
}
