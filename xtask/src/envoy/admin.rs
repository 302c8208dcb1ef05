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
        ensure!(response.status.is_success(), "admin {path} answered {}: {}", response.status, response.text());
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
    let listeners: Listeners = serde_json::from_str(text).context("admin /listeners answered something else")?;
    let address = |address: SocketAddress| SocketAddr::from((address.address, address.port_value));
    let entry = |listener: Listener| (listener.name, address(listener.local_address.socket_address));
    Ok(listeners.listener_statuses.into_iter().map(entry).collect())
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
}
