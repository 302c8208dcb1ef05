//! What the filter accepts as a configuration, and what it says about the rest.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};
use session_affinity::config::{Config, State, Strategy};

/// The least that starts.
fn minimal() -> Value {
    json!({"pools": [{"name": "p", "provider": "claude", "credentials": [{"id": "a", "cluster": "cluster_a"}]}]})
}

fn parse(value: &Value) -> Config {
    Config::parse(value.to_string().as_bytes()).unwrap_or_else(|problems| panic!("{:#?}", problems.lines()))
}

fn problems(value: &Value) -> Vec<String> {
    match Config::parse(value.to_string().as_bytes()) {
        Ok(config) => panic!("accepted: {config:#?}"),
        Err(problems) => problems.lines().to_vec(),
    }
}

fn with(section: &str, value: Value) -> Value {
    let mut config = minimal();
    config[section] = value;
    config
}

#[test]
fn defaults_are_as_documented() {
    let config = parse(&minimal());
    assert_eq!(config.routing.strategy, Strategy::RoundRobin);
    assert!(config.routing.session_affinity, "loading the filter is the opt-in");
    assert_eq!(config.routing.ttl, 3_600_000);
    assert_eq!(config.routing.header, "x-session-affinity-cluster");
    assert_eq!(config.routing.filter_state, "session_affinity.cluster");
    assert_eq!((config.session.max_bindings, config.body.max_bytes), (65_536, 8 << 20));
    let credential = &config.pools[0].credentials[0];
    assert_eq!((credential.priority, credential.websockets, credential.state), (0, false, State::Active));
    assert_eq!(credential.parent, None);
    assert!(config.warnings.is_empty());
}

#[test]
fn kebab_case_is_the_same_key() {
    let config = parse(&with("routing", json!({"session-affinity": false, "session-affinity-ttl": "90s"})));
    assert!(!config.routing.session_affinity);
    assert_eq!(config.routing.ttl, 90_000);
}

#[test]
fn a_key_in_both_spellings_is_an_error() {
    assert_eq!(
        problems(&with("routing", json!({"session-affinity": false, "session_affinity": true}))),
        ["routing.session_affinity: given twice, with `-` and with `_`"]
    );
}

#[test]
fn strategies_have_the_references_spellings() {
    for (name, expected) in [
        ("round-robin", Strategy::RoundRobin),
        ("fill-first", Strategy::FillFirst),
        ("fillfirst", Strategy::FillFirst),
        (" FF ", Strategy::FillFirst),
    ] {
        assert_eq!(parse(&with("routing", json!({"strategy": name}))).routing.strategy, expected, "{name}");
    }
}

#[test]
fn the_deprecated_alias_works_and_is_warned_of() {
    let config = parse(&with("routing", json!({"claude-code-session-affinity": true, "session-affinity": false})));
    assert!(config.routing.session_affinity, "either of them turns affinity on, as in the reference");
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].contains("deprecated"));
    assert!(!parse(&with("routing", json!({"claude_code_session_affinity": false}))).routing.session_affinity);
}

#[test]
fn credentials_are_sorted_by_id() {
    let mut config = minimal();
    config["pools"][0]["credentials"] =
        json!([{"id": "b", "cluster": "x"}, {"id": "B", "cluster": "y"}, {"id": "a", "cluster": "z"}]);
    let ids: Vec<_> = parse(&config).pools[0].credentials.iter().map(|credential| credential.id.clone()).collect();
    assert_eq!(ids, ["B", "a", "b"]);
}

#[test]
fn a_whole_number_may_be_written_as_a_double() {
    let config = Config::parse(
        minimal().to_string().replace("\"pools\"", "\"body\":{\"max_bytes\":1e+06},\"pools\"").as_bytes(),
    );
    assert_eq!(config.unwrap().body.max_bytes, 1_000_000);
}

#[test]
fn all_problems_are_reported_at_once_each_with_its_path() {
    let config = json!({
        "routing": {"strategy": "random", "session_affinity": "yes", "session_affinity_ttl": "1 hour", "header": ":path", "colour": 1},
        "session": {"max_bindings": 0},
        "body": {"max_bytes": 1.5},
        "pools": [
            {
                "name": "p",
                "provider": "",
                "match": {"path_prefixes": "/v1", "hosts": [1], "headers": [{"value": "x"}], "paths": []},
                "credentials": [
                    {"id": "a", "cluster": "c", "priority": "high"},
                    {"id": "a", "cluster": "two words", "state": "sleeping"},
                    {"cluster": 7, "websockets": 1},
                    "b"
                ]
            },
            {"name": "p", "provider": "q", "credentials": []}
        ],
        "extra": null
    });
    assert_eq!(
        problems(&config),
        [
            "routing.strategy: expected round-robin, fill-first or consistent, found \"random\"",
            "routing.session_affinity: expected true or false, found a string",
            "routing.session_affinity_ttl: expected a duration such as 1h, 90s or 1h30m, found \"1 hour\"",
            "routing.header: expected the name of a request header",
            "routing.colour: unknown key",
            "session.max_bindings: expected 16 to 16777216, found 0",
            "body.max_bytes: expected an integer, found 1.5",
            "pools[0].provider: expected a string that is not empty",
            "pools[0].match.path_prefixes: expected an array, found a string",
            "pools[0].match.hosts[0]: expected a string that is not empty, found 1",
            "pools[0].match.headers[0].name: required",
            "pools[0].match.paths: unknown key",
            "pools[0].credentials[0].priority: expected an integer, found a string",
            "pools[0].credentials[1].cluster: expected at most 256 visible ASCII characters, without blanks",
            "pools[0].credentials[1].state: expected one of active, drain, disabled, found \"sleeping\"",
            "pools[0].credentials[1].id: \"a\" is the id of an earlier credential of this pool",
            "pools[0].credentials[2].id: required",
            "pools[0].credentials[2].cluster: expected a string, found 7",
            "pools[0].credentials[2].websockets: expected true or false, found 1",
            "pools[0].credentials[3]: expected an object, found a string",
            "pools[1].credentials: expected at least one credential",
            "pools[1].name: \"p\" is the name of an earlier pool",
            "extra: unknown key",
        ]
    );
}

#[test]
fn what_is_no_object_is_one_problem() {
    assert_eq!(problems(&json!([]))[0], "configuration: expected an object, found an array");
    let not_json = Config::parse(b"{pools}").unwrap_err();
    assert!(not_json.lines()[0].starts_with("configuration: not JSON: "), "{not_json:?}");
}

#[test]
fn an_empty_configuration_says_what_is_missing() {
    assert_eq!(Config::parse(b"").unwrap_err().lines(), ["pools: expected at least one pool"]);
}

#[test]
fn the_profile_reference_has_the_references_defaults() {
    let config = parse(&with("profile", json!("reference")));
    assert!(!config.routing.session_affinity);
    assert!(config.body.always_read);
}

#[test]
fn problems_of_sources_and_scope_have_their_paths() {
    let session = json!({
        "sources": [
            "x-session-id",
            {"header": "a b"},
            {"header": "x", "body": "y"},
            {"body": "a..b"},
            {"header": "x", "pattern": "(a)(b)"},
            {"header": "x", "pattern": "("},
            {"name": "x"},
            7
        ],
        "scope": [{"header": "x", "property": ["y"]}, {"property": "connection.mtls"}, {}]
    });
    let found = problems(&with("session", session));
    let expected = [
        "session.sources[0]: \"x-session-id\" is none of the built-in sources claude-code-header, claude-code, session-id-header",
        "session.sources[1].header: expected the name of a request header",
        "session.sources[1]: expected either `header` or `body`",
        "session.sources[2]: expected either `header` or `body`",
        "session.sources[3].body: expected 1 to 16 names, parted by dots",
        "session.sources[4].pattern: expected an expression with exactly one group",
        "session.sources[5].pattern: not a regular expression: ",
        "session.sources[6]: expected either `header` or `body`",
        "session.sources[7]: expected an object, found 7",
        "session.scope[0]: expected either `header` or `property` (an array of strings)",
        "session.scope[1].property: expected an array, found a string",
        "session.scope[1]: expected either `header` or `property` (an array of strings)",
        "session.scope[2]: expected either `header` or `property` (an array of strings)",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for problem in expected {
        assert!(found.iter().any(|line| line.starts_with(problem)), "{problem}\nis not in {found:#?}");
    }
}
