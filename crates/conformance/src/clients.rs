//! Requests as real clients write them, in both profiles.
//!
//! A recorded id that a client sent is expected as it is. A recorded hash (`msg:…`) is that of the
//! profile `reference`, and binds that one only. In the profile `recommended` the hash has to do
//! what it is for: the turns of a conversation hang together, different conversations have
//! different keys, and what refers to a conversation that the provider keeps has no hash at all.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use session_affinity::api::model_in_path;
use session_affinity::body::{Body, Paths};
use session_affinity::request::{Headers, Request};
use session_affinity::session::Sources;

use super::case;
use super::identity::{equal, identify, readable};
use super::{Outcome, Verdict};

/// Where a body has the beginning of its conversation.
const OPENINGS: [&str; 6] =
    ["system", "messages", "systemInstruction", "contents", "instructions", "input"];

/// All requests of a file. A group is a client in a profile.
pub(super) fn check(cases: &[Value]) -> Vec<Outcome> {
    let mut recommended = Recommended::new(cases);
    // Conversations run side by side: all first turns, then all second ones.
    let mut order: Vec<usize> = (0..cases.len()).collect();
    order.sort_by_key(|&line| cases[line]["turn"].as_u64().unwrap_or(0));
    let mut outcomes: Vec<_> = order
        .into_iter()
        .flat_map(|line| {
            let client = case::text(&cases[line], "client");
            let outcome = |profile, verdict| Outcome {
                line,
                group: format!("{client} ({profile})"),
                verdict,
            };
            [
                outcome("recommended", recommended.check(line)),
                outcome("reference", check_reference(&cases[line])),
            ]
        })
        .collect();
    outcomes.sort_by_key(|outcome| outcome.line);
    outcomes
}

fn check_reference(case: &Value) -> Verdict {
    let mut paths = Paths::default();
    let sources = Sources::reference(&mut paths);
    let (key, fallback) = identify(&sources, &paths, &case::headers(case), &body(case));
    let keys: Vec<_> = [key, fallback].into_iter().filter(|key| !key.is_empty()).collect();
    equal(&case["reference_keys"], &json!(keys))
}

/// The profile `recommended`, with what it has bound so far.
struct Recommended<'c> {
    cases: &'c [Value],
    paths: Paths,
    sources: Sources,
    /// The keys of each conversation, in the order in which they were bound.
    keys: BTreeMap<&'c str, Vec<String>>,
    /// Conversations in which a turn ends in a text that is not what the client wrote: a later turn
    /// has that text in another form, so nothing in the record says that the two belong together.
    illegible: BTreeSet<&'c str>,
    /// The line that bound a key for a model.
    owners: BTreeMap<(String, String), usize>,
}

impl<'c> Recommended<'c> {
    fn new(cases: &'c [Value]) -> Self {
        let mut paths = Paths::default();
        let sources = Sources::recommended(&mut paths);
        let (keys, illegible, owners) = Default::default();
        Self { cases, paths, sources, keys, illegible, owners }
    }

    fn check(&mut self, line: usize) -> Verdict {
        let case = &self.cases[line];
        let (headers, body) = (case::headers(case), body(case));
        let expected = case::text(case, "expected_key");
        if !expected.is_empty() && !expected.starts_with("msg:") {
            let (key, fallback) = identify(&self.sources, &self.paths, &headers, &body);
            let fallbacks: Vec<_> =
                Some(fallback).filter(|it| !it.is_empty()).into_iter().collect();
            return equal(expected, &*key)
                .and_then(|()| equal(&case["expected_fallbacks"], &json!(fallbacks)));
        }
        let key = self.key(&headers, &body);
        if let Some(state) = state_elsewhere(case) {
            return match key {
                Some(key) if key.starts_with("msg:") => {
                    Err(format!("refers to {state}, so it must not go by the hash {key}"))
                }
                _ => Ok(()),
            };
        }
        match key {
            None if expected.is_empty() => Ok(()),
            None => Err("no session".to_owned()),
            Some(key) if expected.is_empty() => Err(format!("expected no session, got {key}")),
            Some(key) => self.hangs_together(line, &key).and(self.is_apart(line, key)),
        }
    }

    /// The key that the filter binds a request under, given what it has bound before.
    fn key(&self, headers: &Headers, body: &[u8]) -> Option<String> {
        let request = Request::new(headers, Body::read(&self.paths, body));
        let is_bound = |id: &[u8]| self.keys.values().flatten().any(|key| key.as_bytes() == id);
        let session = self.sources.identify_bound(&request, Some(&is_bound))?;
        Some(readable(session.primary))
    }

    fn hangs_together(&mut self, line: usize, key: &String) -> Verdict {
        let case = &self.cases[line];
        let conversation = case::text(case, "conversation");
        let is_legible = !self.illegible.contains(conversation);
        if last_words_are_replaced(case) {
            self.illegible.insert(conversation);
        }
        let earlier = self.keys.entry(conversation).or_default();
        let hangs = earlier.is_empty() || earlier.contains(key) || !is_legible;
        let verdict = if hangs {
            Ok(())
        } else {
            Err(format!(
                "turn {} of the conversation {conversation:?} has the key {key}, its earlier turns have {}",
                case["turn"],
                earlier.join(", ")
            ))
        };
        if !earlier.contains(key) {
            earlier.push(key.clone());
        }
        verdict
    }

    fn is_apart(&mut self, line: usize, key: String) -> Verdict {
        let case = &self.cases[line];
        let owner = *self.owners.entry((key.clone(), model(case))).or_insert(line);
        let owner = &self.cases[owner];
        let [name, other] = [case, owner].map(|case| case::text(case, "conversation"));
        // What is equal to the last byte cannot be told apart.
        if name == other || OPENINGS.iter().all(|it| case["body"][it] == owner["body"][it]) {
            return Ok(());
        }
        Err(format!("the conversations {other:?} and {name:?} have one key {key}"))
    }
}

/// The state of the provider that a request goes on with, if it brings along only what is new.
fn state_elsewhere(case: &Value) -> Option<&str> {
    let pins = case["expected_pins"].as_array().into_iter().flatten();
    pins.filter_map(Value::as_str).find(|pin| pin.starts_with("resp:") || pin.starts_with("conv:"))
}

/// Whether the last message is a placeholder: who recorded it kept its length alone.
fn last_words_are_replaced(case: &Value) -> bool {
    let messages = case["body"]["messages"].as_array().and_then(|messages| messages.last());
    let text = messages.and_then(|last| last["content"].as_str()).unwrap_or_default();
    text.starts_with("Invented user text:") && text.contains("It stands for")
}

/// The model that a request asks for: it is a part of what a binding is kept under.
fn model(case: &Value) -> String {
    let path = case::text(case, "path").split('?').next().unwrap_or_default();
    match case["body"]["model"].as_str() {
        Some(model) => model.to_owned(),
        None => model_in_path(path).unwrap_or_default(),
    }
}

/// An object with its members in the order of the client, which `serde_json` keeps.
fn body(case: &Value) -> Vec<u8> {
    match &case["body"] {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        value => value.to_string().into_bytes(),
    }
}
