//! The admin interface of a running Envoy: what it counts and where it listens.

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
            "admin {path} answered {}: {}",
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
    let number = |line: &str| {
        let (name, value) = line.rsplit_once(": ")?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter(|line| line.starts_with(prefix)).filter_map(number).collect()
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
        serde_json::from_str(text).context("admin /listeners answered something else")?;
    let address = |address: SocketAddress| SocketAddr::from((address.address, address.port_value));
    let entry =
        |listener: Listener| (listener.name, address(listener.local_address.socket_address));
    Ok(listeners.listener_statuses.into_iter().map(entry).collect())
}

/// What Envoy counts about its listeners, of which it keeps no history.
#[derive(Clone, Copy)]
pub(super) struct ListenerStats {
    live: bool,
    /// Listeners that the main thread has taken, new or changed.
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
        let count = |name: &str| {
            stats.get(&format!("listener_manager.{name}")).copied().unwrap_or_default()
        };
        Ok(Self {
            live: stats.get("server.state") == Some(&0),
            taken: count("listener_added") + count("listener_modified"),
            served: count("listener_create_success"),
            accepted: count("lds.update_success"),
            rejected: count("lds.update_rejected"),
        })
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
        let since = |taken, served, accepted| {
            ListenerStats { live: true, taken, served, accepted, rejected: 0 }
                .is_served_since(&before, 2)
        };
        assert!(!since(1, 2, 1), "nothing happened yet");
        assert!(!since(2, 3, 2), "one worker is missing");
        assert!(since(2, 4, 2));
        assert!(since(1, 2, 2), "the file was read and nothing had changed");
    }
}
