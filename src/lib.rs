//! Session affinity for LLM traffic in Envoy: a session stays on its credential.
//!
//! The core is two decisions, [`Router::route`] and [`Router::observe`]: given a request, the
//! shared data and the time, which credential serves it; and what follows from its response. It
//! knows no proxy and no clock, so everything in it is tested natively. Only the module `filter`,
//! compiled for WebAssembly alone, speaks Proxy-Wasm.
//!
//! ```
//! use session_affinity::{Config, Decision, Headers, InMemory, Request, Response, Router, Seed, Timestamp};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::parse(
//!     br#"{"pools": [{"name": "openai", "credentials": [
//!         {"id": "team-a", "cluster": "openai_a"},
//!         {"id": "team-b", "cluster": "openai_b"}
//!     ]}]}"#,
//! )?;
//! let shared = InMemory::default();
//! let router = Router::new(config, Seed::agree(&shared, [7; 16]));
//! let now = Timestamp::from_secs(1_800_000_000);
//!
//! let headers: Headers = [(":path", "/v1/chat/completions"), ("x-session-id", "42")].into_iter().collect();
//! let body = br#"{"model": "gpt-5.4", "messages": []}"#;
//! let request = Request::new(&headers, router.read_body(body));
//! let Decision::Route(route) = router.route(&request, &shared, now) else {
//!     return Err("no credential is ready".into());
//! };
//! assert_eq!(route.credential.id, "team-a");
//!
//! // The credential is at its limit: the next request of the session goes to the other one.
//! let mut plan = router.plan(&route, now);
//! let limited: Headers = [("retry-after", "60")].into_iter().collect();
//! let response = Response::Received { status: 429, headers: &limited, body: b"" };
//! router.observe(&mut plan, &response, &shared, now);
//! let Decision::Route(route) = router.route(&request, &shared, now) else {
//!     return Err("no credential is ready".into());
//! };
//! assert_eq!(route.credential.id, "team-b");
//! # Ok(())
//! # }
//! ```
#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

pub mod api;
pub mod availability;
pub mod balance;
pub mod binding;
pub mod client_headers;
mod codec;
pub mod config;
pub mod cooldown;
pub mod duration;
pub mod frames;
pub mod group;
pub mod hash;
pub mod headroom;
pub mod home;
#[cfg(test)]
mod linear;
pub mod metrics;
pub mod mistakes;
pub mod operation;
pub mod operator;
pub mod outcome;
pub mod pins;
pub mod prompt_cache;
pub mod reply;
pub mod request;
pub mod response;
pub mod router;
pub mod session;
pub mod shared;
pub mod signals;
pub mod table;
pub mod target;
pub mod time;
pub mod usage;

#[cfg(target_arch = "wasm32")]
mod filter;

pub use body_reader::{body, json, second_model};

use body_reader::steps;

pub use config::Config;
pub use hash::Seed;
pub use request::{Headers, Request};
pub use response::{Failure, Response};
pub use router::{Decision, NextStep, Plan, Route, Router, Verdict};
pub use shared::{InMemory, SharedData};
pub use time::Timestamp;
