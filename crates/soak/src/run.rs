//! One run: an Envoy, its providers, its clients, and what comes of them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use envoy_harness::{Envoy, Mode};
use tokio::sync::RwLock;
use tokio::task::JoinSet;

use crate::client::{self, Message};
use crate::gateway::{ACCESS, Gateway};
use crate::history::{Digest, Ending, History, Kept, Recorder, Request, SECOND, Time};
use crate::oracle::{Abilities, Known, Setting};
use crate::outages;
use crate::provider::Scene;
use crate::session::Session;
use crate::world;

/// Sessions at a time.
const CLIENTS: usize = 64;

/// For so long it may take until nothing is under way any more.
const QUIET: Duration = Duration::from_secs(40);

/// How the filter chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Strategy {
    /// Each credential in turn
    RoundRobin,
    /// The one with the most room, by what providers tell of their limits
    Headroom,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::RoundRobin, Self::Headroom];

    /// Its name in the configuration and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::Headroom => "headroom",
        }
    }
}

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the filter is wired.
    pub mode: Mode,
    /// How it chooses.
    pub strategy: Strategy,
    /// Threads of Envoy.
    pub workers: u32,
    /// What all that is sent follows from.
    pub seed: u64,
    /// How long sessions begin.
    pub length: Duration,
    /// Whether VMs are trapped; the module has to be one that does.
    pub traps: bool,
}

impl Plan {
    /// What the oracle has to know of it.
    pub(crate) fn setting(&self, envoy: &Envoy) -> Setting {
        Setting {
            fails_over: self.mode != Mode::NextRequest,
            shares_port: self.mode == Mode::Keys,
            has_keys: self.mode != Mode::Replicas,
            spares: self.strategy == Strategy::Headroom,
            envoy: Abilities::of(envoy.version),
        }
    }
}

/// What the tasks of clients share.
struct Clients {
    recorder: Recorder,
    plan: Plan,
    address: std::net::SocketAddr,
    sessions: AtomicU64,
    until: Time,
    /// Held by every turn; whoever wants silence takes it alone.
    silence: RwLock<()>,
}

/// Runs a plan, and returns what happened.
///
/// # Errors
/// If Envoy does not start, or ends by itself, or a part of the machinery fails.
pub async fn run(envoy: &Envoy, module: &Path, plan: &Plan) -> Result<History> {
    let recorder = Recorder::new();
    let pools = world::pools(plan.mode);
    let has_keys = plan.mode != Mode::Replicas;
    let scene = Scene {
        recorder: recorder.clone(),
        outages: Arc::default(),
        kept: Arc::default(),
        has_keys,
    };
    let mut ports = outages::ports(plan.mode, &scene).await?;
    let mut gateway = Gateway::start(envoy, module, plan, &ports).await?;
    let until = recorder.now() + u64::try_from(plan.length.as_micros())?;
    let clients = Arc::new(Clients {
        recorder: recorder.clone(),
        plan: plan.clone(),
        address: gateway.envoy.address(),
        sessions: AtomicU64::new(0),
        until,
        silence: RwLock::new(()),
    });
    let mut tasks = JoinSet::new();
    for _ in 0..CLIENTS {
        let clients = Arc::clone(&clients);
        tasks.spawn(async move { clients.play().await });
    }
    // A quarter of the time is for everything to reach its size.
    tokio::time::sleep(plan.length / 4).await;
    let mut ending = Ending::default();
    {
        let _silence = clients.silence.write().await;
        quiet(&gateway, false).await?;
        ending.memory_before = gateway.stat("server.memory_allocated").await?;
        ending.resident_before = gateway.envoy.resident_memory()?;
    }
    let outages = outages::play(&scene, pools, &mut ports, plan.seed, until);
    let updates = outages::update(&mut gateway, &recorder, pools, plan, until);
    tokio::try_join!(outages, updates)?;
    while let Some(task) = tasks.join_next().await {
        task.context("a client has panicked")??;
    }
    ending.left = quiet(&gateway, true).await?;
    let mut history = recorder.history();
    let known = Known::of(&history, plan.setting(envoy));
    read_ending(&gateway, &known, &mut ending).await?;
    gateway.envoy.stop().await?;
    history.ending = ending;
    Ok(history)
}

/// Waits until nothing is under way, and returns what is. What the filter counts as in flight at a
/// credential is only waited for at the end: a VM that went with requests leaves its number behind,
/// which counts for half a minute.
async fn quiet(gateway: &Gateway, is_end: bool) -> Result<Vec<(String, u64)>> {
    let begun = Instant::now();
    loop {
        let stats = gateway.envoy.stats("").await?;
        let is_gauge = |name: &str| {
            name == "http.llm.downstream_rq_active"
                || (is_end && name.contains("credential_requests_in_flight"))
                || name == "http.llm.downstream_cx_active"
                || name == "http.llm.downstream_cx_upgrades_active"
                || (name.starts_with("cluster.")
                    && ["upstream_rq_active", "upstream_rq_pending_active", "rq_retry_open"]
                        .iter()
                        .any(|gauge| name.ends_with(gauge)))
        };
        // Clients keep connections while they are silent, until the end.
        let left: Vec<_> = stats.into_iter().filter(|(name, n)| *n > 0 && is_gauge(name)).collect();
        let has_requests = left.iter().any(|(name, _)| !name.ends_with("downstream_cx_active"));
        let may_keep = !is_end && !has_requests && begun.elapsed() > Duration::from_secs(2);
        if left.is_empty() || may_keep || begun.elapsed() > QUIET {
            return Ok(left);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn read_ending(gateway: &Gateway, known: &Known, ending: &mut Ending) -> Result<()> {
    let begun = Instant::now();
    loop {
        let before = (ending.counted_requests, ending.counted_successes);
        ending.counted_requests =
            gateway.counted("session_affinity_requests_total", "outcome=").await?;
        ending.counted_successes =
            gateway.counted("session_affinity_attempts_total", "class=.=success").await?;
        let now = (ending.counted_requests, ending.counted_successes);
        ending.reloads = gateway.counted(".vm_reload_success", "wasm.").await?;
        // A VM that traps loses some.
        let is_all = (now.0 >= known.decided && now.1 >= known.served) || ending.reloads > 0;
        if (is_all && now == before) || begun.elapsed() > QUIET {
            break;
        }
        // The filter hands its counts over every second, if its worker runs.
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    ending.memory_after = gateway.stat("server.memory_allocated").await?;
    ending.resident_after = gateway.envoy.resident_memory()?;
    // A trap is an error of Envoy's, and one that was asked for.
    let is_bad = |line: &&String| {
        ending.reloads == 0 && (line.contains("][critical]") || line.contains("][error]"))
    };
    let log = gateway.envoy.log();
    ending.complaints = log.iter().filter(is_bad).take(20).cloned().collect();
    ending.access_log = log.iter().filter_map(|line| access(line)).collect();
    Ok(())
}

/// The id of a request, and what the access log says of it.
fn access(line: &str) -> Option<(u64, String)> {
    let (id, rest) = line.strip_prefix(ACCESS)?.split_once(' ')?;
    Some((id.parse().ok()?, rest.to_owned()))
}

impl Clients {
    /// Plays sessions, one after the other.
    async fn play(&self) -> Result<()> {
        while self.recorder.now() < self.until {
            let number = self.sessions.fetch_add(1, Ordering::Relaxed);
            let session = Session::new(self.plan.seed, number, self.plan.mode);
            let (mut kept, mut previous) = (None, session.beginning());
            for turn in 0..session.turns {
                if self.recorder.now() >= self.until {
                    break;
                }
                self.turn(&session, turn, &mut kept, &mut previous).await?;
            }
        }
        Ok(())
    }

    async fn turn(
        &self,
        session: &Session,
        number: usize,
        kept: &mut Option<client::Connection>,
        previous: &mut Option<Kept>,
    ) -> Result<()> {
        let turn = session.turn(number, *previous);
        tokio::time::sleep(turn.pause).await;
        let _noise = self.silence.read().await;
        if turn.on_new_connection {
            *kept = None;
        }
        let id = session.number * 100 + number as u64;
        let mut headers = client::headers(&turn.headers)?;
        headers.insert("x-soak-id", id.into());
        // What is asked for on a WebSocket is not known when it is opened.
        let model = if turn.messages.is_empty() { session.model.as_str() } else { "" };
        let model = model.escape_default().to_string();
        headers.insert("x-soak-model", model.as_str().try_into()?);
        let message = Message {
            path: &turn.path,
            headers: &headers,
            body: turn.body.clone(),
            messages: &turn.messages,
            manner: turn.manner,
        };
        let began = self.recorder.now();
        let end = client::send(self.address, session.is_http2, kept, &message).await;
        let refers_to = *previous;
        *previous = session.previous(id, &end).unwrap_or(refers_to);
        self.recorder.request(Request {
            id,
            session: session.number,
            pool: session.pool.name,
            model,
            named_by: turn.named_by,
            protocol: session.protocol(),
            manner: turn.manner.word(),
            body: Digest::of(&turn.body),
            is_slow_upload: turn.manner == client::Manner::SlowUpload,
            may_be_refused: turn.may_be_refused,
            refers_to,
            began,
            ended: self.recorder.now(),
            end,
        });
        Ok(())
    }
}

/// Seconds of a time, for people.
pub(crate) fn seconds(time: Time) -> f64 {
    time as f64 / SECOND as f64
}
