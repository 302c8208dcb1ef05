//! No client can make the filter refuse another one: for every sequence of responses to the
//! requests of one client, no request is refused unless a provider announced the end of a limit of
//! every credential that could serve it, and then no longer than that.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use session_affinity::config::Availability;
use session_affinity::cooldown::FIRST;
use session_affinity::request::Headers;
use session_affinity::response::{Failure, Response};
use session_affinity::router::{Decision, NextStep, Plan, Refusal, Route};
use session_affinity::signals::{self, Class, Evidence, Reading};
use session_affinity::time::Timestamp;
use world::World;

/// What providers say in errors, each in the words of its API.
struct Vector {
    path: String,
    provider: String,
    model: String,
    status: u16,
    headers: Headers,
    body: Vec<u8>,
}

static VECTORS: LazyLock<Vec<Vector>> =
    LazyLock::new(|| include_str!("vectors/signals.jsonl").lines().map(vector).collect());

fn vector(line: &str) -> Vector {
    let row: Value = serde_json::from_str(line).unwrap();
    let text = |name: &str| row[name].as_str().unwrap().to_owned();
    let model = text("model");
    let path = match row["api"].as_str().unwrap() {
        "anthropic" => "/v1/messages".to_owned(),
        "openai" => "/v1/chat/completions".to_owned(),
        "azure" => format!("/openai/deployments/{model}/chat/completions"),
        "gemini" => format!("/v1beta/models/{model}:generateContent"),
        "bedrock" => format!("/model/{model}/converse"),
        other => panic!("{other}"),
    };
    let members = row["headers"].as_object().unwrap();
    let headers =
        members.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
    let body = match &row["body"] {
        Value::String(text) => text.clone().into_bytes(),
        document => document.to_string().into_bytes(),
    };
    let status = row["status"].as_u64().unwrap() as u16;
    Vector { path, provider: text("provider"), model, status, headers, body }
}

/// How an attempt of the client ends.
#[derive(Clone, Debug)]
enum End {
    /// A response of a provider.
    Says(Index),
    /// The same in a stream, after its `200`.
    Event(Index),
    Status(u16),
    Failed(Index),
    /// The stream breaks off after it has begun.
    Cut,
    /// The client leaves.
    Left,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// The client sends a request.
    Request {
        session: Option<u8>,
        /// The API and the model.
        like: Index,
        counts_tokens: bool,
        ends: Vec<End>,
        /// Envoy carries out no retry after so many attempts.
        retries: u8,
        /// Another request of the session is sent before this one ends.
        overlaps: bool,
    },
    Pass(u64),
    SetClockBack(u64),
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        6 => any::<Index>().prop_map(End::Says),
        1 => any::<Index>().prop_map(End::Event),
        4 => prop::sample::select(
            vec![200, 400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529]
        ).prop_map(End::Status),
        2 => any::<Index>().prop_map(End::Failed),
        1 => Just(End::Cut),
        1 => Just(End::Left),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let request = (
        prop::option::of(0_u8..4),
        any::<Index>(),
        prop::bool::weighted(0.1),
        prop::collection::vec(end(), 1..6),
        prop_oneof![4 => Just(u8::MAX), 1 => 0_u8..3],
        prop::bool::weighted(0.1),
    );
    let request = request.prop_map(|(session, like, counts_tokens, ends, retries, overlaps)| {
        Step::Request { session, like, counts_tokens, ends, retries, overlaps }
    });
    let pauses = vec![0, 1, 300, 1_000, 5_000, 61_000, 1_800_000, 43_200_000, 604_800_000];
    prop_oneof![
        6 => request,
        3 => prop::sample::select(pauses).prop_map(Step::Pass),
        1 => prop::sample::select(vec![500, 30_000, 7_200_000]).prop_map(Step::SetClockBack),
    ]
}

fn pool() -> impl Strategy<Value = Value> {
    (
        1_usize..6,
        prop::sample::select(vec!["round-robin", "fill-first", "consistent"]),
        any::<bool>(),
        any::<bool>(),
        1_u8..5,
        prop::collection::vec(
            prop::sample::select(vec!["active", "active", "drain", "disabled"]),
            5,
        ),
        any::<Index>(),
    )
        .prop_map(
            |(count, strategy, shares_a_cluster, strict, max_attempts, states, provider)| {
                let credentials: Vec<_> = (0..count)
                .map(|at| {
                    let id = format!("c{at}");
                    let state = if at == 0 { "active" } else { states[at] };
                    if shares_a_cluster {
                        let headers = [json!({"name": "x-api-key", "header": format!("x-{id}")})];
                        json!({"id": id, "cluster": "shared", "headers": headers, "state": state})
                    } else {
                        json!({"id": id, "cluster": id, "state": state})
                    }
                })
                .collect();
                let provider = &provider.get(&VECTORS).provider;
                json!({
                    "routing": {"strategy": strategy},
                    "session": {"strict": strict, "max_bindings": 64},
                    "failover": {"max_attempts": max_attempts},
                    "pools": [{"name": "p", "provider": provider, "credentials": credentials}]
                })
            },
        )
}

/// A world in which the announced ends are noted down.
struct Observed {
    world: World,
    /// For every credential the latest end that a response announced.
    announced: HashMap<String, Timestamp>,
    has_clusters: bool,
}

impl Observed {
    fn route(&self, path: &str, model: &str, session: Option<&str>) -> Decision<'_> {
        let mut headers = vec![(":method", "POST"), (":path", path)];
        headers.extend(session.map(|session| ("x-session-id", session)));
        self.world.decide(&headers, &json!({"model": model}))
    }

    /// A request is refused only until an end that was announced for every credential that it may
    /// be sent to.
    fn check(&self, decision: &Decision<'_>, home: Option<&str>) {
        let Decision::Reply(Refusal { reply, pool, .. }) = decision else { return };
        let now = self.world.now;
        let candidates =
            pool.credentials.iter().filter(|it| it.availability == Availability::Active);
        let ends: Vec<_> = match home.filter(|_| pool.strict) {
            Some(home) => vec![self.announced.get(home)],
            None => candidates.map(|it| self.announced.get(&it.id)).collect(),
        };
        assert_eq!(reply.status, 429, "{decision}");
        let first = ends.into_iter().map(|end| {
            let left = end.unwrap_or_else(|| panic!("no end was announced: {decision}")).since(now);
            assert!(left > Duration::ZERO, "it is over: {decision}");
            left.as_millis().div_ceil(1000) as u64
        });
        let first = first.min().unwrap();
        assert!(reply.retry_after <= Some(first), "{:?} > {first}: {decision}", reply.retry_after);
    }

    fn note(&mut self, plan: &Plan, reading: &Reading) {
        let pool = self.world.router.pool_of(plan).unwrap();
        let Some(credential) = plan.current.and_then(|id| pool.credential(id)) else { return };
        let max_told = self.world.router.config().cooldown.max_told;
        if let Some(wait) = reading.wait.filter(|_| reading.evidence == Evidence::Proof) {
            let end = self.world.now + wait.clamp(FIRST, max_told);
            let known = self.announced.entry(credential.id.clone()).or_default();
            *known = end.max(*known);
        }
    }

    /// Ends the current attempt; returns whether Envoy is to make another one.
    fn end(&mut self, plan: &mut Plan, end: &End) -> bool {
        let vector = match end {
            End::Says(index) | End::Event(index) => Some(index.index(VECTORS.len())),
            _ => None,
        };
        let provider = self.world.router.pool_of(plan).unwrap().provider.clone().unwrap();
        let model = plan.model.clone();
        let context = signals::Context { api: plan.api, provider: &provider, model: &model };
        let now = self.world.now;
        let none = Headers::default();
        let (status, headers, body) = match vector.map(|at| &VECTORS[at]) {
            Some(vector) => (vector.status, vector.headers.clone(), vector.body.clone()),
            None => (if let End::Status(status) = end { *status } else { 200 }, none, Vec::new()),
        };
        let reading = match end {
            End::Left => return false,
            End::Event(_) => {
                let reading = signals::read(0, &headers, &body, &context, now);
                if reading.class == Class::Success { Reading::EMPTY_STREAM } else { reading }
            }
            _ => signals::read(status, &headers, &body, &context, now),
        };
        let response = match end {
            End::Failed(index) => Response::Failed(Failure::ALL[index.index(Failure::ALL.len())]),
            End::Event(_) => Response::ErrorEvent(reading),
            _ => Response::Received { status, headers: &headers, body: &body },
        };
        let verdict = self.world.router.observe(plan, &response, &self.world.shared, now);
        let goes_on = verdict.next.is_some();
        if matches!(end, End::Cut) {
            self.world.router.observe_cut(plan, &self.world.shared, now);
        }
        self.note(plan, &reading);
        goes_on
    }

    /// Sends a request as Envoy does.
    fn send(&mut self, mut plan: Plan, ends: &[End], retries: u8) {
        let mut sent = Vec::new();
        loop {
            if self.has_clusters {
                plan = Plan::decode(&plan.encode()).unwrap();
                let pool = self.world.router.pool_of(&plan).unwrap();
                let next = pool.credential(plan.next.unwrap()).unwrap();
                let (id, cluster) = (next.id.clone(), next.cluster.clone());
                let (shared, now) = (&self.world.shared, self.world.now);
                match self.world.router.attempt(&mut plan, &cluster, shared, now) {
                    Some(NextStep::Send { credential, .. }) => assert_eq!(credential.id, id),
                    other => panic!("{other:?}"),
                }
                sent.push(id);
            }
            let goes_on = self.end(&mut plan, &ends[sent.len().saturating_sub(1) % ends.len()]);
            if !goes_on {
                break;
            }
            assert!(self.has_clusters, "without a filter on the cluster there is no retry");
            if sent.len() > usize::from(retries) {
                self.world.router.abandon(&mut plan, &self.world.shared, self.world.now);
                break;
            }
        }
        let most = usize::from(plan.max_attempts) + usize::from(plan.is_repeated);
        assert!(sent.len() <= most, "{sent:?}");
        let repeated = (1..sent.len()).filter(|&at| sent[at] == sent[at - 1]).count();
        assert!(repeated <= usize::from(plan.is_repeated), "{sent:?}");
        sent.dedup();
        sent.sort_unstable();
        let count = sent.len();
        sent.dedup();
        assert_eq!(sent.len(), count, "a credential was tried twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_request_is_refused_unless_a_provider_announced_an_end(
        config in pool(),
        steps in prop::collection::vec(step(), 1..40),
        has_clusters: bool,
        other_model: Index,
    ) {
        let mut observed = Observed {
            world: World::of(&config),
            announced: HashMap::new(),
            has_clusters,
        };
        let plan_of = |observed: &Observed, route: &Route<'_>| {
            observed.world.router.plan(route, observed.world.now)
        };
        // Another client has a session with a home.
        let bound = (other_model.get(&VECTORS).path.clone(), "other-model");
        let home = match observed.route(&bound.0, bound.1, Some("bound")) {
            Decision::Route(route) => {
                (route.credential.id.clone(), plan_of(&observed, &route))
            }
            other => panic!("{other:?}"),
        };
        observed.send(home.1, &[End::Status(200)], u8::MAX);
        let mut last = (bound.0.clone(), bound.1.to_owned());
        for (number, step) in steps.iter().enumerate() {
            match step {
                Step::Pass(milliseconds) => {
                    observed.world.now += Duration::from_millis(*milliseconds);
                }
                Step::SetClockBack(milliseconds) => {
                    let back = Duration::from_millis(*milliseconds);
                    let now = observed.world.now;
                    observed.world.now = Timestamp::EPOCH + now.since(Timestamp::EPOCH + back);
                }
                Step::Request { session, like, counts_tokens, ends, retries, overlaps } => {
                    let vector = like.get(&VECTORS);
                    let path = match (*counts_tokens, vector.path.as_str()) {
                        (true, "/v1/messages") => "/v1/messages/count_tokens",
                        (_, path) => path,
                    };
                    last = (path.to_owned(), vector.model.clone());
                    let session = session.map(|session| session.to_string());
                    let mut plans = Vec::new();
                    for _ in 0..=u8::from(*overlaps) {
                        let decision = observed.route(&last.0, &last.1, session.as_deref());
                        // Where sessions are strict, its own home may have announced an end.
                        let strict_home = config["session"]["strict"] == true;
                        if session.is_none() || !strict_home {
                            observed.check(&decision, None);
                        }
                        if let Decision::Route(route) = &decision {
                            plans.push(plan_of(&observed, route));
                        }
                    }
                    while let Some(plan) = plans.pop() {
                        observed.send(plan, ends, *retries);
                    }
                }
            }
            // What others meet now: with the model and the API of the client, or their own.
            let new = format!("new-{number}");
            let requests = [
                (last.0.as_str(), last.1.as_str(), Some(new.as_str())),
                (last.0.as_str(), last.1.as_str(), None),
                (bound.0.as_str(), bound.1, Some(new.as_str())),
            ];
            for (path, model, session) in requests {
                observed.check(&observed.route(path, model, session), None);
            }
            let decision = observed.route(&bound.0, bound.1, Some("bound"));
            observed.check(&decision, Some(&home.0));
        }
    }
}
