//! Conversations of clients that send no id: which are told apart, and which stay together.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::cell::RefCell;
use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use session_affinity::body::{Body, Paths};
use session_affinity::request::{Headers, Request};
use session_affinity::session::Sources;

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";
const GEMINI: &str = "/v1beta/models/gemini-3-pro:generateContent";

/// What was bound so far.
#[derive(Default)]
struct Bound(RefCell<BTreeSet<Vec<u8>>>);

impl Bound {
    /// Whether the session of a request is known; afterwards it is. `None` if it has none.
    fn knows(&self, path: &str, body: &Value) -> Option<bool> {
        let key = key_of(path, body, |id| self.0.borrow().contains(id))?;
        Some(!self.0.borrow_mut().insert(key))
    }

    /// The requests of a conversation, each of which is expected to belong to the first.
    fn hang_together(&self, path: &str, turns: &[Value]) {
        for (at, turn) in turns.iter().enumerate() {
            assert_eq!(self.knows(path, turn), Some(at > 0), "turn {}: {turn}", at + 1);
        }
    }
}

fn key_of(path: &str, body: &Value, is_bound: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let mut paths = Paths::default();
    let sources = Sources::recommended(&mut paths);
    let (headers, body): (Headers, _) = ([(":path", path)].into_iter().collect(), body.to_string());
    let request = Request::new(&headers, Body::read(&paths, body.as_bytes()));
    Some(sources.identify_bound(&request, Some(&is_bound))?.primary)
}

/// The key of a first turn.
fn key(path: &str, body: &Value) -> Option<Vec<u8>> {
    key_of(path, body, |_| false)
}

fn said(role: &str, content: impl Into<Value>) -> Value {
    json!({"role": role, "content": content.into()})
}

fn chat(messages: &[Value]) -> Value {
    json!({"model": "m", "messages": messages})
}

fn system() -> Value {
    said("system", "You are an agent.")
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn reminder(about: &str) -> Value {
    text(&format!("<system-reminder>\n{about}\n</system-reminder>"))
}

#[test]
fn reminders_before_the_question_do_not_make_conversations_equal() {
    let shapes: [fn(&str) -> Value; 4] = [
        |question: &str| said("user", json!([reminder(&"r".repeat(9_000)), text(question)])),
        |question| {
            said(
                "user",
                json!([text("<environment_context>\n</environment_context>"), text(question)]),
            )
        },
        |question| said("user", format!("<system-reminder>a</system-reminder>\n{question}")),
        |question| said("user", format!("{} {question}", "template ".repeat(20_000))),
    ];
    for of in shapes {
        let keys =
            ["Fix it", "Explain it"].map(|question| key(CHAT, &chat(&[system(), of(question)])));
        assert_ne!(keys[0], keys[1], "{}", of("?"));
        assert!(keys[0].is_some());
    }
    let context = json!({"text": "<session_context>\nToday is Friday.\n</session_context>"});
    let gemini = |question: &str| json!({"contents": [{"role": "user", "parts": [context, {"text": question}]}]});
    assert_ne!(key(GEMINI, &gemini("Fix it")), key(GEMINI, &gemini("Explain it")));
}

#[test]
fn a_reminder_may_move_from_turn_to_turn() {
    let first = |reminders: &[&str]| {
        let mut parts: Vec<_> = reminders.iter().map(|about| reminder(about)).collect();
        parts.push(text("Say hello"));
        said("user", parts)
    };
    Bound::default().hang_together(
        CHAT,
        &[
            chat(&[system(), first(&["a", "b", "todo list"])]),
            chat(&[
                system(),
                first(&["a", "b"]),
                said("assistant", "Hello."),
                said("user", json!([reminder("todo list"), text("Second")])),
            ]),
            chat(&[
                system(),
                first(&["a"]),
                said("user", json!([reminder("moved behind")])),
                said("assistant", "Hello."),
                said("user", "Second"),
            ]),
        ],
    );
}

#[test]
fn what_is_only_a_reminder_is_better_than_nothing() {
    let only = |about: &str| chat(&[said("user", json!([reminder(about)]))]);
    assert!(key(CHAT, &only("a")).is_some());
    assert_ne!(key(CHAT, &only("a")), key(CHAT, &only("b")));
}

#[test]
fn examples_before_the_question_are_no_turns() {
    let examples = [
        system(),
        said("user", "2 + 2"),
        said("assistant", "4"),
        said("user", "3 + 3"),
        said("assistant", "6"),
    ];
    let bound = Bound::default();
    for question in ["4 + 4", "5 + 5", "6 + 6"] {
        let first = [&examples[..], &[said("user", question)]].concat();
        let second = [&first[..], &[said("assistant", "8"), said("user", "and again")]].concat();
        let third = [&second[..], &[said("assistant", "9"), said("user", "and again")]].concat();
        bound.hang_together(CHAT, &[chat(&first), chat(&second), chat(&third)]);
    }
}

/// Aider: examples, context that the model acknowledges, and instructions in the last message,
/// which are gone in the next turn. In it the context stands behind the history.
#[test]
fn context_that_is_acknowledged_is_no_question() {
    let examples = [
        system(),
        said("user", "Change the greeting"),
        said("assistant", "To make this change we need to modify `greeting.py`: …"),
        said("user", "I switched to a new code base."),
        said("assistant", "Ok."),
    ];
    let files = [said("user", "I am not sharing any files."), said("assistant", "Ok, I see none.")];
    let asked = |question: &str| said("user", format!("{question}\n\n# Rules\nAnswer in blocks."));
    let bound = Bound::default();
    for question in ["Say hello", "Fix the test\nand the build"] {
        let history = [said("user", format!("{question}  \n")), said("assistant", "Done.")];
        let first = [&examples[..], &files, &[asked(question)]].concat();
        let second = [&examples[..], &history, &files, &[asked("Second")]].concat();
        let later = [said("user", "Second"), said("assistant", "Done, too.")];
        let third = [&examples[..], &history, &later, &files, &[asked("Third")]].concat();
        bound.hang_together(CHAT, &[chat(&first), chat(&second), chat(&third)]);
    }
}

/// The key that every Envoy of a fleet finds, whatever it has bound.
fn key_of_fleet(body: &Value) -> Option<Vec<u8>> {
    let mut paths = Paths::default();
    let sources = Sources::recommended(&mut paths);
    let (headers, body): (Headers, _) = ([(":path", CHAT)].into_iter().collect(), body.to_string());
    let request = Request::new(&headers, Body::read(&paths, body.as_bytes()));
    Some(sources.identify_bound(&request, None)?.primary)
}

#[test]
fn a_fleet_goes_by_the_first_question_behind_the_context() {
    let chat_of = |turns: &[(&str, &str)]| {
        chat(&turns.iter().map(|(role, text)| said(role, *text)).collect::<Vec<_>>())
    };
    let (asked, answered) = (("user", "Why?"), ("assistant", "So."));
    let one = key_of_fleet(&chat_of(&[asked]));
    assert_eq!(one, key(CHAT, &chat_of(&[asked])));
    assert_eq!(one, key_of_fleet(&chat_of(&[asked, answered, ("user", "And?")])));
    let late = [asked, answered, asked, answered, asked, answered, asked, ("assistant", "Ok.")];
    assert_eq!(one, key_of_fleet(&chat_of(&[&late[..], &[asked]].concat())));

    let example = [("user", "Change it"), ("assistant", "Changed: …")];
    let switch = [("user", "I switched."), ("assistant", "Ok.")];
    let files = [("user", "No files."), ("assistant", "Ok.")];
    let first =
        |question| chat_of(&[&example[..], &switch, &files, &[("user", question)]].concat());
    let second =
        chat_of(&[&example[..], &switch, &[asked, answered], &files, &[("user", "And?")]].concat());
    assert_eq!(key_of_fleet(&first("Why?\n\nRules")), key_of_fleet(&second));
    assert_ne!(key_of_fleet(&first("Why?")), key_of_fleet(&first("How?")));
}

#[test]
fn an_acknowledgment_in_a_chat_changes_nothing() {
    let turns = [
        system(),
        said("user", "Remember: 7"),
        said("assistant", "Ok."),
        said("user", "And 8"),
        said("assistant", "Okay, I will."),
        said("user", "Which?"),
        said("assistant", "7 and 8."),
        said("user", "Thanks"),
    ];
    Bound::default().hang_together(CHAT, &[2, 4, 6, 8].map(|messages| chat(&turns[..messages])));
}

#[test]
fn an_answer_that_begins_with_okay_and_calls_a_tool_is_no_acknowledgment() {
    let task = |number: usize| said("user", format!("Task {number}"));
    let go_on = said("user", "continue");
    let call = json!({"type": "tool_use", "id": "t", "name": "read", "input": {}});
    let spoken = text("Okay, I'll look at the parser.");
    let in_parts = said("assistant", json!([spoken, call]));
    let beside = json!({"role": "assistant", "content": "Okay.", "tool_calls": [{"id": "t"}]});
    for (path, answer) in [(MESSAGES, in_parts), (CHAT, beside)] {
        let last = |number| {
            let body = chat(&[system(), task(number), answer.clone(), go_on.clone()]);
            let ids = RefCell::new(Vec::new());
            key_of(path, &body, |id| {
                ids.borrow_mut().push(id.to_vec());
                false
            });
            ids.into_inner()
        };
        assert!(last(1).iter().all(|id| !last(2).contains(id)), "{path}: {answer}");
    }
}

#[test]
fn what_is_embedded_or_moderated_opens_no_conversation() {
    for path in ["/v1/embeddings", "/v1/moderations", "/v1/audio/speech", "/v1/rerank"] {
        assert_eq!(key(path, &json!({"model": "m", "input": "some text"})), None, "{path}");
        assert_eq!(key(path, &json!({"model": "m", "input": ["a", "b"]})), None, "{path}");
    }
    assert!(key(RESPONSES, &json!({"model": "m", "input": "some text"})).is_some());
}

#[test]
fn a_conversation_that_was_forgotten_is_bound_anew_once() {
    let turns: Vec<_> = (0..100)
        .map(|at| said(if at % 2 == 0 { "user" } else { "assistant" }, format!("text {at}")))
        .collect();
    for begins in [1, 5, 81] {
        let turns = [begins, begins + 2, begins + 4].map(|messages| chat(&turns[..messages]));
        Bound::default().hang_together(CHAT, &turns);
    }
}

#[test]
fn what_is_seen_or_heard_first_tells_conversations_apart() {
    let long = |end: &str| format!("{}{end}", "A".repeat(200_000));
    let chat_with = |part: Value| chat(&[system(), said("user", json!([part]))]);
    let image = |end: &str| {
        let source = json!({"type": "base64", "media_type": "image/png", "data": long(end)});
        json!({"type": "image", "source": source, "cache_control": {"type": "ephemeral"}})
    };
    let sound = |end: &str| json!({"inlineData": {"mimeType": "audio/wav", "data": long(end)}});
    let file = |end: &str| json!({"type": "input_file", "file_id": end});
    type Wrapped = fn(Value) -> Value;
    let cases: [(&str, Wrapped, [Value; 2]); 3] = [
        (MESSAGES, |part| chat(&[said("user", json!([part]))]), ["1", "2"].map(image)),
        (
            GEMINI,
            |part| json!({"contents": [{"role": "user", "parts": [part]}]}),
            ["1", "2"].map(sound),
        ),
        (RESPONSES, |part| json!({"input": [said("user", json!([part]))]}), ["1", "2"].map(file)),
    ];
    for (path, body, [one, other]) in cases {
        assert!(key(path, &body(one.clone())).is_some());
        assert_ne!(key(path, &body(one)), key(path, &body(other)), "{path}");
    }
    let converse =
        |bytes: &str| chat_with(json!({"image": {"format": "png", "source": {"bytes": bytes}}}));
    assert_ne!(
        key("/model/m/converse", &converse("aGVsbG8x")),
        key("/model/m/converse", &converse("aGVsbG8y"))
    );
    let point = json!({"cachePoint": {"type": "default"}});
    let with = chat(&[said("user", json!([text("Hello"), point]))]);
    assert_eq!(
        key("/model/m/converse", &with),
        key("/model/m/converse", &chat(&[said("user", json!([text("Hello")]))]))
    );
}

#[test]
fn tools_and_their_results_are_no_turns() {
    let question = said("user", "Why does it fail?");
    let call =
        said("assistant", json!([{"type": "tool_use", "id": "t", "name": "run", "input": {}}]));
    let result = |text: &str| {
        said("user", json!([{"type": "tool_result", "tool_use_id": "t", "content": text}]))
    };
    Bound::default().hang_together(
        MESSAGES,
        &[
            chat(std::slice::from_ref(&question)),
            chat(&[question.clone(), call.clone(), result("FAIL")]),
            chat(&[question.clone(), call.clone(), result("FAIL"), call.clone(), result("PASS")]),
        ],
    );
    let asks = json!({"role": "user", "parts": [{"text": "Why?"}]});
    let calls = json!({"role": "model", "parts": [{"functionCall": {"name": "run", "args": {}}}]});
    let gets = json!({"role": "user", "parts": [{"functionResponse": {"name": "run", "response": {"output": "FAIL"}}}]});
    Bound::default().hang_together(
        GEMINI,
        &[json!({"contents": [asks]}), json!({"contents": [asks, calls, gets]})],
    );
    let item =
        |kind: &str| json!({"type": kind, "call_id": "c", "arguments": "{}", "output": "FAIL"});
    Bound::default().hang_together(
        RESPONSES,
        &[
            json!({"input": "Why?"}),
            json!({"input": [said("user", "Why?"), {"type": "reasoning", "summary": []}, item("function_call"), item("function_call_output")]}),
        ],
    );
}

#[test]
fn a_conversation_that_the_provider_keeps_is_not_known_by_what_is_new() {
    let more = [said("user", "continue")];
    for (path, state) in [
        (RESPONSES, json!({"previous_response_id": "resp_1"})),
        (RESPONSES, json!({"conversation": {"id": ""}})),
        ("/v1/interactions", json!({"previous_interaction_id": "v1_1"})),
        (MESSAGES, json!({"thread": {"type": "continue", "previous_message_id": "msg_1"}})),
        (MESSAGES, json!({"thread": {"type": "continue"}})),
    ] {
        let list = if path == MESSAGES { "messages" } else { "input" };
        let mut body = json!({"model": "m", list: more});
        body.as_object_mut().unwrap().extend(state.as_object().unwrap().clone());
        assert_eq!(key(path, &body), None, "{body}");
        let named = json!({"prompt_cache_key": "k", "model": "m", list: more});
        assert!(key(path, &named).is_some(), "another source may name it");
    }
    for state in [json!({"previous_response_id": null}), json!({"thread": {"type": "create"}})] {
        let mut body = chat(&more);
        body.as_object_mut().unwrap().extend(state.as_object().unwrap().clone());
        assert!(key(MESSAGES, &body).is_some(), "{body}: all of it is here");
    }
}

#[test]
fn messages_of_the_user_may_be_merged() {
    let contents = |list: Value| json!({"contents": list});
    let (context, question) = (json!({"text": "<session_context>"}), json!({"text": "Why?"}));
    let apart = contents(
        json!([{"role": "user", "parts": [context]}, {"role": "user", "parts": [question]}]),
    );
    let merged = contents(json!([{"role": "user", "parts": [context, question]}]));
    assert_eq!(key(GEMINI, &apart), key(GEMINI, &merged));
}

#[test]
fn times_in_a_system_prompt_do_not_count() {
    let at = |time: &str, name: &str| {
        chat(&[said("system", format!("Now: {time}. You help {name}.")), said("user", "hi")])
    };
    let key = |time, name| key(CHAT, &at(time, name));
    assert_eq!(key("2026-11-25T18:05:27Z", "Ada"), key("2026-11-25T19:44:01Z", "Ada"));
    assert_ne!(key("18:05", "Ada"), key("18:05", "Eve"));
}

#[test]
fn the_same_words_in_two_apis_are_two_conversations() {
    let words = [said("user", "hi")];
    let keys: BTreeSet<_> = [
        key(CHAT, &chat(&words)),
        key(MESSAGES, &chat(&words)),
        key(RESPONSES, &json!({"input": words})),
    ]
    .into();
    assert_eq!(keys.len(), 3);
}

/// A message as a client may write it just as well: as a string or in parts, its members in another
/// order, with a marker of the prompt cache.
fn rewritten(message: &Value, as_parts: bool, reversed: bool, marked: bool) -> Value {
    let content = match &message["content"] {
        Value::String(string) if as_parts => {
            let mut part = json!({"type": "text", "text": string});
            if marked {
                part["cache_control"] = json!({"type": "ephemeral"});
            }
            json!([part])
        }
        other => other.clone(),
    };
    let members = [("role".to_owned(), message["role"].clone()), ("content".to_owned(), content)];
    let members: Map<_, _> =
        if reversed { members.into_iter().rev().collect() } else { members.into_iter().collect() };
    Value::Object(members)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_conversation_keeps_its_key_however_its_later_turns_are_written(
        question in "[ -~]{1,200}",
        answers in proptest::collection::vec("[ -~]{0,60}", 1..6),
        compacted in any::<bool>(),
        styles in proptest::collection::vec(any::<[bool; 3]>(), 12),
        path in prop_oneof![Just(CHAT), Just(MESSAGES)],
    ) {
        prop_assume!(!question.trim().is_empty());
        let bound = Bound::default();
        let mut messages = vec![said("user", question)];
        bound.knows(path, &chat(&messages));
        for (at, answer) in answers.iter().enumerate() {
            messages.push(said("assistant", answer.as_str()));
            messages.push(said("user", format!("more {at} of {answer}")));
            let kept: &[Value] = if compacted { &messages[messages.len() - 1..] } else { &messages[1..] };
            let written: Vec<_> = messages[..1].iter().chain(kept).zip(styles.iter().cycle())
                .map(|(message, [as_parts, reversed, marked])| rewritten(message, *as_parts, *reversed, *marked))
                .collect();
            let mut body = chat(&written);
            if styles[at][1] {
                body = body.as_object().unwrap().clone().into_iter().rev().collect();
            }
            // Compaction that leaves nothing of the model leaves one long question.
            if !compacted {
                prop_assert_eq!(bound.knows(path, &body), Some(true), "{}", body);
            } else {
                let mut body = body;
                let summary = said("assistant", "Summary of what was done.");
                body["messages"].as_array_mut().unwrap().insert(1, summary);
                prop_assert_eq!(bound.knows(path, &body), Some(true), "{}", body);
            }
        }
    }

    #[test]
    fn different_first_questions_have_different_keys(
        prefix in "[a-z <>]{0,300}",
        one in "[a-z]{1,40}",
        other in "[a-z]{1,40}",
        in_parts in any::<bool>(),
    ) {
        prop_assume!(one != other);
        let body = |question: &str| {
            let content = if in_parts {
                json!([text(&prefix), text(question)])
            } else {
                json!(format!("{prefix}: {question}"))
            };
            chat(&[system(), said("user", content)])
        };
        prop_assert_ne!(key(CHAT, &body(&one)), key(CHAT, &body(&other)));
    }
}
