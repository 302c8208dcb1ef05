//! The Envoy of a run: its configuration in files, which change while it runs.

#![allow(clippy::indexing_slicing, reason = "what a JSON value lacks is null")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use envoy_config::{EnvoyConfig, File, Source, secret_file};
use envoy_harness::client::{self, Protocol};
use envoy_harness::{Envoy, Fixture, Mode, Process};
use hyper::Request;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::history::{Name, Recorder, State, Update};
use crate::port::Port;
use crate::run::Plan;
use crate::world::{self, Pool};

/// For so long an update is waited for. One that takes longer is noted as settled then.
const SETTLING: Duration = Duration::from_secs(20);

/// The longest cooldowns, short enough that a run sees their ends. In seconds.
pub(crate) const COOLDOWN_MAX: u64 = 5;
/// The longest cooldown that a provider may announce.
pub(crate) const COOLDOWN_TOLD: u64 = 15;
/// How many credentials a request may be sent to.
pub(crate) const MAX_ATTEMPTS: usize = 3;

/// How a line of the access log begins; then comes the id of the request.
pub(crate) const ACCESS: &str = "soak ";

/// An Envoy whose configuration is in files.
pub(crate) struct Gateway {
    pub(crate) envoy: Process,
    plan: Plan,
    module: PathBuf,
    directory: TempDir,
    /// The port of each credential.
    addresses: BTreeMap<Name, String>,
    states: BTreeMap<Name, State>,
    /// How often the listener was replaced.
    listeners: u32,
}

impl Gateway {
    pub(crate) async fn start(
        envoy: &Envoy,
        module: &Path,
        plan: &Plan,
        ports: &[Port],
    ) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let addresses = ports
            .iter()
            .flat_map(|port| port.credentials.iter().map(|it| (*it, port.address.to_string())))
            .collect();
        let (states, module) = (BTreeMap::new(), module.to_owned());
        let files = files(plan, &module, &addresses, &states, directory.path(), 0)?;
        let mut secrets = BTreeSet::new();
        files.iter().for_each(|file| collect_secrets(&file.content, &mut secrets));
        for secret in secrets {
            let keys = world::pools(plan.mode).iter().flat_map(|pool| pool.credentials);
            let mut keys =
                keys.filter(|it| secret.ends_with(&format!("{}_key", it.replace('-', "_"))));
            let owner = keys.next().with_context(|| format!("whose is the secret {secret}?"))?;
            write(directory.path(), &secret_file(&secret, &world::key(owner)))?;
        }
        files.iter().try_for_each(|file| write(directory.path(), file))?;
        let bootstrap = files.first().context("there is no bootstrap")?;
        let fixture = Fixture::without_filter(bootstrap.content.clone());
        let envoy = Process::start(envoy, &fixture, plan.workers, &[]).await?;
        Ok(Self { envoy, plan: plan.clone(), module, directory, addresses, states, listeners: 0 })
    }

    /// The states of the credentials that are not active.
    pub(crate) fn states(&self) -> &BTreeMap<Name, State> {
        &self.states
    }

    /// Sets the state of a credential; `None` makes it active.
    pub(crate) async fn set(
        &mut self,
        credential: Name,
        state: Option<State>,
        recorder: &Recorder,
    ) -> Result<()> {
        let removes = state == Some(State::Absent);
        match state {
            Some(state) => self.states.insert(credential, state),
            None => self.states.remove(credential),
        };
        let began = recorder.now();
        let before = self.reloads().await?;
        let mut files = self.files()?;
        // Clusters before the filter that names them, or, where one goes, the other way round.
        let order = ["clusters.yaml", "routes.yaml"];
        files.sort_by_key(|file| {
            order.iter().position(|name| *name == file.name).unwrap_or(order.len())
        });
        if removes {
            files.reverse();
        }
        let is_changed =
            |file: &&File| file.name != "listeners.yaml" && file.name != "bootstrap.yaml";
        files.iter().filter(is_changed).try_for_each(|file| write(self.directory.path(), file))?;
        self.until(async |this| {
            let now = this.reloads().await?;
            Ok(before.iter().all(|(name, count)| now.get(name).is_some_and(|it| it > count)))
        })
        .await?;
        recorder.update(Update {
            began,
            settled: recorder.now(),
            states: self.states.clone(),
            changes: vec![credential],
            ..Update::default()
        });
        Ok(())
    }

    /// Replaces the listener by one that differs in a limit of no importance.
    pub(crate) async fn replace_listener(&mut self, recorder: &Recorder) -> Result<()> {
        self.listeners += 1;
        let began = recorder.now();
        let before = self.stat("listener_manager.lds.update_success").await?;
        for file in self.files()?.iter().filter(|file| file.name == "listeners.yaml") {
            write(self.directory.path(), file)?;
        }
        self.until(async |this| {
            let accepted = this.stat("listener_manager.lds.update_success").await? > before;
            let warming = this.stat("listener_manager.total_listeners_warming").await?;
            let draining = this.stat("listener_manager.total_listeners_draining").await?
                + this.stat("listener_manager.total_filter_chains_draining").await?;
            Ok(accepted && warming + draining == 0)
        })
        .await?;
        recorder.update(Update {
            began,
            settled: recorder.now(),
            states: self.states.clone(),
            is_listener: true,
            ..Update::default()
        });
        Ok(())
    }

    /// Traps the VM of a worker, and waits until it has another one.
    pub(crate) async fn trap(&self, recorder: &Recorder) -> Result<()> {
        let began = recorder.now();
        let before = self.counted(".vm_reload_success", "wasm.").await?;
        let begun = Instant::now();
        let mut has_trapped = false;
        loop {
            let mut request = Request::post("/of-no-pool");
            if !has_trapped {
                request = request.header("x-trap", "now");
            }
            let request = request.body(client::empty())?;
            // What comes of it does not matter: some worker traps, and some worker is asked.
            let _ = client::send(self.envoy.address(), Protocol::Http1, request).await;
            has_trapped = true;
            let now = self.counted(".vm_reload_success", "wasm.").await?;
            if now > before || begun.elapsed() > SETTLING {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (settled, states) = (recorder.now(), self.states.clone());
        recorder.update(Update { began, settled, states, is_trap: true, ..Update::default() });
        Ok(())
    }

    /// A number of Envoy's; 0 if it has none of that name.
    pub(crate) async fn stat(&self, name: &str) -> Result<u64> {
        Ok(self.envoy.stats(name).await?.get(name).copied().unwrap_or_default())
    }

    /// The sum of what the filter has counted in a metric, for the labels with this text.
    pub(crate) async fn counted(&self, metric: &str, label: &str) -> Result<u64> {
        let stats = self.envoy.stats("").await?;
        let of_metric = stats.iter().filter(|(name, _)| name.ends_with(metric));
        Ok(of_metric.filter(|(name, _)| name.contains(label)).map(|(_, count)| count).sum())
    }

    fn files(&self) -> Result<Vec<File>> {
        let root = self.directory.path();
        files(&self.plan, &self.module, &self.addresses, &self.states, root, self.listeners)
    }

    /// How often the filter has got a new configuration, in each of its roles.
    async fn reloads(&self) -> Result<BTreeMap<String, u64>> {
        let mut stats = self.envoy.stats("extension_config_discovery.").await?;
        stats.retain(|name, _| name.ends_with(".config_reload"));
        Ok(stats)
    }

    async fn until(&self, is_so: impl AsyncFn(&Self) -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        while !is_so(self).await? && begun.elapsed() < SETTLING {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

fn files(
    plan: &Plan,
    module: &Path,
    addresses: &BTreeMap<Name, String>,
    states: &BTreeMap<Name, State>,
    root: &Path,
    listeners: u32,
) -> Result<Vec<File>> {
    let mode = plan.mode;
    let pools = world::pools(mode).iter();
    let pools: Vec<_> = pools.map(|pool| pool_input(pool, mode, addresses, states)).collect();
    let max = format!("{COOLDOWN_MAX}s");
    let mut input = json!({
        "listener": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "module": module,
        "show_decision": true,
        "filter": {
            "routing": {"strategy": plan.strategy.as_str(), "session_affinity_ttl": "1h"},
            "failover": {"max_attempts": MAX_ATTEMPTS, "return": "while-warm"},
            "cooldown": {"max": max, "transient": max, "denied": max, "not_found": max,
                "max_told": format!("{COOLDOWN_TOLD}s")},
            "body": {"max_bytes": 8 << 20},
        },
        "pools": pools,
    });
    let root = root.to_str().context("the directory is not UTF-8")?;
    // Keys from the environment are named in the configuration of the VM: with every credential that
    // comes or goes, all VMs would be new, and with them what they had counted.
    if mode != Mode::Replicas {
        input["secrets"] = json!(format!("{root}/secrets"));
    }
    let config = EnvoyConfig::parse(&input.to_string(), mode)?;
    let mut files = config.split(&Source::Files(root.to_owned()))?;
    let timeout = format!("{}s", 300 + listeners);
    for file in files.iter_mut().filter(|file| file.name == "listeners.yaml") {
        let manager = "/resources/0/filter_chains/0/filters/0/typed_config";
        let manager = file.content.pointer_mut(manager).context("no connection manager")?;
        manager["request_timeout"] = json!(timeout);
        let format = "/access_log/0/typed_config/log_format/text_format_source/inline_string";
        let format = manager.pointer_mut(format).context("no access log")?;
        let usual = format.as_str().unwrap_or_default();
        *format = json!(format!("{ACCESS}%REQ(x-soak-id)% {usual}"));
    }
    Ok(files)
}

fn pool_input(
    pool: &Pool,
    mode: Mode,
    addresses: &BTreeMap<Name, String>,
    states: &BTreeMap<Name, State>,
) -> Value {
    let address = |credential: Name| addresses.get(credential).map(String::as_str).unwrap_or("");
    let is_there = |credential: &&Name| states.get(**credential) != Some(&State::Absent);
    let credentials = pool.credentials.iter().filter(is_there).map(|credential| {
        let state = match states.get(credential) {
            Some(State::Draining) => "drain",
            Some(State::Disabled) => "disabled",
            Some(State::Absent) | None => "active",
        };
        let mut input = json!({"id": credential, "state": state});
        match mode {
            Mode::Replicas => input["endpoint"] = json!(address(credential)),
            _ => input["key"] = json!("FROM_A_FILE"),
        }
        if matches!(mode, Mode::Clusters | Mode::NextRequest) {
            input["upstream"] = json!(format!("http://{}", address(credential)));
        }
        input
    });
    let mut input = json!({
        "name": pool.name,
        "provider": pool.provider,
        "api": pool.api,
        "credentials": credentials.collect::<Vec<_>>(),
    });
    if mode == Mode::Keys {
        let first = pool.credentials.first().copied().unwrap_or_default();
        input["upstream"] = json!(format!("http://{}", address(first)));
    }
    if mode != Mode::Replicas {
        input["key_header"] = json!(pool.key_header);
    }
    input
}

/// The names of the secrets that a part of the configuration reads from files.
fn collect_secrets(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if members.contains_key("sds_config")
                && let Some(name) = members.get("name").and_then(Value::as_str)
            {
                names.insert(name.to_owned());
            }
            members.values().for_each(|member| collect_secrets(member, names));
        }
        Value::Array(elements) => {
            elements.iter().for_each(|element| collect_secrets(element, names));
        }
        _ => {}
    }
}

/// Replaces a file by a rename, as Envoy expects.
fn write(root: &Path, file: &File) -> Result<()> {
    let path = root.join(&file.name);
    fs::create_dir_all(path.parent().context("no directory")?)?;
    let new = PathBuf::from(format!("{}.new", path.display()));
    fs::write(&new, file.yaml(""))?;
    Ok(fs::rename(new, path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Strategy;

    #[test]
    fn every_way_has_a_configuration_whatever_the_states() {
        for mode in Mode::ALL {
            let pools = world::pools(mode).iter();
            let credentials: Vec<Name> = pools.flat_map(|pool| pool.credentials).copied().collect();
            let addresses =
                credentials.iter().zip(1..).map(|(it, n)| (*it, format!("127.0.0.1:{n}")));
            let states = [State::Draining, State::Disabled, State::Absent];
            let states = credentials.iter().copied().zip(states).collect();
            let made = files(
                &Plan {
                    mode,
                    strategy: Strategy::Headroom,
                    workers: 1,
                    seed: 1,
                    length: Duration::ZERO,
                    traps: false,
                },
                Path::new("m.wasm"),
                &addresses.collect(),
                &states,
                Path::new("/run"),
                1,
            );
            assert!(made.unwrap().len() > 3, "{mode:?}");
        }
    }
}
