//! The JSON Schemas and the parsers say the same of a document.

#![recursion_limit = "256"]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;

use envoy_config::{EnvoyConfig, schema};
use envoy_harness::{Mode, project_root};
use jsonschema::Validator;
use serde_json::{Value, json};
use session_affinity::Config;

/// A configuration of the filter in which every key occurs.
fn everything() -> Value {
    json!({
        "profile": "recommended", "mode": "route",
        "routing": {
            "strategy": "fill-first", "session_affinity": true, "claude_code_session_affinity": true,
            "session-affinity-ttl": "1h30m", "max_rotations": 7, "header": "x-cluster", "seed": "s", "filter_state": "cluster",
        },
        "session": {
            "max_bindings": 1024,
            "sources": ["claude-code-header", {"name": "own", "header": "x-own", "json": "a.b", "pattern": "(.*)"}, {"body": "a.b"}],
            "scope": [{"header": "x-tenant", "required": true}, {"property": ["a", "b"]}],
            "subagents": "own", "strict": false,
        },
        "body": {"max_bytes": 4096, "read": "needed"},
        "failover": {
            "max_attempts": 2, "return": "always", "give_up_after": "90s", "first_event": {"wait": "1s", "bytes": 0},
            "ciphertext": "any",
        },
        "disable_cooling": false,
        "cooldown": {
            "max": "1h", "max_told": "2h", "transient": "1s", "denied": "1.5h", "not_found": "1m",
            "statuses": {"418": "transient", "0": "denied"},
            "rules": [
                {"provider": "p", "status": 429, "code": "c", "class": "rate_limit", "scope": "model", "wait": "1s"},
                {"header": "x-a", "value": "v", "class": "denied"},
                {"contains": "text", "class": "denied"},
            ],
        },
        "pins": {"max": 0, "kinds": ["responses"], "when_blocked": "wait"},
        "observe": {
            "usage": "plain", "by_credential": true, "decision": "always",
            "prices": {
                "currency": "EUR",
                "of": [{"models": ["m*"], "input": 3, "cache_read": 0.3, "cache-write": 3.75, "output": 15}],
            },
        },
        "operator": {"hosts": ["operator.example"]},
        "privacy": {"hide_account_headers": true},
        "pools": [{
            "name": "p", "provider": "claude",
            "match": {
                "path_prefixes": ["/v1"], "methods": ["POST"], "hosts": ["*.a"], "headers": [{"name": "x-a", "value": "b"}],
                "models": ["m*"],
            },
            "session": {"strict": true}, "cache_lifetime": "5m",
            "credentials": [
                {
                    "id": "a", "cluster": "c", "priority": 1, "weight": 2, "disable_cooling": true, "parent": "o", "group": "g",
                    "websockets": true, "state": "drain", "endpoint": "10.0.0.1:80",
                    "headers": [
                        {"name": "x-api-key", "environment": "KEY", "prefix": "Bearer "}, {"name": "x-b", "header": "x-c"},
                    ],
                },
            ],
        }],
    })
}

/// Pools for the generator in which every key occurs.
fn every_field() -> Value {
    let mut filter = everything();
    filter.as_object_mut().unwrap().remove("pools");
    json!({
        "$schema": "x", "listener": "127.0.0.1:1", "admin": "[::1]:2", "operator": "[::1]:3", "stats": "0.0.0.0:4", "module": "m", "ca_certificates": "c",
        "secrets": "/s", "clients": {"jwt": {"issuer": "i", "audiences": ["a"], "jwks": "https://a/jwks", "claim": "c"}},
        "show_decision": true, "max_connections": 1, "max_heap_bytes": 1, "filter": filter,
        "pools": [
            {
                "name": "p", "provider": "claude", "mode": "clusters", "match": [{"path_prefixes": ["/v1"]}],
                "session": {"strict": true}, "cache_lifetime": "5m", "upstream": "https://a/v1", "key_header": "x-api-key",
                "credentials": [{
                    "id": "a", "key": "A", "priority": 1, "weight": 2, "disable_cooling": true, "parent": "o", "group": "g",
                    "websockets": true, "state": "drain",
                    "upstream": {
                        "url": "https://10.0.0.1/x/v1", "sni": "a", "ca_certificates": "/c", "http2": true, "replaces": "/v1",
                        "idle_timeout": "4s",
                    },
                }],
            },
            {"name": "q", "mode": "replicas", "credentials": [{"id": "r", "endpoint": "10.0.0.1:80"}]},
            {
                "name": "s", "api": "bedrock", "match": {"models": ["m*"]},
                "credentials": [{
                    "id": "t", "upstream": "https://a",
                    "aws": {"region": "r", "service": "s", "credentials_file": "/f", "profile": "p"},
                }],
            },
        ],
    })
}

fn is_configuration(value: &Value) -> bool {
    Config::parse_with(value.to_string().as_bytes(), &|_| Some("key".to_owned())).is_ok()
}

fn is_input(value: &Value) -> bool {
    EnvoyConfig::parse(&value.to_string(), Mode::Clusters).is_ok()
}

/// What a schema does not see: what a regular expression means, and what depends on the mode.
const UNKNOWABLE: [&str; 9] = [
    "sources/1/pattern = \"§\"",
    "- /pools/0/key_header",
    "- /pools/0/credentials/0/key",
    "- /pools/0/credentials/0/upstream/sni",
    "- /pools/0/upstream",
    "- /pools/1/mode",
    "- /pools/1/credentials/0/endpoint",
    "/pools/2/match = []",
    "- /pools/2/credentials/0/upstream",
];

/// The document with one thing changed, at every place: another value, an unknown key, a key less.
fn changed(document: &Value) -> Vec<(String, Value)> {
    let mut pointers = Vec::new();
    collect(document, String::new(), &mut pointers);
    let mut found = Vec::new();
    for pointer in pointers {
        let others =
            [json!(true), json!(-7), json!(1.5), json!("§"), json!(""), json!([]), json!({})];
        for other in others {
            let mut changed = document.clone();
            *changed.pointer_mut(&pointer).unwrap() = other.clone();
            found.push((format!("{pointer} = {other}"), changed));
        }
        let mut changed = document.clone();
        if let Some(members) = changed.pointer_mut(&pointer).unwrap().as_object_mut() {
            members.insert("unknown".to_owned(), json!(1));
            found.push((format!("{pointer} + unknown"), changed));
        }
        let (parent, name) = pointer.rsplit_once('/').unwrap_or_default();
        let mut changed = document.clone();
        if let Some(members) = changed.pointer_mut(parent).and_then(Value::as_object_mut) {
            members.remove(name);
            found.push((format!("- {pointer}"), changed));
        }
    }
    found
}

fn collect(value: &Value, pointer: String, pointers: &mut Vec<String>) {
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(name, value)| collect(value, format!("{pointer}/{name}"), pointers)),
        Value::Array(elements) => elements
            .iter()
            .enumerate()
            .for_each(|(index, value)| collect(value, format!("{pointer}/{index}"), pointers)),
        _ => {}
    }
    pointers.push(pointer);
}

/// What the two say differently, but for what a schema cannot know.
fn differences(
    document: &Value,
    validator: &Validator,
    parses: impl Fn(&Value) -> bool,
    unknowable: &[&str],
) -> Vec<String> {
    let problems: Vec<_> = validator.iter_errors(document).map(|it| it.to_string()).collect();
    assert!(problems.is_empty(), "{problems:#?}");
    assert!(parses(document));
    let cases = changed(document);
    assert!(cases.len() > 500);
    let differ = cases.iter().filter(|(_, value)| validator.is_valid(value) != parses(value));
    differ
        .map(|(change, value)| format!("{change}: schema {}", validator.is_valid(value)))
        .filter(|it| !unknowable.iter().any(|known| it.contains(known)))
        .collect()
}

#[test]
fn the_schema_of_the_filter_says_what_its_parser_says() {
    let validator = jsonschema::validator_for(&schema::of_filter()).unwrap();
    let found = differences(&everything(), &validator, is_configuration, &UNKNOWABLE);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_schema_of_the_input_says_what_its_parser_says() {
    let validator = jsonschema::validator_for(&schema::of_providers()).unwrap();
    let found = differences(&every_field(), &validator, is_input, &UNKNOWABLE);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_example_fits_the_schema() {
    let validator = jsonschema::validator_for(&schema::of_providers()).unwrap();
    for name in ["providers.json", "replicas.json", "mixed.yaml"] {
        let text = fs::read_to_string(project_root().join("examples").join(name)).unwrap();
        let value: Value = serde_saphyr::from_str(&text).unwrap();
        let problems: Vec<_> = validator.iter_errors(&value).map(|it| it.to_string()).collect();
        assert!(problems.is_empty(), "{name}: {problems:#?}");
    }
}

#[test]
fn the_files_are_what_the_program_prints() {
    for (name, value) in [("providers", schema::of_providers()), ("filter", schema::of_filter())] {
        let path = project_root().join(format!("schema/{name}.schema.json"));
        let text = fs::read_to_string(path).unwrap();
        assert_eq!(text, schema::text(&value), "session-affinity-config schema {name} prints it");
    }
}

/// The keys that the parsers of the filter ask for, as their source names them.
#[test]
fn no_key_of_the_filter_is_missing_in_its_schema() {
    let mut known = BTreeSet::new();
    names(&schema::of_filter(), &mut known);
    let getters = [
        "string",
        "required_string",
        "word",
        "required_word",
        "header_name",
        "required_header_name",
        "attribute",
        "boolean",
        "one_of",
        "duration",
        "integer",
        "integer_within",
        "number_within",
        "object",
        "one_or_more",
        "array",
        "strings",
    ];
    let mut asked = BTreeSet::new();
    for entry in fs::read_dir(project_root().join("src/config")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let (text, _) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
        for getter in getters {
            let call = format!(".{getter}(\"");
            let calls = text.split(&call).skip(1);
            asked.extend(
                calls.filter_map(|rest| rest.split_once('"')).map(|(name, _)| name.to_owned()),
            );
        }
    }
    assert!(asked.len() > 50, "{asked:?}");
    let missing: Vec<_> = asked.difference(&known).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn names(schema: &Value, known: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                known.extend(properties.keys().cloned());
            }
            members.values().for_each(|value| names(value, known));
        }
        Value::Array(elements) => elements.iter().for_each(|value| names(value, known)),
        _ => {}
    }
}
