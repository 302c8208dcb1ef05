//! State that providers keep is followed: what clients and providers see.

use anyhow::{Context, Result};
use envoy_harness::client::{self, Body, Connection, Protocol, Response};
use envoy_harness::gateway::Gateway;
use envoy_harness::{Mode, Process};
use hyper::{Method, Request};
use serde_json::{Value, json};
use simulated_providers::{Fault, Vendor};

use crate::support::{
    OUTCOME, attempts, body, envoy, modes, retries_held_responses, send, served, wait_for_counts,
};

const THREADS: (&str, &str) = ("anthropic-beta", "message-threads-2026-08-12");

/// How one kind of state is created, and a request that refers to it.
struct Kind {
    vendor: Vendor,
    create: (&'static str, Value),
    follow: fn(&str) -> (Method, String, Value),
}

fn response(text: &str) -> Value {
    json!({"model": "gpt-5.4", "input": text})
}

fn thread(thread: &Value) -> Value {
    let messages = json!([{"role": "user", "content": "hello"}]);
    json!({"model": "claude-sonnet-5", "max_tokens": 32, "messages": messages, "thread": thread})
}

fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

fn at(method: Method, path: String) -> (Method, String, Value) {
    (method, path, Value::Null)
}

fn go_on(id: &str) -> (Method, String, Value) {
    let body = with(response("and?"), "previous_response_id", json!(id));
    (Method::POST, "/v1/responses".to_owned(), body)
}

fn go_on_thread(id: &str) -> (Method, String, Value) {
    let body = thread(&json!({"type": "continue", "previous_message_id": id}));
    (Method::POST, "/v1/messages".to_owned(), body)
}

fn kinds() -> Vec<Kind> {
    let contents = json!([{"role": "user", "parts": [{"text": "hello ".repeat(500)}]}]);
    let cached = json!({"model": "models/gemini-3.1-pro", "contents": contents, "ttl": "600s"});
    let begin = thread(&json!({"type": "create"}));
    let stream = with(response("hello"), "stream", json!(true));
    let streamed_thread = with(begin.clone(), "stream", json!(true));
    let interaction = json!({"model": "gemini-3.1-pro", "input": "hello"});
    let openai = |create, follow| Kind { vendor: Vendor::OpenAi, create, follow };
    let anthropic = |create, follow| Kind { vendor: Vendor::Anthropic, create, follow };
    let gemini = |create, follow| Kind { vendor: Vendor::Gemini, create, follow };
    vec![
        openai(("/v1/responses", response("hello")), go_on),
        openai(("/v1/responses", stream), go_on),
        openai(("/v1/responses", response("hello")), |id| {
            at(Method::GET, format!("/v1/responses/{id}"))
        }),
        openai(("/v1/responses", with(response("x"), "background", json!(true))), |id| {
            at(Method::POST, format!("/v1/responses/{id}/cancel"))
        }),
        openai(("/v1/responses", response("hello")), |id| {
            at(Method::DELETE, format!("/v1/responses/{id}"))
        }),
        openai(("/v1/conversations", json!({})), |id| {
            let body = with(response("hello"), "conversation", json!(id));
            (Method::POST, "/v1/responses".to_owned(), body)
        }),
        openai(("/v1/conversations", json!({})), |id| {
            at(Method::GET, format!("/v1/conversations/{id}"))
        }),
        openai(("/v1/files", json!({"purpose": "user_data"})), |id| {
            at(Method::GET, format!("/v1/files/{id}/content"))
        }),
        openai(("/v1/files", json!({"purpose": "user_data"})), |id| {
            let part = json!([{"type": "input_file", "file_id": id}]);
            let body = with(response("x"), "input", json!([{"role": "user", "content": part}]));
            (Method::POST, "/v1/responses".to_owned(), body)
        }),
        openai(("/v1/vector_stores", json!({})), |id| {
            at(Method::GET, format!("/v1/vector_stores/{id}"))
        }),
        openai(("/v1/containers", json!({"name": "x"})), |id| {
            at(Method::GET, format!("/v1/containers/{id}"))
        }),
        anthropic(("/v1/messages", begin), go_on_thread),
        anthropic(("/v1/messages", streamed_thread), go_on_thread),
        anthropic(("/v1/files", json!({})), |id| at(Method::GET, format!("/v1/files/{id}"))),
        anthropic(
            ("/v1/messages/batches", json!({"requests": [{"custom_id": "1", "params": {}}]})),
            |id| at(Method::GET, format!("/v1/messages/batches/{id}")),
        ),
        gemini(("/v1beta/cachedContents", cached), |name| {
            let contents = json!([{"role": "user", "parts": [{"text": "hello"}]}]);
            let path = "/v1beta/models/gemini-3.1-pro:generateContent".to_owned();
            (Method::POST, path, json!({"contents": contents, "cachedContent": name}))
        }),
        gemini(("/v1beta/interactions", interaction), |id| {
            at(Method::GET, format!("/v1beta/interactions/{id}"))
        }),
    ]
}

/// A request as Anthropic's SDK sends it.
fn request(method: Method, path: &str, value: &Value) -> Result<Request<Body>> {
    let content = if value.is_null() { client::empty() } else { body(value) };
    let request = Request::builder().method(method).uri(path).header(THREADS.0, THREADS.1);
    let request = request.header("anthropic-version", "2023-06-01");
    Ok(request.header("content-type", "application/json").body(content)?)
}

/// As [`request`], without the headers of Anthropic's SDK.
fn plain(method: Method, path: &str, value: &Value) -> Result<Request<Body>> {
    let content = if value.is_null() { client::empty() } else { body(value) };
    let request = Request::builder().method(method).uri(path);
    Ok(request.header("content-type", "application/json").body(content)?)
}

fn of(vendor: Vendor, method: Method, path: &str, value: &Value) -> Result<Request<Body>> {
    match vendor {
        Vendor::Anthropic => request(method, path, value),
        _ => plain(method, path, value),
    }
}

/// The id that a response names, plain or streamed.
fn id(response: &Response) -> Result<String> {
    let text = response.text();
    let documents = text.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    let first = documents.filter_map(|text| serde_json::from_str::<Value>(text).ok()).next();
    let first = first.or_else(|| serde_json::from_str(&text).ok()).context(text)?;
    let places = ["/id", "/response/id", "/message/id", "/name"];
    let id = places.iter().find_map(|place| first.pointer(place)?.as_str());
    Ok(id.context("no id")?.to_owned())
}

fn round_robin(filter: &mut Value) {
    filter["routing"]["strategy"] = json!("round-robin");
}

/// A gateway in which new work goes round, so that only what is followed comes back.
async fn rotating(mode: Mode) -> Result<Option<Gateway>> {
    let envoy = envoy()?;
    if !mode.runs_on(envoy.version) {
        return Ok(None);
    }
    let start = Gateway::start_in(&envoy, mode, 2, |fixture| fixture.edit_filter(round_robin));
    Ok(Some(start.await?))
}

/// Makes a response at an account of OpenAI, past the gateway.
async fn made_elsewhere(gateway: &Gateway, account: &str) -> Result<String> {
    let key = gateway.providers.accounts().iter().find(|it| it.name == account).context("none")?;
    let mut request = plain(Method::POST, "/v1/responses", &response("hello"))?;
    let (_, value) = key.environment();
    request.headers_mut().insert("authorization", value.parse()?);
    let address = gateway.providers.address(Vendor::OpenAi);
    id(&client::send(address, Protocol::Http1, request).await?)
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn what_was_created_is_found_again_where_it_is() -> Result<()> {
    for mode in [Mode::Clusters, Mode::Keys] {
        let Some(gateway) = rotating(mode).await? else { continue };
        for (number, Kind { vendor, create: (path, value), follow }) in
            kinds().into_iter().enumerate()
        {
            for _ in 0..2 {
                let made = send(&gateway, of(vendor, Method::POST, path, &value)?).await?;
                let owner = served(&made)?.credential;
                let (method, path, value) = follow(&id(&made)?);
                let followed = send(&gateway, of(vendor, method, &path, &value)?).await?;
                let followed = served(&followed)?;
                let expected = (owner.as_str(), "pinned");
                let found = (followed.credential.as_str(), followed.outcome.as_str());
                assert_eq!(found, expected, "{mode:?} {number} {path}");
            }
        }
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn an_id_that_is_not_known_is_looked_for_and_remembered() -> Result<()> {
    if !retries_held_responses()? {
        return Ok(());
    }
    for (mode, gateway) in modes(Ok).await? {
        let made = made_elsewhere(&gateway, "openai-b").await?;
        gateway.providers.clear_requests();
        for expected in ["openai-a openai-b", "openai-b"] {
            let (method, path, value) = go_on(&made);
            let found = send(&gateway, plain(method, &path, &value)?).await?;
            assert_eq!(served(&found)?.credential, "openai-b", "{mode:?}");
            let asked: Vec<_> =
                attempts(&gateway).into_iter().map(|(account, _)| account).collect();
            assert_eq!(asked.join(" "), expected, "{mode:?}");
            gateway.providers.clear_requests();
        }
        let by_path = plain(Method::GET, &format!("/v1/responses/{made}"), &Value::Null)?;
        assert_eq!(served(&send(&gateway, by_path).await?)?.credential, "openai-b");
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn what_nobody_has_is_answered_as_the_first_one_did() -> Result<()> {
    if !retries_held_responses()? {
        return Ok(());
    }
    for (mode, gateway) in modes(Ok).await? {
        let ask = |method, path: &str, value: &Value| plain(method, path, value);
        let (method, path, value) = go_on("resp_1");
        let lost = send(&gateway, ask(method, &path, &value)?).await?;
        assert_eq!(lost.status, 400, "{mode:?}: {}", lost.text());
        assert_eq!(lost.json()?["error"]["code"], "previous_response_not_found", "{mode:?}");
        assert_eq!(attempts(&gateway).len(), 2, "{mode:?}: both were asked");
        let gone = send(&gateway, ask(Method::GET, "/v1/responses/resp_1", &Value::Null)?).await?;
        assert_eq!(gone.status, 404, "{mode:?}");

        let name = lost.header("x-request-id").or(lost.header("openai-processing-ms"));
        assert!(name.is_some(), "{mode:?}: its headers are kept: {:?}", lost.headers);
        let asked = attempts(&gateway).len();
        let again = send(&gateway, ask(Method::POST, &path, &value)?).await?;
        assert_eq!(again.status, 400, "{mode:?}");
        assert_eq!(attempts(&gateway).len() - asked, 1, "{mode:?}: it is known to be nowhere");

        // The second one has a reason of its own: it may be the owner.
        let (_, _, other) = go_on("resp_2");
        gateway.providers.fault("openai-b", Fault::rate_limit(60), Some(1))?;
        let limited = send(&gateway, ask(Method::POST, &path, &other)?).await?;
        assert_eq!(limited.status, 429, "{mode:?}: {}", limited.text());
        let next = send(&gateway, ask(Method::POST, "/v1/responses", &response("x"))?).await?;
        assert_eq!(served(&next)?.credential, "openai-a", "{mode:?}: nothing is blocked");
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn an_owner_that_thinks_for_long_is_not_spoken_for_by_others() -> Result<()> {
    if !retries_held_responses()? {
        return Ok(());
    }
    let short = |filter: &mut Value| filter["failover"]["first_event"] = json!({"wait": "200ms"});
    for (mode, gateway) in modes(|fixture| fixture.edit_filter(short)).await? {
        let made = made_elsewhere(&gateway, "openai-b").await?;
        let fault = Fault::SilentAfter(2);
        gateway.providers.fault("openai-b", fault, Some(1))?;
        let (method, path, value) = go_on(&made);
        let request = plain(method, &path, &with(value, "stream", json!(true)))?;
        let address = gateway.envoy.address();
        let mut connection = Connection::open(address, Protocol::Http1).await?;
        let mut stream = connection.stream(request).await?;
        assert_eq!(stream.status, 200, "{mode:?}");
        let first = stream.next_event().await?.context("no event")?;
        assert!(first.contains("response.created"), "{mode:?}: {first}");
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn clients_cannot_list_what_others_have_stored() -> Result<()> {
    let Some(gateway) = rotating(Mode::Keys).await? else { return Ok(()) };
    for path in ["/v1/files", "/v1/files/", "/v1/batches", "/v1/conversations", "/v1beta/files"] {
        let listed = send(&gateway, plain(Method::GET, path, &Value::Null)?).await?;
        assert_eq!(listed.status, 404, "{path}");
    }
    assert_eq!(attempts(&gateway), []);
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn while_its_owner_is_at_its_limit_a_sibling_serves_or_the_client_waits() -> Result<()> {
    for (mode, gateway) in modes(Ok).await? {
        let made = send(&gateway, plain(Method::POST, "/v1/responses", &response("x"))?).await?;
        assert_eq!(served(&made)?.credential, "openai-a");
        gateway.providers.fault("openai-a", Fault::rate_limit(600), None)?;
        let (method, path, value) = go_on(&id(&made)?);
        for asks in 0..2 {
            let refused = send(&gateway, plain(method.clone(), &path, &value)?).await?;
            assert_eq!(refused.status, 429, "{mode:?}");
            let wait: u64 = refused.header("retry-after").context("no end")?.parse()?;
            assert!((500..=600).contains(&wait), "{mode:?} {asks}: {wait}");
        }
        assert_eq!(attempts(&gateway).len(), 2, "{mode:?}: it was asked once");
        gateway.stop().await?;
    }
    let grouped = |filter: &mut Value| {
        for credential in filter["pools"][2]["credentials"].as_array_mut().unwrap() {
            credential["group"] = json!("project");
        }
    };
    for (mode, gateway) in modes(|fixture| fixture.edit_filter(grouped)).await? {
        for account in ["openai-a", "openai-b"] {
            gateway.providers.move_to_group(account, "one/project")?;
        }
        let made = send(&gateway, plain(Method::POST, "/v1/responses", &response("x"))?).await?;
        assert_eq!(served(&made)?.credential, "openai-a");
        gateway.providers.fault("openai-a", Fault::rate_limit(600), None)?;
        let (method, path, value) = go_on(&id(&made)?);
        let followed = send(&gateway, plain(method, &path, &value)?).await?;
        assert_eq!(served(&followed)?.credential, "openai-b", "{mode:?}");
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn what_can_be_done_only_once_is_sent_once() -> Result<()> {
    for (mode, gateway) in modes(Ok).await? {
        let begin = thread(&json!({"type": "create"}));
        let made = send(&gateway, request(Method::POST, "/v1/messages", &begin)?).await?;
        let (method, path, value) = go_on_thread(&id(&made)?);
        let background = with(response("x"), "background", json!(true));
        let batch = json!({"requests": [{"custom_id": "1", "params": {}}]});
        for (account, request) in [
            ("anthropic-a", request(method, &path, &value)?),
            ("anthropic-a", request(Method::POST, "/v1/messages/batches", &batch)?),
            ("openai-a", plain(Method::POST, "/v1/responses", &background)?),
            ("openai-a", plain(Method::POST, "/v1/files", &json!({"purpose": "x"}))?),
        ] {
            gateway.providers.clear_requests();
            gateway.providers.fault(account, Fault::Lost, Some(1))?;
            let path = request.uri().path().to_owned();
            let lost = send(&gateway, request).await?;
            assert_eq!(lost.status, 503, "{mode:?} {path}: {}", lost.text());
            let records = gateway.providers.requests();
            assert_eq!(records.len(), 1, "{mode:?} {path}");
            assert_eq!(records[0].created.len(), 1, "{mode:?} {path}: it was done");
        }
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn who_cannot_read_the_reasoning_does_not_speak_for_the_home() -> Result<()> {
    if !retries_held_responses()? {
        return Ok(());
    }
    for (mode, gateway) in modes(Ok).await? {
        let in_session = |value: &Value| -> Result<Request<Body>> {
            let mut request = plain(Method::POST, "/v1/responses", value)?;
            request.headers_mut().insert("x-session-id", "1".parse()?);
            Ok(request)
        };
        let first = json!({"model": "gpt-5.4", "input": "x", "store": false,
            "reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"]});
        let made = send(&gateway, in_session(&first)?).await?;
        assert_eq!(served(&made)?.credential, "openai-a");
        let next = with(first.clone(), "input", made.json()?["output"].clone());
        gateway.providers.fault("openai-a", Fault::rate_limit(600), Some(1))?;
        for told in ["by its home", "by the filter"] {
            let refused = send(&gateway, in_session(&next)?).await?;
            assert_eq!(refused.status, 429, "{mode:?} {told}: {}", refused.text());
            let wait: u64 = refused.header("retry-after").context("no end")?.parse()?;
            assert!((500..=600).contains(&wait), "{mode:?} {told}: {wait}");
        }
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn three_envoys_serve_every_turn_of_a_client_that_is_sprayed_over_them() -> Result<()> {
    if !retries_held_responses()? {
        return Ok(());
    }
    let envoy = envoy()?;
    let Some(gateway) = rotating(Mode::of_demo_on(envoy.version)).await? else { return Ok(()) };
    let fixture = || gateway.fixture()?.edit_filter(round_robin);
    let environment = Gateway::environment(&gateway.providers);
    let second = Process::start(&envoy, &fixture()?, 1, &environment).await?;
    let third = Process::start(&envoy, &fixture()?, 1, &environment).await?;
    let addresses = [gateway.envoy.address(), second.address(), third.address()];
    let mut turns = 0;
    for client in 0..8_usize {
        let mut value = response("hello");
        for turn in 0..6_usize {
            // Every client in an order of its own.
            let address = addresses[(client + turn * (1 + client % 2)) % addresses.len()];
            let request = plain(Method::POST, "/v1/responses", &value)?;
            let response = client::send(address, Protocol::Http1, request).await?;
            assert_eq!(response.status, 200, "client {client}, turn {turn}: {}", response.text());
            (_, _, value) = go_on(&id(&response)?);
            turns += 1;
        }
    }
    assert_eq!(turns, 48);
    let asked = gateway.providers.requests();
    assert!(asked.len() <= 2 * turns, "one asks too many: {}", asked.len());
    assert!(asked.len() > turns, "no Envoy knows what another one has seen");
    wait_for_counts(&gateway, OUTCOME, |counted| {
        counted.iter().map(|(_, count)| count).sum::<u64>() == 16
    })
    .await?;
    second.stop().await?;
    third.stop().await?;
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn groups_are_learned_from_what_responses_say() -> Result<()> {
    let no_cooling = |filter: &mut Value| filter["disable_cooling"] = json!(true);
    for (mode, gateway) in modes(|fixture| fixture.edit_filter(no_cooling)).await? {
        for (account, group) in
            [("anthropic-a", "o/x"), ("anthropic-b", "o/y"), ("anthropic-c", "o/x")]
        {
            gateway.providers.move_to_group(account, group)?;
        }
        for (failing, stream, expected) in
            [("", false, "a"), ("a", true, "a b"), ("a b", false, "a b c"), ("a", false, "a c")]
        {
            gateway.providers.clear_requests();
            for letter in failing.split_whitespace() {
                let account = format!("anthropic-{letter}");
                gateway.providers.fault(&account, Fault::status(500), Some(1))?;
            }
            let message = json!({"model": "claude-sonnet-5", "max_tokens": 32, "stream": stream,
                "messages": [{"role": "user", "content": expected}]});
            let message = request(Method::POST, "/v1/messages", &message)?;
            served(&send(&gateway, message).await?)?;
            let asked: Vec<_> = attempts(&gateway)
                .into_iter()
                .map(|(account, _)| account.replace("anthropic-", ""))
                .collect();
            assert_eq!(asked.join(" "), expected, "{mode:?}");
        }
        gateway.stop().await?;
    }
    Ok(())
}
