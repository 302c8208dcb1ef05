//! The whole set-up of `envoy.yaml`, running: the simulated providers, and a real Envoy with the filter in front of them.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::envoy::{Envoy, Fixture, Process};
use crate::project_root;
use crate::provider::{Addresses, Config, Providers, Vendor};

/// The ports at which `envoy.yaml` expects the providers.
const PORTS: [(u16, Vendor); 3] = [(18001, Vendor::Anthropic), (18002, Vendor::OpenAi), (18003, Vendor::Gemini)];

/// A running gateway. Both parts end when it is dropped; [`Gateway::stop`] also waits for it.
pub struct Gateway {
    /// The Envoy that clients talk to.
    pub envoy: Process,
    /// What it talks to.
    pub providers: Providers,
}

impl Gateway {
    /// Starts the shipped configuration on free ports, with fresh providers. `edit` may change it before.
    pub async fn start(envoy: &Envoy, workers: u32, edit: impl FnOnce(Fixture) -> Result<Fixture>) -> Result<Self> {
        let providers = Providers::start(Config::default()).await?;
        let fixture = edit(Self::fixture(&providers)?)?;
        Self::start_envoy(envoy, workers, fixture, providers).await
    }

    /// Starts the shipped configuration as it is, on its own ports.
    pub async fn start_on_shipped_ports(envoy: &Envoy, workers: u32) -> Result<Self> {
        let config = Config { addresses: Addresses::default(), ..Config::default() };
        let providers = Providers::start(config).await?;
        Self::start_envoy(envoy, workers, Fixture::shipped(project_root())?, providers).await
    }

    async fn start_envoy(envoy: &Envoy, workers: u32, fixture: Fixture, providers: Providers) -> Result<Self> {
        let envoy = Process::start(envoy, &fixture, workers, &Self::environment(&providers)).await?;
        Ok(Self { envoy, providers })
    }

    /// The shipped configuration on free ports, in front of these providers.
    pub fn fixture(providers: &Providers) -> Result<Fixture> {
        let addresses = PORTS.map(|(port, vendor)| (port, providers.address(vendor)));
        Fixture::shipped(project_root())?.on_free_ports().with_providers(&BTreeMap::from(addresses))
    }

    /// The environment variables from which Envoy takes the API keys.
    pub fn environment(providers: &Providers) -> Vec<(String, String)> {
        providers.accounts().iter().map(|account| account.environment()).collect()
    }

    /// Ends Envoy, then the providers, and gives everything that Envoy wrote.
    ///
    /// # Errors
    /// If Envoy had ended before, with its last words.
    pub async fn stop(self) -> Result<Vec<String>> {
        let log = self.envoy.stop().await;
        self.providers.stop().await;
        log
    }
}
