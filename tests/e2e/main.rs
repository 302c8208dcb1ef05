//! The e2e tests on a real Envoy: the shipped configurations, the module, and simulated providers
//! behind it.
//!
//! They assert what the client and the upstream see. `cargo xtask test` builds the module and runs
//! them; the variable `ENVOY` names the binary to run them on.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod affinity;
mod bodies;
mod clients;
#[cfg(target_os = "linux")]
mod clock;
mod configuration;
mod cooldowns;
mod corners;
mod deploy;
mod discovery;
mod edge;
mod envoy_gateway;
mod evidence;
mod failover;
mod fleet;
mod gateways;
mod headroom;
mod homes;
mod istio;
mod leaks;
mod load;
mod meanings;
mod memory;
mod merge;
mod metrics;
#[path = "../mixed/mod.rs"]
mod mixed;
mod modes;
mod operator;
mod oracle;
mod reading;
mod recognition;
mod relay;
mod replicas;
mod retries;
mod sdk;
mod secrets;
mod shadow;
mod state;
mod support;
mod trap;
mod updates;
mod usage;
mod workers;
