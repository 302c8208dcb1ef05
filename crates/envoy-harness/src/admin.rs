//! The admin interface of a running Envoy: its statistics, and where it listens.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use hyper::Request;
use serde::Deserialize;

use super::client::{self, Protocol};

/// The admin interface at an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admin {
    pub(super) address: SocketAddr,
}

impl Admin {
    pub(super) async fn get(&self, path: &str) -> Result<String> {
        let request = Request::get(path).body(client::empty())?;
        let response = client::send(self.address, Protocol::Http1, request).await?;
        ensure!(
            response.status.is_success(),
            "admin {path}: {}: {}",
            response.status,
            response.text()
        );
        Ok(response.text())
    }

    /// The counters and gauges whose names begin with the prefix.
    pub(super) async fn stats(&self, prefix: &str) -> Result<BTreeMap<String, u64>> {
        let text = self.get("/stats").await?;
        Ok(parse_stats(&text, prefix))
    }

    /// The addresses of the listeners, by name.
    pub(super) async fn listeners(&self) -> Result<BTreeMap<String, SocketAddr>> {
        parse_listeners(&self.get("/listeners?format=json").await?)
    }
}

/// Histograms and texts are left out: they have no single number.
fn parse_stats(text: &str, prefix: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().filter(|line| line.starts_with(prefix));
    let pairs = lines.filter_map(|line| line.rsplit_once(": "));
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

fn parse_listeners(text: &str) -> Result<BTreeMap<String, SocketAddr>> {
    #[derive(Deserialize)]
    struct Listeners {
        #[serde(default)]
        listener_statuses: Vec<Listener>,
    }
    #[derive(Deserialize)]
    struct Listener {
        name: String,
        local_address: Address,
    }
    #[derive(Deserialize)]
    struct Address {
        socket_address: SocketAddress,
    }
    #[derive(Deserialize)]
    struct SocketAddress {
        address: std::net::IpAddr,
        port_value: u16,
    }
    let listeners: Listeners =
        serde_json::from_str(text).context("unexpected response of admin /listeners")?;
    let listeners = listeners.listener_statuses.into_iter().map(|listener| {
        let SocketAddress { address, port_value } = listener.local_address.socket_address;
        (listener.name, SocketAddr::from((address, port_value)))
    });
    Ok(listeners.collect())
}

/// The statistics of listeners, of which Envoy keeps no history.
#[derive(Clone, Copy)]
pub(super) struct ListenerStats {
    live: bool,
    /// Listeners that the main thread has accepted, new or changed.
    taken: u64,
    /// Listeners that a worker serves: each counts once for every worker.
    served: u64,
    /// Files with listeners that were accepted, even if nothing changed.
    accepted: u64,
    pub(super) rejected: u64,
}

impl ListenerStats {
    pub(super) async fn read(admin: &Admin) -> Result<Self> {
        let stats = admin.stats("").await?;
        let [added, modified, served, accepted, rejected] = [
            "listener_added",
            "listener_modified",
            "listener_create_success",
            "lds.update_success",
            "lds.update_rejected",
        ]
        .map(|name| stats.get(&format!("listener_manager.{name}")).copied().unwrap_or_default());
        let live = stats.get("server.state") == Some(&0);
        Ok(Self { live, taken: added + modified, served, accepted, rejected })
    }

    pub(super) fn is_serving(&self, concurrency: u32) -> bool {
        self.live && self.taken > 0 && self.served >= self.taken * u64::from(concurrency)
    }

    pub(super) fn is_served_since(&self, before: &Self, concurrency: u32) -> bool {
        self.accepted > before.accepted && self.is_serving(concurrency)
    }

    pub(super) fn is_rejection_after(&self, before: &Self) -> bool {
        self.rejected > before.rejected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_are_the_numbers_under_the_prefix() {
        let text = "a.b: 1\na.b: c: 2\na.time: P0(nan,1) P25(nan,1)\na.text: \"x\"\nb: 3\n";
        let expected = [("a.b".to_owned(), 1), ("a.b: c".to_owned(), 2)];
        assert_eq!(parse_stats(text, "a."), expected.into());
    }

    #[test]
    fn an_envoy_without_listeners_has_none() {
        assert!(parse_listeners("{}").unwrap().is_empty());
    }

    #[test]
    fn listeners_are_served_when_every_worker_has_them() {
        let before = ListenerStats { live: true, taken: 1, served: 2, accepted: 1, rejected: 0 };
        for (taken, served, accepted, is_served, case) in [
            (1, 2, 1, false, "nothing happened yet"),
            (2, 3, 2, false, "one worker is missing"),
            (2, 4, 2, true, "both workers have it"),
            (1, 2, 2, true, "the file was read and nothing had changed"),
        ] {
            let now = ListenerStats { live: true, taken, served, accepted, rejected: 0 };
            assert_eq!(now.is_served_since(&before, 2), is_served, "{case}");
        }
    }
}
