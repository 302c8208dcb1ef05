//! `cargo xtask soak`: chaos on a real Envoy, and an oracle that judges every request.
//!
//! Sessions with growing bodies, clients that leave, providers that fail in every way, and a
//! configuration that changes every few seconds. Clients and providers write down what they see,
//! each by itself; when all is over the oracle puts both together by the ids of the requests.
//! What is sent follows from the seed. When it is sent depends on the machine, so no rule depends
//! on how fast anything is.
//!
//! The providers are not those of `crates/simulated-providers`: these speak HTTP as a library does,
//! and what is wanted here is what no library does.
//!
//! | to | see |
//! |---|---|
//! | what is sent, and how | `session`, `client`, `socket` |
//! | what providers do | `provider`, `port`, `fault`, `dialect`, `http` |
//! | what lasts for a while, and what is reconfigured | `outages`, `gateway` |
//! | what is written down | [`history`] |
//! | what must hold | [`oracle`] |
//! | what is printed | `report` |

mod client;
mod command;
mod dialect;
mod fault;
mod gateway;
pub mod history;
mod http;
mod limits;
pub mod oracle;
mod outages;
mod port;
mod provider;
mod report;
mod run;
mod session;
mod socket;
mod world;

pub use command::Arguments;
pub use run::{Plan, run};
