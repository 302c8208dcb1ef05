//! Traffic in which everything happens that the expressions ask for.

#![allow(clippy::indexing_slicing, reason = "what a JSON value lacks is null")]

use std::time::Duration;

use anyhow::{Result, ensure};
use envoy_harness::client::{self, Protocol, Response};
use envoy_harness::gateway::Gateway;
use envoy_harness::progress::Step;
use hyper::Request;
use serde_json::{Value, json};
use simulated_providers::Fault;

/// Turns of a session in one round.
const TURNS: u32 = 3;

/// A part of a prompt that is long enough to be cached.
const LONG: &str = "The tests of the checkout fail, and the log says why: the total is too small. ";

/// The operator's prices, by which what is saved becomes money.
pub(super) fn set_prices(filter: &mut Value) {
    let price = json!({"input": 3, "cache_read": 0.3, "cache_write": 3.75, "output": 15});
    filter["observe"] = json!({"prices": {"currency": "EUR", "of": [price]}});
}

/// Rounds of sessions.
pub(super) struct Load<'g> {
    gateway: &'g Gateway,
    rounds: u32,
    /// The account that served the old session first.
    home: String,
    step: Step,
}

impl<'g> Load<'g> {
    pub(super) fn new(gateway: &'g Gateway) -> Self {
        let step = Step::start("expressions");
        Self { gateway, rounds: 0, home: String::new(), step }
    }

    /// Shows how many expressions have returned nothing so far.
    pub(super) fn waits_for(&self, count: usize) {
        self.step.say(&format!("{count} return nothing yet"));
    }

    pub(super) fn done(self, result: &str) {
        self.step.done(result);
    }

    /// One round: a new session of some turns with one home, another whose home gets a limit, a
    /// stream that does not tell its usage, and a request that every credential fails.
    pub(super) async fn make(&mut self) -> Result<()> {
        self.rounds += 1;
        let number = self.rounds;
        if number == 2 {
            // From now on the old session has a substitute.
            self.gateway.providers.fault(&self.home, Fault::rate_limit(600), Some(1))?;
        }
        for turn in 0..TURNS {
            let fresh = self.chat(&format!("fresh-{number}"), turn, false).await?;
            let old = self.chat("old", number * TURNS + turn, false).await?;
            ensure!(fresh.status == 200 && old.status == 200, "{}", old.text());
            if number == 1 {
                old.header("x-simulated-account").unwrap_or_default().clone_into(&mut self.home);
            }
        }
        self.chat("streamed", number, true).await?;
        let request = Request::post("/v1/messages")
            .header("content-type", "application/json")
            .header("x-simulate", "account=anthropic-a,anthropic-b,anthropic-c; status=529")
            .header("x-session-id", "unlucky");
        let body = json!({"model": "claude-sonnet-4-5", "max_tokens": 8,
            "messages": [{"role": "user", "content": "hello"}]});
        let failed = self.send(request, &body).await?;
        ensure!(failed.status != 200, "it should have failed");
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(())
    }

    async fn chat(&self, session: &str, turns: u32, stream: bool) -> Result<Response> {
        let mut messages = vec![
            json!({"role": "system", "content": format!("{session}: {}", LONG.repeat(100))}),
            json!({"role": "user", "content": "What is wrong?"}),
        ];
        for turn in 0..turns.min(20) {
            messages.push(json!({"role": "assistant", "content": format!("Look at line {turn}.")}));
            messages.push(json!({"role": "user", "content": "And then?"}));
        }
        let body = json!({"model": "gpt-5.4", "stream": stream, "messages": messages});
        let request = Request::post("/v1/chat/completions")
            .header("content-type", "application/json")
            .header("x-session-id", session);
        self.send(request, &body).await
    }

    async fn send(&self, request: hyper::http::request::Builder, body: &Value) -> Result<Response> {
        let request = request.body(client::whole(body.to_string()))?;
        client::send(self.gateway.envoy.address(), Protocol::Http1, request).await
    }
}
