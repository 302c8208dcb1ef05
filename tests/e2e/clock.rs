//! Envoy's clock, set while it serves: ahead by days, and back by days and hours, to before it was
//! started.
//!
//! `tests/clock.rs` has many more leaps. What needs Envoy is here: that the filter asks this clock,
//! and that requests, ticks, both workers and the operator's page go on when it is set.

use std::env;
use std::io::Write;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use envoy_harness::client::{Protocol, Response};
use envoy_harness::gateway::Gateway;
use envoy_harness::{Fixture, Mode, wait_until};
use serde_json::{Value, json};
use simulated_providers::Fault;
use tempfile::NamedTempFile;

use crate::operator::get;
use crate::support::{
    OUTCOME, body, body_in_parts, envoy, message, post, send, send_by, served, start,
    wait_for_counts,
};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Where the clock is set, one after the other, in seconds from the right time. Envoy is started in
/// between, so all that is below zero is before that.
const STEPS: [i64; 6] = [3 * DAY, -2 * HOUR, 10 * DAY, -DAY, -DAY - 2 * HOUR, 0];

/// For so long a provider announces a limit.
const ANNOUNCED: u64 = 60;

/// The step of an Envoy's clock, as `stepped-clock` reads it.
struct Clock(NamedTempFile);

impl Clock {
    fn new() -> Result<Self> {
        let mut file = NamedTempFile::new()?;
        file.write_all(&0_i64.to_ne_bytes())?;
        Ok(Self(file))
    }

    fn of(&self, fixture: Fixture) -> Result<Fixture> {
        let library = env::current_exe()?.with_file_name("libstepped_clock.so");
        ensure!(library.is_file(), "there is no {}", library.display());
        let [library, file] = [&library, self.0.path()].map(|path| path.display().to_string());
        Ok(fixture.with_variable("LD_PRELOAD", library).with_variable("STEPPED_CLOCK", file))
    }

    /// Sets the clock so many seconds from the right time.
    fn set(&self, step: i64) -> Result<()> {
        Ok(self.0.as_file().write_all_at(&step.to_ne_bytes(), 0)?)
    }
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_clock_that_is_set_loses_no_request_no_state_and_no_cooldown() -> Result<()> {
    let clock = Clock::new()?;
    let mode = Mode::of_demo_on(envoy()?.version);
    let limited =
        |filter: &mut Value| filter["pools"][0]["credentials"][0]["max_concurrent"] = json!(4);
    let gateway = start(mode, 2, |fixture| clock.of(fixture)?.edit_filter(limited)).await?;
    let gateway = gateway.context("every Envoy has a mode of the demo")?;
    let begun = seconds(&get(&gateway, "/state").await?.json()?)?;
    let story = Story { gateway: &gateway, begun };

    // A request is under way all the time.
    let (parts, content) = body_in_parts();
    let long = post("/v1/messages").header("x-session-id", "long").body(content)?;
    let long = send_by(&gateway, Protocol::Http2, long);
    let meanwhile = async {
        let all = message("hello").to_string();
        let (begin, end) = all.split_at(20);
        parts.send(Bytes::from(begin.to_owned())).await?;
        let response = story.limit_the_first("before").await?;
        let mut before = 0;
        for step in STEPS {
            clock.set(step)?;
            story.check_state(step).await?;
            story.check(step, before, &response).await?;
            before = step;
        }
        parts.send(Bytes::from(end.to_owned())).await?;
        drop(parts);
        anyhow::Ok(())
    };
    let (long, meanwhile) = tokio::join!(long, meanwhile);
    meanwhile?;
    assert_eq!(long?.status, 200, "the request that was under way");
    let what = "waiting until nothing is in flight";
    wait_until(what, async || {
        let in_flight = &get(&gateway, "/state").await?.json()?["credentials"][0]["in_flight"];
        Ok((*in_flight == json!(0)).then_some(()))
    })
    .await?;

    // Four requests before the first step, eight after each, and the long one.
    let sent = 4 + 8 * STEPS.len() as u64 + 1;
    let is_all = |counted: &Vec<(String, u64)>| {
        let known = ["hit", "miss", "pinned"];
        assert!(
            counted.iter().all(|(outcome, _)| known.contains(&outcome.as_str())),
            "{counted:?}"
        );
        counted.iter().map(|(_, count)| count).sum::<u64>() == sent
    };
    wait_for_counts(&gateway, OUTCOME, is_all).await?;
    let log = gateway.stop().await?.join("\n");
    for complaint in ["panicked", "[error]", "[critical]"] {
        assert!(!log.contains(complaint), "{log}");
    }
    Ok(())
}

struct Story<'a> {
    gateway: &'a Gateway,
    /// When it began, by the right clock.
    begun: u64,
}

impl Story<'_> {
    /// What clients meet after a step of the clock.
    async fn check(&self, step: i64, before: i64, response: &str) -> Result<()> {
        // What was announced is over, or from another time: nobody waits for days.
        let new = format!("new at {step}");
        assert_eq!(self.chat(&new).await?, of("openai-a", "miss"), "{step}");
        assert_eq!(self.chat(&new).await?, of("openai-a", "hit"), "{step}");
        // A session whose time has come has ended, and no other.
        let expected = if step > before { of("openai-a", "miss") } else { of("openai-b", "hit") };
        let old = if before == 0 { "before".to_owned() } else { before.to_string() };
        assert_eq!(self.chat(&old).await?, expected, "{step}");
        // What a provider keeps is where it was.
        let followed = served(&self.create(Some(response)).await?)?;
        assert_eq!(followed.credential, "openai-b", "{step}: {followed:?}");
        self.limit_the_first(&step.to_string()).await?;
        Ok(())
    }

    /// The first credential announces a limit; the session gets another one. Returns a response
    /// that this one keeps.
    async fn limit_the_first(&self, session: &str) -> Result<String> {
        let providers = &self.gateway.providers;
        providers.fault("openai-a", Fault::rate_limit(ANNOUNCED), Some(1))?;
        // An Envoy that cannot fail over shows it to this client.
        self.ask(&format!("{session} meets it")).await?;
        providers.clear_faults();
        assert_eq!(self.chat(session).await?, of("openai-b", "miss"), "{session}");
        assert_eq!(self.chat(session).await?, of("openai-b", "hit"), "{session}");
        let created = self.create(None).await?;
        assert_eq!(served(&created)?.credential, "openai-b");
        let id = created.json()?["id"].as_str().context("no id")?.to_owned();
        Ok(id)
    }

    /// The operator's page has sane numbers.
    async fn check_state(&self, step: i64) -> Result<()> {
        let state = get(self.gateway, "/state").await?.json()?;
        let now = seconds(&state)?;
        // Any other step would be off by an hour at least.
        let off = self.begun.checked_add_signed(step).context("no such time")?.abs_diff(now);
        assert!(off < 1800, "{step}: {now}");
        for credential in state["credentials"].as_array().context("no credentials")? {
            let number = |name: &str| credential[name].as_u64().unwrap_or_default();
            assert!(number("in_flight") <= 1 && number("sessions") < 30, "{step}: {credential}");
            assert_eq!(credential["blocks"], json!([]), "{step}: {credential}");
        }
        Ok(())
    }

    async fn chat(&self, session: &str) -> Result<(String, String)> {
        let served = served(&self.ask(session).await?)?;
        Ok((served.credential, served.outcome))
    }

    async fn ask(&self, session: &str) -> Result<Response> {
        let chat = json!({"model": "gpt-5.4", "messages": [{"role": "user", "content": "hi"}]});
        let request = post("/v1/chat/completions").header("x-session-id", session);
        send(self.gateway, request.body(body(&chat))?).await
    }

    /// Creates a response, that may go on from another.
    async fn create(&self, previous: Option<&str>) -> Result<Response> {
        let mut value = json!({"model": "gpt-5.4", "input": "hello"});
        if let Some(previous) = previous {
            value["previous_response_id"] = json!(previous);
        }
        send(self.gateway, post("/v1/responses").body(body(&value))?).await
    }
}

/// The time that the operator's page shows.
fn seconds(state: &Value) -> Result<u64> {
    Ok(state["now"].as_u64().context("no time")? / 1000)
}

fn of(credential: &str, outcome: &str) -> (String, String) {
    (credential.to_owned(), outcome.to_owned())
}
