//! Cached tokens: they grow with a session on one account and are unknown to another.

use serde_json::{Value, json};

use crate::client::{World, anthropic, chat, gemini, responses, text};

/// Plays three turns on the first account and then the third on the second one. `turn` makes the
/// body from the messages so far, `reply` reads the message of the assistant from a response,
/// `cached` the cached tokens and those of the whole prompt.
struct Session {
    accounts: [&'static str; 2],
    path: &'static str,
    turn: fn(Value) -> Value,
    user: fn(&str) -> Value,
    reply: fn(&Value) -> Value,
    cached: fn(&Value) -> (u64, u64),
}

impl Session {
    async fn check(&self) {
        let world = World::start().await;
        let [a, b] = self.accounts;
        let mut messages = vec![];
        let mut cached = vec![];
        let mut prompts = vec![];
        for index in 0..3 {
            messages.push((self.user)(&format!("{index}: {}", text(400))));
            let response = world.post(a, self.path, &(self.turn)(json!(messages))).await.json();
            let (read, prompt) = (self.cached)(&response);
            cached.push(read);
            prompts.push(prompt);
            if index < 2 {
                messages.push((self.reply)(&response));
            }
        }
        assert_eq!(cached[0], 0, "{}", self.path);
        assert!(cached[0] < cached[1] && cached[1] < cached[2], "{}: {cached:?}", self.path);
        // All of the turn before it, but for what is shorter than a step.
        assert!(
            cached[2] <= prompts[1] && prompts[1] - cached[2] < 128,
            "{cached:?} of {prompts:?}"
        );

        let elsewhere = world.post(b, self.path, &(self.turn)(json!(messages))).await.json();
        assert_eq!((self.cached)(&elsewhere).0, 0, "{}", self.path);

        let totals = world.providers.totals();
        assert_eq!(totals[a].requests, 3);
        assert_eq!(totals[a].cached_tokens, cached.iter().sum::<u64>());
        assert_eq!(totals[a].prompt_tokens, prompts.iter().sum::<u64>());
        assert_eq!((totals[b].requests, totals[b].cached_tokens), (1, 0));
        world.providers.stop().await;
    }
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn count(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// As Claude Code does: a breakpoint after the system prompt, another that moves with the last
/// message.
fn anthropic_turn(mut messages: Value) -> Value {
    let last = messages.as_array_mut().unwrap().last_mut().unwrap();
    let text = last["content"].clone();
    last["content"] =
        json!([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]);
    anthropic(messages)
}

#[tokio::test]
async fn anthropic_caches_up_to_the_breakpoints() {
    let session = Session {
        accounts: ["anthropic-a", "anthropic-b"],
        path: "/v1/messages",
        turn: anthropic_turn,
        user,
        reply: |response| json!({"role": "assistant", "content": response["content"]}),
        cached: |response| {
            let read = count(response, "/usage/cache_read_input_tokens");
            let written = count(response, "/usage/cache_creation_input_tokens");
            (read, read + written + count(response, "/usage/input_tokens"))
        },
    };
    session.check().await;
}

#[tokio::test]
async fn openai_chat_caches_by_itself() {
    let session = Session {
        accounts: ["openai-a", "openai-b"],
        path: "/v1/chat/completions",
        turn: |mut messages| {
            messages
                .as_array_mut()
                .unwrap()
                .insert(0, json!({"role": "system", "content": text(1500)}));
            chat(messages)
        },
        user,
        reply: |response| response["choices"][0]["message"].clone(),
        cached: |response| {
            let cached = count(response, "/usage/prompt_tokens_details/cached_tokens");
            assert_eq!(cached % 128, 0);
            (cached, count(response, "/usage/prompt_tokens"))
        },
    };
    session.check().await;
}

#[tokio::test]
async fn openai_responses_cache_by_themselves() {
    let session = Session {
        accounts: ["openai-a", "openai-b"],
        path: "/v1/responses",
        turn: responses,
        user,
        reply: |response| response["output"][0].clone(),
        cached: |response| {
            (
                count(response, "/usage/input_tokens_details/cached_tokens"),
                count(response, "/usage/input_tokens"),
            )
        },
    };
    session.check().await;
}

#[tokio::test]
async fn gemini_caches_by_itself() {
    let session = Session {
        accounts: ["gemini-a", "gemini-b"],
        path: "/v1beta/models/gemini-3.1-pro:generateContent",
        turn: gemini,
        user: |text| json!({"role": "user", "parts": [{"text": text}]}),
        reply: |response| response["candidates"][0]["content"].clone(),
        cached: |response| {
            (
                count(response, "/usageMetadata/cachedContentTokenCount"),
                count(response, "/usageMetadata/promptTokenCount"),
            )
        },
    };
    session.check().await;
}

#[tokio::test]
async fn a_model_has_a_cache_of_its_own() {
    let world = World::start().await;
    let mut body = responses(json!("hello"));
    world.post("openai-a", "/v1/responses", &body).await;
    body["model"] = json!("another");
    let other = world.post("openai-a", "/v1/responses", &body).await.json();
    assert_eq!(count(&other, "/usage/input_tokens_details/cached_tokens"), 0);
    world.providers.stop().await;
}

#[tokio::test]
async fn a_prompt_below_the_minimum_is_not_cached() {
    let world = World::start().await;
    let body = chat(json!([{"role": "user", "content": text(1000)}]));
    for _ in 0..2 {
        let response = world.post("openai-a", "/v1/chat/completions", &body).await.json();
        assert_eq!(count(&response, "/usage/prompt_tokens_details/cached_tokens"), 0);
    }
    world.providers.stop().await;
}

#[tokio::test]
async fn the_reply_to_a_request_is_the_same_on_every_account() {
    let world = World::start().await;
    let body = responses(json!("hello"));
    let a = world.post("openai-a", "/v1/responses", &body).await.json();
    let b = world.post("openai-b", "/v1/responses", &body).await.json();
    assert_eq!(a["output"][0]["content"], b["output"][0]["content"]);
    assert_ne!(a["id"], b["id"]);
    world.providers.stop().await;
}
