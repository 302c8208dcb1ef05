//! The simulated providers over real sockets.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod anthropic_state;
mod apis;
mod caches;
mod catalog;
mod client;
mod faults;
mod gemini_state;
mod groups;
mod keys;
mod openai_state;
mod replicas;
mod sockets;
