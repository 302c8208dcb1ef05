//! The simulated providers over real sockets.

mod apis;
mod caches;
mod client;
mod faults;
mod keys;
mod replicas;
mod sockets;
