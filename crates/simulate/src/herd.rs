//! Many sessions at once: a hundred that start before anything is answered, and those of an account
//! that runs out.

use std::fmt::Write;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use session_affinity::router::BodyNeed;
use session_affinity::{Decision, Headers, NextStep, Plan, Request, Response, Timestamp};

use crate::fleet::Instance;
use crate::random::Random;

/// When everything begins.
pub(crate) const BEGIN: u64 = 1_800_000_000_000;

/// What is compared.
const STRATEGIES: [&str; 4] = ["round-robin", "fill-first", "consistent", "headroom"];

/// The accounts of the comparison.
const ACCOUNTS: [&str; 4] = ["a", "b", "c", "d"];

const STARTS: u64 = 100;

/// The sessions of the account that runs out.
const HOMELESS: usize = 47;

/// How much the other three have used then, in percent.
const USED: [(&str, u32); 3] = [("b", 20), ("c", 50), ("d", 80)];

/// One Envoy, with what it is asked.
pub(crate) struct Gateway {
    pub(crate) instance: Instance,
}

/// What a credential answers.
pub(crate) type Answer = (u16, Vec<(String, String)>);

impl Gateway {
    pub(crate) fn new(
        routing: &Value,
        credentials: &Value,
        more: &Value,
        seed: u64,
    ) -> Result<Self> {
        let mut config = json!({
            "routing": routing,
            "pools": [{"name": "p", "provider": "claude", "credentials": credentials}],
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            config.as_object_mut().context("an object")?.insert(field.clone(), value.clone());
        }
        let random = Random::of(&[seed, 8]).bytes();
        let bytes = config.to_string().into_bytes();
        Ok(Self { instance: Instance::start(&bytes, Rc::default(), 1, random)? })
    }

    /// The plan of a turn of a session, and its number among the requests under way; `None` if it
    /// is refused.
    pub(crate) fn ask(&self, session: &str, now: Timestamp) -> Option<(Plan, u32)> {
        let Instance { router, shared, .. } = &self.instance;
        let headers: Headers = [
            (":method", "POST"),
            (":path", "/v1/messages"),
            (":authority", "gateway"),
            ("content-type", "application/json"),
            ("x-session-id", session),
        ]
        .into_iter()
        .collect();
        let body = br#"{"model":"claude-opus-5","messages":[]}"#;
        let request = Request::new(&headers, router.read(body, BodyNeed::Beginning));
        match router.route(&request, &**shared, now) {
            Decision::Route(route) => {
                let ticket = self.instance.begin_flight(route.pool, route.credential, now);
                Some((router.plan(&route, now), ticket))
            }
            Decision::Reply(_) | Decision::Pass => None,
        }
    }

    /// Sends the next attempt of a plan. The id of its credential; `None` if there is none.
    pub(crate) fn send(&self, plan: &mut Plan, ticket: u32, now: Timestamp) -> Option<String> {
        match self.instance.router.attempt(plan, "", &*self.instance.shared, now)? {
            NextStep::Send { credential, .. } => {
                self.instance.move_flight(ticket, credential, now);
                Some(credential.id.clone())
            }
            NextStep::Reply(_) => None,
        }
    }

    /// An attempt is answered. Whether another one follows.
    pub(crate) fn answer(&self, plan: &mut Plan, answer: &Answer, now: Timestamp) -> bool {
        let (status, headers) = answer;
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let body: &[u8] = match status {
            429 => br#"{"type":"error","error":{"type":"rate_limit_error","message":"limit"}}"#,
            _ => b"",
        };
        let response = Response::Received { status: *status, headers: &headers, body };
        let Instance { router, shared, .. } = &self.instance;
        router.observe(plan, &response, &**shared, now).next.is_some()
    }

    /// A whole turn. The credential that served it.
    fn play(&self, session: &str, now: Timestamp, says: impl Fn(&str) -> Answer) -> Option<String> {
        let (mut plan, ticket) = self.ask(session, now)?;
        let mut served = None;
        while let Some(id) = self.send(&mut plan, ticket, now) {
            let answer = says(&id);
            let has_next = self.answer(&mut plan, &answer, now);
            if answer.0 == 200 {
                served = Some(id);
                break;
            }
            if !has_next {
                break;
            }
        }
        self.instance.end_flight(ticket, now);
        served
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(BEGIN + seconds * 1_000)
}

fn gateway(strategy: &str, seed: u64) -> Result<Gateway> {
    let credentials: Vec<_> = ACCOUNTS.iter().map(|id| json!({"id": id, "cluster": id})).collect();
    let routing = json!({"strategy": strategy, "seed": "one fleet"});
    Gateway::new(&routing, &json!(credentials), &json!({}), seed)
}

fn count(counts: &mut [u32; 4], id: &str) {
    if let Some(place) = ACCOUNTS.iter().position(|it| *it == id)
        && let Some(count) = counts.get_mut(place)
    {
        *count += 1;
    }
}

/// How a hundred sessions spread that are decided before any of them is answered.
///
/// # Errors
/// If the configuration is refused, or a session is.
pub fn starts(strategy: &str, seed: u64) -> Result<[u32; 4]> {
    let gateway = gateway(strategy, seed)?;
    let mut counts = [0; 4];
    for session in 0..STARTS {
        let (mut plan, ticket) = gateway.ask(&format!("s{session}"), at(0)).context("refused")?;
        let id = gateway.send(&mut plan, ticket, at(0)).context("not sent")?;
        count(&mut counts, &id);
    }
    Ok(counts)
}

/// An account that tells how much of its five hours is used, in percent.
fn tells(used: u32) -> Vec<(String, String)> {
    let name = |name: &str| format!("anthropic-ratelimit-unified-{name}");
    let status = if used < 100 { "allowed" } else { "rejected" };
    vec![
        (name("status"), status.to_owned()),
        (name("5h-status"), status.to_owned()),
        (name("5h-utilization"), format!("{:.2}", f64::from(used) / 100.0)),
        (name("5h-reset"), (BEGIN / 1_000 + 3_600).to_string()),
    ]
}

/// Where the sessions of an account go that runs out.
///
/// # Errors
/// If the configuration is refused, or a session is.
pub fn runs_out(strategy: &str, seed: u64) -> Result<[u32; 4]> {
    let gateway = gateway(strategy, seed)?;
    let before = |_: &str| (200, tells(10));
    let after = |id: &str| match USED.iter().find(|(other, _)| *other == id) {
        Some((_, used)) => (200, tells(*used)),
        None => (429, tells(100)),
    };
    let (mut of_a, mut others) = (Vec::new(), Vec::new());
    for session in 0..10_000 {
        let session = format!("s{session}");
        match gateway.play(&session, at(0), before).context("refused")?.as_str() {
            "a" => of_a.push(session),
            _ => others.push(session),
        }
        if of_a.len() == HOMELESS {
            break;
        }
    }
    if of_a.len() < HOMELESS {
        bail!("{strategy}: too few sessions on the first account");
    }
    for session in &others {
        gateway.play(session, at(10), after);
    }
    // Where a strategy has no sessions on the others, a single one has them tell.
    for (id, _) in USED {
        let probe = format!("probe of {id}");
        gateway.play(&probe, at(10), after);
    }
    let mut counts = [0; 4];
    for session in &of_a {
        let served = gateway.play(session, at(20), after).context("refused")?;
        count(&mut counts, &served);
    }
    Ok(counts)
}

/// The tables.
///
/// # Errors
/// If a simulation fails.
pub fn markdown(seed: u64) -> Result<String> {
    let mut text = "## A hundred sessions start at once on four equal accounts\n\n\
                    | strategy | a | b | c | d | most, of its share |\n|---|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for strategy in STRATEGIES {
        let [a, b, c, d] = starts(strategy, seed)?;
        let most = f64::from(a.max(b).max(c).max(d)) / 25.0;
        writeln!(text, "| {strategy} | {a} | {b} | {c} | {d} | {most:.2} |")?;
    }
    text.push_str(
        "\n## An account runs out with 47 sessions on it\n\nThe others have used 20, 50 and 80 % of their \
         five hours.\n\n| strategy | b, 20 % | c, 50 % | d, 80 % |\n|---|--:|--:|--:|\n",
    );
    for strategy in STRATEGIES {
        let [_, b, c, d] = runs_out(strategy, seed)?;
        writeln!(text, "| {strategy} | {b} | {c} | {d} |")?;
    }
    Ok(text)
}
