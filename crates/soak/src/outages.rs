//! What lasts for a while: outages of credentials, and changes of the configuration.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::fault::Fault;
use crate::gateway::Gateway;
use crate::history::{Closed, Name, Recorder, SECOND, State, Time};
use crate::port::Port;
use crate::provider::{Outage, Scene};
use crate::run::Plan;
use crate::world::{self, Pool};
use simulate::random::Random;

/// Plays outages, one after the other in each pool, until the time is over.
pub(crate) async fn play(
    scene: &Scene,
    pools: &'static [Pool],
    ports: &mut [Port],
    seed: u64,
    until: Time,
) -> Result<()> {
    let mut random = Random::of(&[seed, u64::MAX]);
    while scene.recorder.now() < until {
        tokio::time::sleep(Duration::from_millis(random.between(200, 1500) as u64)).await;
        let Some(pool) = pools.get(random.below(pools.len())) else {
            continue;
        };
        let length = Duration::from_millis(random.between(500, 3000) as u64);
        match random.below(12) {
            0..2 => close(scene, pool, ports, &mut random, length).await?,
            2 => all_limited(scene, pool, &mut random).await,
            _ => one(scene, pool, &mut random, length).await,
        }
    }
    Ok(())
}

/// A credential whose port is closed.
async fn close(
    scene: &Scene,
    pool: &Pool,
    ports: &mut [Port],
    random: &mut Random,
    length: Duration,
) -> Result<()> {
    let credential = random.pick(pool.credentials).context("an empty pool")?;
    let port = ports.iter_mut().find(|port| port.credentials.contains(&credential));
    let port = port.context("a credential without a port")?;
    let from = scene.recorder.now();
    port.close().await;
    tokio::time::sleep(length).await;
    port.reopen().await?;
    let to = scene.recorder.now();
    scene.recorder.closed(Closed { credential, pool: pool.name, from, to });
    Ok(())
}

/// All credentials say how long they want to be left alone.
async fn all_limited(scene: &Scene, pool: &Pool, random: &mut Random) {
    let end = scene.recorder.now() + random.between(1500, 3500) as u64 * (SECOND / 1000);
    set(scene, pool.credentials, Some(Outage::LimitUntil(end)));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    set(scene, pool.credentials, None);
}

/// One credential is not well.
async fn one(scene: &Scene, pool: &Pool, random: &mut Random, length: Duration) {
    let Some(credential) = random.pick(pool.credentials) else {
        return;
    };
    let outage = match random.below(9) {
        0..3 => {
            let left = random.between(2000, 12_000) as u64;
            Outage::LimitUntil(scene.recorder.now() + left * (SECOND / 1000))
        }
        3 => Outage::Of(Fault::LimitUntold),
        4 => Outage::Of(Fault::Status(500)),
        5 => Outage::Of(Fault::Status(529)),
        6 => Outage::Of(Fault::Reset),
        7 => Outage::Of(Fault::Stall),
        _ => Outage::Of(Fault::Denied),
    };
    set(scene, &[credential], Some(outage));
    tokio::time::sleep(length).await;
    set(scene, &[credential], None);
}

fn set(scene: &Scene, credentials: &[Name], outage: Option<Outage>) {
    let mut outages = scene.outages.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for credential in credentials {
        match outage {
            Some(outage) => outages.insert(credential, outage),
            None => outages.remove(credential),
        };
    }
}

/// Changes the configuration every few seconds, until the time is over; then all credentials are
/// active again.
pub(crate) async fn update(
    gateway: &mut Gateway,
    recorder: &Recorder,
    pools: &'static [Pool],
    plan: &Plan,
    until: Time,
) -> Result<()> {
    let mut random = Random::of(&[plan.seed, u64::MAX - 1]);
    let mut number = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(random.between(1500, 4000) as u64)).await;
        if recorder.now() >= until {
            return Ok(());
        }
        number += 1;
        if number % 5 == 0 {
            gateway.replace_listener(recorder).await?;
            continue;
        }
        if plan.traps && number % 3 == 0 {
            gateway.trap(recorder).await?;
            continue;
        }
        let Some(pool) = pools.get(random.below(pools.len())) else {
            continue;
        };
        let state = random.pick(&[State::Draining, State::Disabled, State::Absent]);
        let away = pool.credentials.iter().find(|it| gateway.states().contains_key(**it)).copied();
        // At most one of a pool is away, so that there is always somewhere to go.
        match away {
            Some(credential) => gateway.set(credential, None, recorder).await?,
            None => {
                let credential = random.pick(pool.credentials).context("an empty pool")?;
                gateway.set(credential, state, recorder).await?;
            }
        }
    }
}

/// The ports of a way.
pub(crate) async fn ports(mode: envoy_harness::Mode, scene: &Scene) -> Result<Vec<Port>> {
    let mut ports = Vec::new();
    for pool in world::pools(mode) {
        if world::shares_port(mode) {
            ports.push(Port::open(pool.credentials.to_vec(), scene.clone()).await?);
            continue;
        }
        for credential in pool.credentials {
            ports.push(Port::open(vec![*credential], scene.clone()).await?);
        }
    }
    Ok(ports)
}
