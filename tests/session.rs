//! Where a session is found, when its body is not waited for, and what keeps tenants apart.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};
use session_affinity::config::Config;
use session_affinity::hash::Seed;
use session_affinity::request::{Headers, Request};
use session_affinity::router::{BodyNeed, Decision, Refusal, Router};
use session_affinity::shared::{InMemory, SharedData};
use session_affinity::time::Timestamp;

/// A router of one pool with two credentials and these sections.
fn router(sections: Value) -> Router {
    let mut config = json!({"pools": [{"name": "p", "credentials": [{"id": "a", "cluster": "a"}, {"id": "b", "cluster": "b"}]}]});
    config.as_object_mut().unwrap().extend(sections.as_object().unwrap().clone());
    let config = Config::parse(config.to_string().as_bytes())
        .unwrap_or_else(|problems| panic!("{problems:#?}"));
    Router::new(config, Seed::agree(&InMemory::default(), [7; 16]))
}

fn headers(list: &[(&str, &str)]) -> Headers {
    list.iter().copied().collect()
}

/// The word for where the session of a request was found, and the digits of its binding key.
fn found(
    router: &Router,
    list: &[(&str, &str)],
    body: &Value,
    properties: &[Vec<u8>],
) -> Option<(String, u32)> {
    let (headers, body) = (headers(list), body.to_string());
    let request =
        Request { headers: &headers, body: router.read_body(body.as_bytes()), properties };
    match router.route(&request, &InMemory::default(), Timestamp::EPOCH) {
        Decision::Route(route) => route.session.map(|(source, key)| (source.to_owned(), key.tag())),
        other => panic!("{other:?}"),
    }
}

fn source(router: &Router, list: &[(&str, &str)], body: &Value) -> Option<String> {
    found(router, list, body, &[]).map(|(source, _)| source)
}

#[test]
fn an_id_that_is_no_id_gives_way_to_the_next_source() {
    let router = router(json!({}));
    let body = json!({"prompt_cache_key": "k", "messages": [{"role": "user", "content": "hi"}]});
    for bad in ["", " ", &"x".repeat(257), "a\u{7f}b"] {
        assert_eq!(
            source(&router, &[("x-session-id", bad)], &body).as_deref(),
            Some("pck"),
            "{bad:?}"
        );
    }
    assert_eq!(
        source(&router, &[("x-session-id", " "), ("x-session-id", "good")], &body).as_deref(),
        Some("header")
    );
}

#[test]
fn megabytes_and_broken_ends_do_not_hide_an_id() {
    let router = router(json!({}));
    let source_in = |body: &[u8]| {
        let headers = Headers::default();
        let request = Request::new(&headers, router.read_body(body));
        match router.route(&request, &InMemory::default(), Timestamp::EPOCH) {
            Decision::Route(route) => route.session.map(|(source, _)| source.to_owned()),
            other => panic!("{other:?}"),
        }
    };
    let long = "x".repeat(16 << 20);
    assert_eq!(
        source_in(format!(r#"{{"a":"{long}","session_id":"1"}}"#).as_bytes()).as_deref(),
        Some("session")
    );
    assert_eq!(
        source_in(format!(r#"{{"session_id":"1","a":"{long}"#).as_bytes()).as_deref(),
        Some("session")
    );
    let deep = "[".repeat(10_000);
    assert_eq!(
        source_in(format!(r#"{{"session_id":"1","a":{deep}"#).as_bytes()).as_deref(),
        Some("session")
    );
    assert_eq!(source_in(br#"{"session_id":"1","a":"\ud800","b":"#).as_deref(), Some("session"));
    assert_eq!(
        source_in(b"{\"session_id\":\"1\",\"a\":\"\xff\xfe\" ]]} nonsense").as_deref(),
        Some("session")
    );
    assert_eq!(
        source_in(
            br#"{"messages":[{"content":"\"session_id\":\"1\""}],"tools":[{"session_id":"2"}]}"#
        ),
        None
    );
}

#[test]
fn a_request_id_is_a_session_only_of_clients_that_use_it_so() {
    let router = router(json!({}));
    let with =
        |name, value| source(&router, &[("x-client-request-id", "1"), (name, value)], &json!({}));
    assert_eq!(with("originator", "codex_cli_rs").as_deref(), Some("clientreq"));
    assert_eq!(with("user-agent", "pi/0.52.1 (linux)").as_deref(), Some("clientreq"));
    assert_eq!(with("user-agent", "pip/24.0"), None);
    assert_eq!(with("user-agent", "claude-cli/2.1"), None);
}

#[test]
fn codex_metadata_and_gemini_prompts_are_opened() {
    let router = router(json!({}));
    let metadata = r#"{"turn_id":"t","session_id":"s-1","window_id":"w"}"#;
    assert_eq!(
        source(&router, &[("x-codex-turn-metadata", metadata)], &json!({})).as_deref(),
        Some("codex")
    );
    assert_eq!(source(&router, &[("x-codex-turn-metadata", "{}")], &json!({})), None);
    let prompt = |id: &str| found(&router, &[], &json!({"user_prompt_id": id}), &[]);
    assert_eq!(
        prompt("s-1########0"),
        prompt("s-1########12"),
        "the number of the prompt does not count"
    );
    assert_eq!(prompt("agent#3"), None, "a sub-agent's turn names no session");
}

#[test]
fn a_prompt_cache_key_falls_back_to_its_conversation() {
    let (router, shared) = (router(json!({})), InMemory::default());
    let send = |body: Value| {
        let (headers, body) = (Headers::default(), body.to_string());
        let request = Request::new(&headers, router.read_body(body.as_bytes()));
        router.route(&request, &shared, Timestamp::EPOCH).outcome().as_str()
    };
    assert_eq!(send(json!({"conversation": {"id": "conv_1"}})), "miss");
    assert_eq!(send(json!({"conversation": {"id": "conv_1"}, "prompt_cache_key": "k"})), "inherit");
    assert_eq!(send(json!({"prompt_cache_key": "k"})), "hit");
}

#[test]
fn what_the_reference_cannot_read_is_hashed_too() {
    let router = router(json!({}));
    for body in [
        json!({"input": "tell me a joke"}),
        json!({"messages": [{"role": "developer", "content": "Be brief."}]}),
        json!({"messages": [{"role": "user", "content": [{"text": "hi"}]}]}),
        json!({"request": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}}),
    ] {
        assert_eq!(source(&router, &[], &body).as_deref(), Some("msg"), "{body}");
    }
}

#[test]
fn headers_that_settle_the_session_need_only_the_beginning_of_a_body() {
    let router = router(json!({}));
    for (path, header, expected) in [
        ("/v1/messages", "x-claude-code-session-id", BodyNeed::Beginning),
        ("/v1/messages", "x-session-id", BodyNeed::Whole),
        ("/v1/messages?beta=true", "x-amp-thread-id", BodyNeed::Whole),
        ("/v1/messages/count_tokens", "x-session-id", BodyNeed::Whole),
        ("/v1/chat/completions", "x-session-id", BodyNeed::Beginning),
        ("/v1/chat/completions", "x-openwebui-chat-id", BodyNeed::Beginning),
        ("/v1/responses", "session_id", BodyNeed::Beginning),
        ("/v1/responses", "session-id", BodyNeed::Beginning),
        ("/v1/responses", "x-request-id", BodyNeed::Whole),
        ("/v1beta/models/gemini-3-pro:generateContent", "x-session-id", BodyNeed::None),
        ("/model/anthropic.claude-v1/invoke", "x-session-id", BodyNeed::Whole),
    ] {
        let headers = headers(&[(":path", path), (header, "1")]);
        assert_eq!(
            router.needs_body(&headers, false, &InMemory::default()),
            expected,
            "{path} {header}"
        );
        assert_eq!(
            router.needs_body(&headers, true, &InMemory::default()),
            BodyNeed::None,
            "{path} {header}: no body"
        );
    }
    let invalid = headers(&[(":path", "/v1/responses"), ("session-id", " ")]);
    let need = router.needs_body(&invalid, false, &InMemory::default());
    assert_eq!(need, BodyNeed::Whole, "an id that does not count settles nothing");
}

#[test]
fn the_body_is_read_where_the_model_decides_or_the_operator_wants_it() {
    let chat = headers(&[(":path", "/v1/chat/completions"), ("x-session-id", "1")]);
    let gemini =
        headers(&[(":path", "/v1beta/models/gemini-3-pro:generateContent"), ("x-session-id", "1")]);
    let by_model = router(json!({"pools": [
        {"name": "p", "match": {"models": ["gpt-*", "gemini-*"]}, "credentials": [{"id": "a", "cluster": "a"}]}
    ]}));
    assert_eq!(by_model.needs_body(&chat, false, &InMemory::default()), BodyNeed::Whole);
    assert_ne!(
        by_model.needs_body(&gemini, false, &InMemory::default()),
        BodyNeed::Whole,
        "its model stands in the path"
    );
    let behind = router(json!({"pools": [
        {"name": "p", "credentials": [{"id": "a", "cluster": "a"}]},
        {"name": "q", "match": {"models": ["gpt-*"]}, "credentials": [{"id": "a", "cluster": "a"}]}
    ]}));
    assert_ne!(
        behind.needs_body(&chat, false, &InMemory::default()),
        BodyNeed::Whole,
        "the first pool serves it whatever the model"
    );
    assert_eq!(
        router(json!({"body": {"read": "always"}})).needs_body(&chat, false, &InMemory::default()),
        BodyNeed::Whole
    );
    assert_eq!(
        router(json!({"profile": "reference"})).needs_body(&chat, false, &InMemory::default()),
        BodyNeed::Whole,
        "there the model is in every key"
    );
    assert_eq!(
        router(json!({"routing": {"session_affinity": false}})).needs_body(
            &chat,
            false,
            &InMemory::default()
        ),
        BodyNeed::Whole,
        "for the rotation"
    );
}

#[test]
fn traffic_that_no_pool_serves_is_never_held() {
    let router = router(json!({"pools": [
        {"name": "p", "match": {"path_prefixes": ["/v1/"]}, "credentials": [{"id": "a", "cluster": "a"}]}
    ]}));
    let json = ("content-type", "application/json");
    let chat = headers(&[(":path", "/v1/chat/completions"), json]);
    assert_eq!(router.needs_body(&chat, false, &InMemory::default()), BodyNeed::Whole);
    let upload = headers(&[(":path", "/api/upload"), json]);
    assert_eq!(router.needs_body(&upload, false, &InMemory::default()), BodyNeed::None);
}

#[test]
fn an_operator_can_name_his_own_sources() {
    let router = router(json!({"session": {"sources": [
        {"header": "X-My-Thread", "pattern": "^thread-([0-9]+)$"},
        {"body": "extra.thread\\.id", "name": "mine"},
        {"body": "envelope", "json": "meta.id"},
        {"body": "items.1.id", "name": "second"},
        "message-hash"
    ]}}));
    let hash = json!({"messages": [{"role": "user", "content": "hi"}]});
    for (list, body, expected) in [
        (&[("x-my-thread", "thread-42")][..], &json!({}), Some("x-my-thread")),
        (&[("x-my-thread", "thread-x")], &json!({}), None),
        (&[], &json!({"extra": {"thread.id": "7"}}), Some("mine")),
        (&[], &json!({"envelope": r#"{"meta":{"id":"9"}}"#}), Some("envelope")),
        (&[], &json!({"items": [{"id": "0"}, {"id": "1"}]}), Some("second")),
        (&[("x-session-id", "1")], &hash, Some("msg")),
    ] {
        assert_eq!(source(&router, list, body).as_deref(), expected, "{list:?} {body}");
    }
    let number = |thread| found(&router, &[("x-my-thread", thread)], &json!({}), &[]);
    assert_ne!(number("thread-1"), number("thread-2"));
}

#[test]
fn tenants_share_no_binding_if_a_scope_tells_them_apart() {
    let unscoped = router(json!({}));
    let scoped = router(json!({"session": {"scope": [
        {"header": "Authorization"}, {"property": ["connection", "uri_san_peer_certificate"]}
    ]}}));
    assert_eq!(
        scoped.properties().collect::<Vec<_>>(),
        [["connection", "uri_san_peer_certificate"]]
    );
    let key = |router: &Router, authorization: &[&str], san: &str| {
        let mut list = vec![("x-session-id", "1")];
        list.extend(authorization.iter().map(|value| ("authorization", *value)));
        found(router, &list, &json!({}), &[san.as_bytes().to_vec()]).unwrap()
    };
    assert_eq!(key(&unscoped, &["a"], "x"), key(&unscoped, &["b"], "y"));
    assert_eq!(key(&scoped, &["a"], "x"), key(&scoped, &["a"], "x"));
    let keys = [
        key(&scoped, &["a"], "x"),
        key(&scoped, &["b"], "x"),
        key(&scoped, &["a"], "y"),
        key(&scoped, &["a", "x"], ""),
        key(&scoped, &[], "ax"),
    ];
    for (at, one) in keys.iter().enumerate() {
        assert!(!keys[at + 1..].contains(one), "{keys:?}");
    }
}

#[test]
fn the_provider_is_the_pools_or_what_the_path_tells() {
    let router = router(
        json!({"pools": [{"name": "p", "credentials": [{"id": "a", "cluster": "a", "state": "disabled"}]}]}),
    );
    for (path, provider) in [
        ("/v1/messages", "anthropic"),
        ("/v1/responses/compact", "openai"),
        ("/openai/deployments/d/chat/completions", "azure"),
        ("/model/m/converse", "bedrock"),
        ("/v1internal:generateContent", "gemini"),
    ] {
        let headers = headers(&[(":path", path)]);
        let request = Request::new(&headers, router.read_body(b"{}"));
        let Decision::Reply(Refusal { reply, .. }) =
            router.route(&request, &InMemory::default(), Timestamp::EPOCH)
        else {
            panic!("{path}")
        };
        assert!(reply.body.contains(&format!("providers={provider}")), "{path}: {}", reply.body);
    }
}

#[test]
fn the_profile_reference_finds_what_the_reference_finds() {
    let router = router(json!({"profile": "reference", "routing": {"session_affinity": true}}));
    assert_eq!(source(&router, &[("x-claude-code-session-id", "1")], &json!({})), None);
    assert_eq!(source(&router, &[("x-session-id", " ")], &json!({})).as_deref(), Some("header"));
    assert_eq!(
        source(&router, &[], &json!({"metadata": {"user_id": 42}})).as_deref(),
        Some("user")
    );
    let key = |model: &str| found(&router, &[("x-session-id", "1")], &json!({"model": model}), &[]);
    assert_ne!(key("m"), key("m(high)"), "the suffix is kept");
}

#[test]
fn names_that_clients_use_without_a_standard_are_known() {
    let router = router(json!({}));
    for header in ["x-session-key", "x-codex-session-id", "x-thread-id", "x-http-session-id"] {
        assert_eq!(source(&router, &[(header, "1")], &json!({})).as_deref(), Some(header));
    }
    for member in ["thread_id", "chat_id"] {
        let body = json!({member: "1", "prompt_cache_key": "k"});
        assert_eq!(source(&router, &[], &body).as_deref(), Some("session"), "{member}");
    }
}

const WEBSOCKET: [(&str, &str); 3] =
    [(":method", "GET"), (":path", "/v1/responses"), ("upgrade", "websocket")];

#[test]
fn a_websocket_without_an_id_goes_by_its_caller() {
    let recommended = router(json!({}));
    let key = |more: &[(&str, &str)]| {
        found(&recommended, &[&WEBSOCKET[..], more].concat(), &json!({}), &[])
    };
    let of_key = |secret: &str| key(&[("authorization", secret)]).unwrap();
    assert_eq!(of_key("Bearer a").0, "caller");
    assert_eq!(of_key("Bearer a"), of_key("Bearer a"), "also when it connects again");
    assert_ne!(of_key("Bearer a"), of_key("Bearer b"));
    assert_ne!(
        key(&[("sec-websocket-protocol", "realtime, openai-insecure-api-key.a")]),
        key(&[("sec-websocket-protocol", "realtime, openai-insecure-api-key.b")])
    );
    assert_eq!(key(&[]), None, "nothing says who calls");
    assert_eq!(key(&[("sec-websocket-protocol", "realtime")]), None);
    let named = key(&[("authorization", "Bearer a"), ("session_id", "1")]);
    assert_eq!(named.unwrap().0, "codex", "an id goes first");
    let plain = [(":path", "/v1/models"), ("authorization", "Bearer a")];
    assert_eq!(source(&recommended, &plain, &json!({})), None, "only a WebSocket has to");
    let reference = router(json!({"profile": "reference", "routing": {"session_affinity": true}}));
    let list = [&WEBSOCKET[..], &[("authorization", "Bearer a")]].concat();
    assert_eq!(source(&reference, &list, &json!({})), None);
}

#[test]
fn a_key_in_the_query_and_a_tenant_are_callers_too() {
    let unscoped = router(json!({}));
    let key = |path: &str| {
        found(&unscoped, &[(":path", path), ("upgrade", "websocket")], &json!({}), &[])
    };
    assert!(key("/ws/live?alt=sse&key=a").is_some());
    assert_ne!(key("/ws/live?key=a"), key("/ws/live?key=b"));
    assert_ne!(key("/ws/live?key=a"), key("/ws/other?key=a"));
    assert_eq!(key("/ws/live?model=m"), None);
    let scoped = router(json!({"session": {"scope": [{"header": "x-tenant"}]}}));
    let tenant = |name: &str| {
        found(&scoped, &[&WEBSOCKET[..], &[("x-tenant", name)]].concat(), &json!({}), &[]).unwrap()
    };
    assert_ne!(tenant("a"), tenant("b"));
}

const CLAUDE: (&str, &str) = ("x-claude-code-session-id", "s");
const AGENT: (&str, &str) = ("x-claude-code-agent-id", "a");

#[test]
fn a_sub_agent_has_a_binding_of_its_own_by_default() {
    let key = |settings: Value, list: &[(&str, &str)]| {
        let session = json!({"session": settings});
        found(&router(session), list, &json!({}), &[]).unwrap()
    };
    let own = |list: &[(&str, &str)]| key(json!({}), list);
    let with_parent = |list: &[(&str, &str)]| key(json!({"subagents": "parent"}), list);
    let other = [CLAUDE, ("x-claude-code-agent-id", "b")];
    assert_ne!(own(&[CLAUDE]), own(&[CLAUDE, AGENT]));
    assert_ne!(own(&[CLAUDE, AGENT]), own(&other));
    assert_eq!(own(&[CLAUDE, AGENT]), own(&[CLAUDE, AGENT]));
    assert_eq!(own(&[CLAUDE]), key(json!({"subagents": "own"}), &[CLAUDE]));
    assert_eq!(with_parent(&[CLAUDE]), with_parent(&[CLAUDE, AGENT]));

    let codex = [("session-id", "s"), ("thread-id", "t")];
    let of = |more: &[(&str, &str)]| own(&[&codex[..], more].concat());
    let spawned = [("x-openai-subagent", "collab_spawn")];
    assert_ne!(of(&[]), of(&spawned));
    assert_ne!(of(&[]), of(&[("x-codex-parent-thread-id", "s")]));
    assert_eq!(of(&[]), of(&[("x-openai-subagent", "compact")]), "it reads what the parent said");
    let forked = ("x-codex-turn-metadata", r#"{"forked_from_thread_id":"s"}"#);
    assert_eq!(of(&[]), of(&[spawned[0], forked]), "it begins as its parent");
    assert_eq!(with_parent(&codex), with_parent(&[&codex[..], &spawned].concat()));

    let child = [("x-session-id", "child"), ("x-parent-session-id", "parent")];
    assert_eq!(own(&child), own(&child[..1]));
    assert_eq!(with_parent(&child), with_parent(&[("x-session-id", "parent")]));
}

#[test]
fn a_sub_agent_is_settled_by_headers_like_its_parent() {
    let router = router(json!({}));
    let list = [(":path", "/v1/messages"), CLAUDE, AGENT];
    assert_eq!(
        router.needs_body(&headers(&list), false, &InMemory::default()),
        BodyNeed::Beginning
    );
}

#[test]
fn the_profile_reference_knows_no_sub_agents() {
    let config = json!({
        "profile": "reference", "session": {"subagents": "own"},
        "pools": [{"name": "p", "credentials": [{"id": "a", "cluster": "a"}]}]
    });
    let problems = Config::parse(config.to_string().as_bytes()).unwrap_err();
    assert!(format!("{problems:?}").contains("session.subagents"), "{problems:?}");
}

#[test]
fn a_conversation_stays_where_its_first_turn_went() {
    let (router, shared) = (router(json!({})), InMemory::default());
    let send = |messages: Value| {
        let body = json!({"model": "m", "messages": messages}).to_string();
        let headers = headers(&[(":path", "/v1/chat/completions")]);
        let request = Request::new(&headers, router.read_body(body.as_bytes()));
        match router.route(&request, &shared, Timestamp::EPOCH) {
            Decision::Route(route) => (route.outcome.as_str(), route.credential.id.clone()),
            other => panic!("{other:?}"),
        }
    };
    let user = |text: &str| json!({"role": "user", "content": text});
    let model = |text: &str| json!({"role": "assistant", "content": text});
    let (_, first) = send(json!([user("one")]));
    let (_, second) = send(json!([user("example"), model("x"), user("two")]));
    assert_ne!(first, second, "they take turns");
    assert_eq!(send(json!([user("one"), model("1"), user("more")])), ("hit", first));
    let more = json!([user("example"), model("x"), user("two"), model("2"), user("more")]);
    assert_eq!(send(more), ("hit", second));
    assert_eq!(send(json!([user("example"), model("x"), user("three")])).0, "miss");
}

#[test]
fn a_callers_key_is_in_no_words_and_in_no_shared_data() {
    let (router, shared) = (router(json!({})), InMemory::default());
    let list = [&WEBSOCKET[..], &[("authorization", "Bearer secret-of-a-caller")]].concat();
    let headers = headers(&list);
    let request = Request::new(&headers, Default::default());
    let decision = router.route(&request, &shared, Timestamp::EPOCH);
    assert!(decision.to_string().contains("source=caller "), "{decision}");
    assert!(!format!("{decision} {decision:?}").contains("secret"), "{decision:?}");
    let secret = b"secret-of-a-caller";
    for key in router.shared_keys() {
        let value = shared.get(&key).value;
        assert!(!value.windows(secret.len()).any(|part| part == secret), "{key}");
    }
}
