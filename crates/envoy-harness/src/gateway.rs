//! A whole set-up: simulated providers, and a real Envoy with the filter in front of them, in one
//! of the shipped configurations.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;

use super::find::Envoy;
use super::fixture::Fixture;
use super::mode::Mode;
use super::process::Process;
use simulated_providers::{Config, Providers, Replica, Vendor};

/// The ports at which the shipped configurations expect the providers.
const PORTS: [(u16, Vendor); 3] =
    [(18001, Vendor::Anthropic), (18002, Vendor::OpenAi), (18003, Vendor::Gemini)];

/// A running gateway. Both parts end when it is dropped; [`Gateway::stop`] also waits for it.
pub struct Gateway {
    /// The Envoy that serves clients.
    pub envoy: Process,
    /// The providers behind it.
    pub providers: Providers,
    /// How it is wired.
    pub mode: Mode,
}

impl Gateway {
    /// Starts the demo's configuration for this Envoy on free ports, with fresh providers. `edit`
    /// may change it before.
    pub async fn start(
        envoy: &Envoy,
        workers: u32,
        edit: impl FnOnce(Fixture) -> Result<Fixture>,
    ) -> Result<Self> {
        Self::start_in(envoy, Mode::of_demo_on(envoy.version), workers, edit).await
    }

    /// Starts the configuration of a mode on free ports, with fresh providers. `edit` may change it
    /// before.
    pub async fn start_in(
        envoy: &Envoy,
        mode: Mode,
        workers: u32,
        edit: impl FnOnce(Fixture) -> Result<Fixture>,
    ) -> Result<Self> {
        let replicas = if mode == Mode::Replicas { Replica::demo() } else { Vec::new() };
        let replicas = replicas.into_iter().map(Replica::on_free_port).collect();
        let providers = Providers::start(Config { replicas, ..Config::default() }).await?;
        let fixture = edit(Self::fixture_of(mode, &providers)?)?;
        Self::start_envoy(envoy, mode, workers, fixture, providers).await
    }

    async fn start_envoy(
        envoy: &Envoy,
        mode: Mode,
        workers: u32,
        fixture: Fixture,
        providers: Providers,
    ) -> Result<Self> {
        let envoy =
            Process::start(envoy, &fixture, workers, &Self::environment(&providers)).await?;
        Ok(Self { envoy, providers, mode })
    }

    /// The configuration of this gateway, in front of its providers, without any edit.
    pub fn fixture(&self) -> Result<Fixture> {
        Self::fixture_of(self.mode, &self.providers)
    }

    /// The configuration of a mode on free ports, in front of these providers.
    fn fixture_of(mode: Mode, providers: &Providers) -> Result<Fixture> {
        let addresses: BTreeMap<u16, SocketAddr> = match mode {
            Mode::Replicas => {
                let shipped = Replica::demo().into_iter().map(|replica| replica.address.port());
                shipped.zip(providers.replicas().iter().map(|replica| replica.address)).collect()
            }
            Mode::Clusters | Mode::Keys | Mode::NextRequest => {
                PORTS.map(|(port, vendor)| (port, providers.address(vendor))).into()
            }
        };
        let fixture = Fixture::shipped(mode)?.showing_decisions();
        fixture.on_free_ports().with_providers(&addresses)
    }

    /// The environment variables from which Envoy or the filter reads the API keys.
    pub fn environment(providers: &Providers) -> Vec<(String, String)> {
        providers.accounts().iter().map(|account| account.environment()).collect()
    }

    /// Ends Envoy, then the providers, and returns everything that Envoy logged.
    ///
    /// # Errors
    /// If Envoy had ended before, with what it logged last.
    pub async fn stop(self) -> Result<Vec<String>> {
        let log = self.envoy.stop().await;
        self.providers.stop().await;
        log
    }
}
