//! The simulated providers over real sockets.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod apis;
mod caches;
mod catalog;
mod client;
mod faults;
mod keys;
mod replicas;
mod sockets;
