//! What the filter accepts as a configuration, and what it says about the rest.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use serde_json::{Value, json};
use session_affinity::config::{
    Availability, Config, HeaderValue, Return, Strategy, UsageReading, Words,
};
use session_affinity::outcome::TokenType;

/// The least that starts.
fn minimal() -> Value {
    json!({"pools": [{"name": "p", "provider": "claude", "credentials": [{"id": "a", "cluster": "cluster_a"}]}]})
}

fn parse(value: &Value) -> Config {
    Config::parse(value.to_string().as_bytes())
        .unwrap_or_else(|problems| panic!("{:#?}", problems.lines()))
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
    assert_eq!(config.routing.ttl, Duration::from_hours(1));
    assert_eq!(config.routing.header, "x-session-affinity-cluster");
    assert_eq!(config.routing.filter_state, "session_affinity.cluster");
    assert_eq!((config.session.max_bindings, config.body.max_bytes), (65_536, 8 << 20));
    let credential = &config.pools[0].credentials[0];
    assert_eq!(
        (credential.priority, credential.websockets, credential.availability),
        (0, false, Availability::Active)
    );
    assert_eq!(
        (&credential.parent, &credential.endpoint, credential.headers.len()),
        (&None, &None, 0)
    );
    assert_eq!((config.failover.max_attempts, config.failover.returns), (3, Return::WhileWarm));
    assert_eq!((config.pools[0].strict, config.pools[0].cache_lifetime), (false, None));
    assert!(config.warnings.is_empty());
}

#[test]
fn what_is_shown_depends_on_the_section_observe() {
    let shown = |value| parse(&with("observe", value)).observe;
    assert_eq!((shown(json!({})).decision, shown(json!({})).by_credential), (Words::Always, true));
    assert_eq!(shown(json!({"decision": "on_change"})).decision, Words::OnChange);
    assert_eq!(shown(json!({"decision": "off"})).decision, Words::Off);
    let credentials: Vec<_> =
        (0..65).map(|at| json!({"id": format!("c{at}"), "cluster": "c"})).collect();
    let mut many = with("pools", json!([{"name": "p", "credentials": credentials}]));
    assert!(!parse(&many).observe.by_credential, "too many to count one by one");
    many["observe"] = json!({"by_credential": true});
    assert!(parse(&many).observe.by_credential);
    let problems = problems(&with("observe", json!({"decision": "sometimes", "colour": 1})));
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn a_shadow_needs_a_cluster_for_each_credential() {
    assert!(!parse(&minimal()).is_shadow);
    let mut shadow = with("mode", json!("shadow"));
    assert!(parse(&shadow).is_shadow);
    shadow["pools"][0]["credentials"] =
        json!([{"id": "a", "cluster": "one"}, {"id": "b", "cluster": "one"}]);
    let found = problems(&shadow);
    assert!(found[0].contains("several of pool p have one"), "{found:?}");
    shadow["mode"] = json!("route");
    assert!(!parse(&shadow).is_shadow);
    assert_eq!(problems(&with("mode", json!("dark"))).len(), 1);
}

#[test]
fn kebab_case_is_the_same_key() {
    let config =
        parse(&with("routing", json!({"session-affinity": false, "session-affinity-ttl": "90s"})));
    assert!(!config.routing.session_affinity);
    assert_eq!(config.routing.ttl, Duration::from_secs(90));
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
        ("headroom", Strategy::Headroom),
        ("fill-first", Strategy::FillFirst),
        ("fillfirst", Strategy::FillFirst),
        (" FF ", Strategy::FillFirst),
    ] {
        assert_eq!(
            parse(&with("routing", json!({"strategy": name}))).routing.strategy,
            expected,
            "{name}"
        );
    }
}

#[test]
fn the_deprecated_alias_works_and_is_warned_of() {
    let config = parse(&with(
        "routing",
        json!({"claude-code-session-affinity": true, "session-affinity": false}),
    ));
    assert!(
        config.routing.session_affinity,
        "either of them turns affinity on, as in the reference"
    );
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].contains("deprecated"));
    assert!(
        !parse(&with("routing", json!({"claude_code_session_affinity": false})))
            .routing
            .session_affinity
    );
}

#[test]
fn credentials_are_sorted_by_id() {
    let mut config = minimal();
    config["pools"][0]["credentials"] = json!([{"id": "b", "cluster": "x"}, {"id": "B", "cluster": "y"}, {"id": "a", "cluster": "z"}]);
    let ids: Vec<_> = parse(&config).pools[0]
        .credentials
        .iter()
        .map(|credential| credential.id.clone())
        .collect();
    assert_eq!(ids, ["B", "a", "b"]);
}

#[test]
fn a_whole_number_may_be_written_as_a_double() {
    let config = Config::parse(
        minimal()
            .to_string()
            .replace("\"pools\"", "\"body\":{\"max_bytes\":1e+06},\"pools\"")
            .as_bytes(),
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
            "routing.strategy: expected round-robin, fill-first, consistent or headroom, found \"random\"",
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
            "pools[0].credentials[1].cluster: expected at most 256 visible ASCII characters, without spaces",
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
        "session.sources[3].body: expected 1 to 16 names, separated by dots",
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
        assert!(
            found.iter().any(|line| line.starts_with(problem)),
            "{problem}\nis not in {found:#?}"
        );
    }
}

#[test]
fn failover_is_configured_for_all_and_strictness_for_each_pool() {
    let mut value = with("failover", json!({"max_attempts": 5, "return": "always"}));
    value["session"] = json!({"strict": true});
    value["pools"][0]["session"] = json!({"strict": false});
    value["pools"][0]["cache_lifetime"] = json!("10m");
    let config = parse(&value);
    assert_eq!((config.failover.max_attempts, config.failover.returns), (5, Return::Always));
    assert_eq!(
        (config.pools[0].strict, config.pools[0].cache_lifetime),
        (false, Some(Duration::from_mins(10)))
    );
    value["pools"][0].as_object_mut().unwrap().remove("session");
    assert!(parse(&value).pools[0].strict);
}

#[test]
fn in_the_reference_nobody_returns() {
    let mut value = with("failover", json!({"return": "while-warm"}));
    value["profile"] = json!("reference");
    assert_eq!(
        problems(&value),
        ["failover.return: in the profile reference a session that has moved never returns"]
    );
    value["failover"] = json!({});
    assert_eq!(parse(&value).failover.returns, Return::Never);
}

#[test]
fn the_problems_of_failover_have_their_paths() {
    let mut value =
        with("failover", json!({"max_attempts": 0, "return": "sometimes", "retries": 3}));
    value["session"] = json!({"strict": "yes"});
    value["pools"][0]["cache_lifetime"] = json!("soon");
    value["pools"][0]["session"] = json!({"max_bindings": 1});
    value["pools"][0]["credentials"][0]["endpoint"] = json!("replica-a:8000");
    value["pools"][0]["credentials"][0]["headers"] = json!([
        {"environment": "KEY"},
        {"name": "x-api-key"},
        {"name": "x-api-key", "header": "x-key", "environment": "KEY"},
        {"name": ":path", "header": "x-key"},
        {"name": "authorization", "header": "x-key"},
        {"name": "Authorization", "header": "x-key"},
        {"name": "x-api-key", "environment": "KEY"},
    ]);
    let not_set = "KEY is not set, or not listed in vm_config.environment_variables.host_env_keys";
    let headers = "pools[0].credentials[0].headers";
    assert_eq!(
        problems(&value),
        [
            "session.strict: expected true or false, found a string".to_owned(),
            "failover.max_attempts: expected 1 to 16, found 0".to_owned(),
            "failover.return: expected one of while-warm, always, never, found \"sometimes\"".to_owned(),
            "failover.retries: unknown key".to_owned(),
            "pools[0].credentials[0].endpoint: expected an IP address and a port, such as 10.0.0.1:8000".to_owned(),
            format!("{headers}[0].name: required"),
            format!("{headers}[0].environment: {not_set}"),
            format!("{headers}[1]: expected either `environment` or `header`"),
            format!("{headers}[2]: expected either `environment` or `header`"),
            format!("{headers}[3].name: expected the name of a request header"),
            format!("{headers}[5].name: an earlier header of this credential has this name"),
            format!("{headers}[6].environment: {not_set}"),
            "pools[0].session.max_bindings: unknown key".to_owned(),
            "pools[0].cache_lifetime: expected a duration such as 1h, 90s or 1h30m, found \"soon\"".to_owned(),
        ]
    );
}

#[test]
fn keys_come_from_the_environment_and_are_never_printed() {
    let mut value = minimal();
    value["pools"][0]["credentials"][0]["headers"] = json!([
        {"name": "Authorization", "prefix": "Bearer ", "environment": "KEY"},
        {"name": "x-api-key", "header": "X-Injected"},
    ]);
    let parse = |key: &'static str| {
        Config::parse_with(value.to_string().as_bytes(), &|_| Some(key.to_owned()))
    };
    let config = parse("sk-secret\n").unwrap();
    let pool = &config.pools[0];
    let HeaderValue::Secret(secret) = &pool.credentials[0].headers[0].value else {
        panic!("no secret")
    };
    assert_eq!(secret.expose(), "Bearer sk-secret");
    assert_eq!(pool.key_headers, ["authorization", "x-api-key"]);
    assert_eq!(pool.source_headers, ["x-injected"]);
    assert!(!format!("{config:#?}").contains("sk-secret"));

    for (key, problem) in
        [("", "is not set"), ("sk\u{7}", "holds bytes that no header value may have")]
    {
        let problems = parse(key).unwrap_err();
        assert!(problems.lines().iter().any(|line| line.contains(problem)), "{problems:?}");
        assert!(!format!("{problems:?}").contains("sk"), "{problems:?}");
    }
}

#[test]
fn responses_are_read_for_what_they_cost_unless_the_profile_is_the_references() {
    assert_eq!(parse(&minimal()).observe.usage, UsageReading::Identity);
    for (word, expected) in [
        ("off", UsageReading::Off),
        ("plain", UsageReading::Plain),
        ("identity", UsageReading::Identity),
    ] {
        let config = parse(&with("observe", json!({"usage": word})));
        assert_eq!(config.observe.usage, expected);
    }
    let mut config = with("profile", json!("reference"));
    assert_eq!(parse(&config).observe.usage, UsageReading::Off);
    config["observe"] = json!({"usage": "plain"});
    assert_eq!(problems(&config), ["observe.usage: the profile reference reads no usage"]);
}

#[test]
fn prices_are_the_operators_and_the_first_that_fits_counts() {
    let opus = json!({"pools": ["p"], "models": ["*opus*"], "input": 5, "cache_read": 0.5,
        "cache_write": 6.25, "output": 25});
    let rest = json!({"input": 3, "cache_read": 0.3, "cache_write": 3.75, "output": 15});
    let prices = json!({"currency": "EUR", "of": [opus, rest]});
    let prices = parse(&with("observe", json!({"prices": prices}))).observe.prices;
    let million = |pool, model| {
        let price = prices.find(pool, model).unwrap();
        TokenType::ALL.map(|kind| price.of([(kind, 1_000_000)].into_iter()))
    };
    assert_eq!(prices.currency, "EUR");
    assert_eq!(million("p", "claude-opus-5"), [5_000_000, 500_000, 6_250_000, 25_000_000]);
    for (pool, model) in [("p", "claude-sonnet-5"), ("q", "claude-opus-5"), ("p", "")] {
        assert_eq!(million(pool, model), [3_000_000, 300_000, 3_750_000, 15_000_000]);
    }
    assert_eq!(parse(&minimal()).observe.prices.find("p", "claude-opus-5"), None);
}

/// Envoy makes a text of `cache_read: 0.3`, if its configuration is YAML.
#[test]
fn a_price_with_a_fraction_may_be_a_text() {
    let price = json!({"input": 3, "cache_read": "0.3", "cache_write": "3.75", "output": "1e1"});
    let prices = json!({"currency": "EUR", "of": [price]});
    let prices = parse(&with("observe", json!({"prices": prices}))).observe.prices;
    let price = prices.find("p", "claude-opus-5").unwrap();
    let million = TokenType::ALL.map(|kind| price.of([(kind, 1_000_000)].into_iter()));
    assert_eq!(million, [3_000_000, 300_000, 3_750_000, 10_000_000]);
}

#[test]
fn prices_that_cannot_be_are_refused() {
    let of = json!([{"pools": ["q"], "input": -1, "cache_read": "NaN", "cache_write": 1e9}]);
    assert_eq!(
        problems(&with("observe", json!({"prices": {"of": of}}))),
        [
            "observe.prices.currency: required",
            "observe.prices.of[0].input: expected 0 to 1000000, found -1",
            "observe.prices.of[0].cache_read: expected 0 to 1000000, found a string",
            "observe.prices.of[0].cache_write: expected 0 to 1000000, found 1000000000.0",
            "observe.prices.of[0].output: required",
            "observe.prices.of[0].pools: \"q\" is no pool",
        ]
    );
}
