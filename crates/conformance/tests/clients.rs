//! What the runner says about requests of clients that send no id.

#![allow(clippy::unwrap_used)]

use std::fs;

use serde_json::{Value, json};

/// The failures of these cases, in a file of their own.
fn failures(name: &str, cases: &[Value]) -> Vec<String> {
    let folder = std::env::temp_dir().join(format!("conformance-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let lines: Vec<_> = cases.iter().map(Value::to_string).collect();
    fs::write(folder.join("client_requests_test.jsonl"), lines.join("\n")).unwrap();
    let report = conformance::run(&[&folder]).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let failures = report.files.into_iter().flat_map(|file| file.failures);
    failures.filter(|failure| failure.contains("(recommended)")).collect()
}

fn case(conversation: &str, turn: u32, texts: &[&str]) -> Value {
    let role = |at| if at % 2 == 0 { "user" } else { "assistant" };
    let messages = texts.iter().enumerate();
    let messages: Vec<_> =
        messages.map(|(at, text)| json!({"role": role(at), "content": text})).collect();
    json!({
        "client": "c", "turn": turn, "conversation": conversation, "path": "/v1/chat/completions",
        "headers": {}, "body": {"model": "m", "messages": messages}, "expected_key": "msg:0",
        "expected_fallbacks": [], "expected_pins": [], "reference_keys": []
    })
}

#[test]
fn turns_that_hang_together_and_conversations_apart_pass() {
    let cases = [
        case("one", 1, &["a"]),
        case("two", 1, &["b"]),
        case("one", 2, &["a", "x", "c"]),
        case("two", 2, &["b", "x", "c"]),
        case("three", 1, &["b"]),
    ];
    assert_eq!(failures("pass", &cases), [""; 0], "what is equal cannot be told apart");
}

#[test]
fn a_turn_that_lost_its_conversation_is_named() {
    let cases = [case("one", 1, &["a"]), case("one", 2, &["edited", "x", "b"])];
    let failures = failures("lost", &cases);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(
        failures[0].contains(r#"turn 2 of the conversation "one" has the key"#),
        "{failures:?}"
    );
}

#[test]
fn conversations_with_one_key_are_named() {
    let cases = [case("one", 1, &["a"]), case("two", 2, &["a", "x", "other"])];
    let failures = failures("shared", &cases);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].contains(r#"the conversations "one" and "two" have one key"#));
}

#[test]
fn an_increment_without_a_session_passes_and_a_full_conversation_without_one_does_not() {
    let mut increment = case("one", 2, &["continue"]);
    increment["expected_pins"] = json!(["resp:resp_1"]);
    let hashed = failures("hashed", &[increment.clone()]);
    assert!(hashed[0].contains("refers to resp:resp_1"), "{hashed:?}");
    increment["body"]["previous_response_id"] = json!("resp_1");
    assert_eq!(failures("increment", &[increment.clone()]), [""; 0]);
    increment["expected_pins"] = json!([]);
    assert!(failures("none", &[increment])[0].contains("no session"));
}

#[test]
fn a_text_that_was_replaced_proves_nothing() {
    let placeholder = "Invented user text: as in the original. It stands for 844 bytes.";
    let cases = [case("one", 1, &[placeholder]), case("one", 2, &["a", "x", "b"])];
    assert_eq!(failures("replaced", &cases), [""; 0]);
}
