//! A real Envoy for tests, the demo and benchmarks: found or installed, configured as shipped, run
//! as a child process, with a client for it.
//!
//! Nothing here imitates Envoy. The filter must cope with what Envoy does to headers, bodies and
//! upgrades, so the e2e tests run on the binary that users run.
//!
//! | to | see |
//! |---|---|
//! | find or install an Envoy | [`find`](fn@find) |
//! | configure it | [`Fixture`], [`Mode`] |
//! | run it | [`Process`], or with simulated providers behind it [`gateway`] |
//! | send requests | [`client`] |
//! | build the module | [`module`] |

#![allow(clippy::indexing_slicing, reason = "what a JSON value lacks is null")]

mod admin;
pub mod client;
mod document;
mod find;
mod fixture;
pub mod gateway;
mod log;
mod mode;
pub mod module;
pub mod output;
mod patience;
mod process;
pub mod progress;
mod project;
mod python;
mod refusal;
mod target;
mod validate;
mod version;
mod websocket;
mod wheel;

pub use find::{Envoy, find, find_here, find_in};
pub use fixture::{Encoding, Fixture};
pub use log::LogLines;
pub use mode::Mode;
pub use patience::{PATIENCE, wait_until};
pub use process::{Process, Update};
pub use project::project_root;
pub use refusal::Refusal;
pub use target::{TARGET, ensure_target};
pub use version::{FLOOR, PINNED, Version};
