//! Runs the real module in memory, in place of Envoy, and counts what a stream costs.
//!
//! Envoy's own code behind the host calls and callbacks costs more than the module's instructions.
//! A benchmark shows that, and drifts with the machine; the calls themselves can be counted, and
//! are the same in every run. A stream takes milliseconds here, so what needs thousands of them can
//! be tested, too. A real Envoy stays the judge of behaviour: what is known here of Envoy was
//! observed there, and `tests/e2e` runs there.
//!
//! # What is simulated
//!
//! - The host calls of the ABI 0.2.1 that the filter uses, with the results of Envoy's host: memory
//!   is asked for where a result has bytes, shared data have its tokens, a missing value is
//!   `NotFound`. Any other host call traps with its name.
//! - A worker: one VM, and in it the plugin of the listener and that of the clusters. Several
//!   workers may have the same shared data.
//! - A stream: headers, body and trailers of both directions through the listener, a context on the
//!   cluster for every attempt, the body held or passing as the filter decides, its own responses,
//!   and the end of each context in Envoy's order.
//! - The retries that the filter asks for by `x-envoy-retry-on` and `x-envoy-retriable-header-names`,
//!   bounded by `x-envoy-max-retries`; the route has no policy. The cluster is that which the filter
//!   state names.
//! - HTTP/1 on both sides: a body ends with an empty piece, and a connection on which a response came
//!   is kept for the next attempt.
//! - Time: a [`Clock`] that only tests move.
//!
//! The order of callbacks and host calls of a request on the body path is that which Envoy 1.40.0
//! logs with `--component-log-level wasm:trace`.
//!
//! # What is not
//!
//! - Envoy's other filters, routes, timeouts, limits of buffers and flow control.
//! - Streams side by side, but for requests that do not end: each is played to its end, and its
//!   request is there before its response.
//! - A plugin for each cluster: one for all of them is enough here, where Envoy has a root context,
//!   and ticks, for each.
//! - A new VM after a trap: a trap is an error.
//! - Time and memory as V8 has them. Fuel counts instructions of the module as it was compiled, and
//!   says nothing of the machine code that V8 makes of them.

mod abi;
mod context;
mod cost;
mod exchange;
mod gateway;
mod headers;
mod inbound;
mod memory;
mod outbound;
mod shared;
mod state;
mod upload;
mod vm;
mod wasi;

pub use context::LocalReply;
pub use cost::Cost;
pub use exchange::{Answer, Attempt, Event, Played, Request, Response};
pub use gateway::{Gateway, Wiring};
pub use headers::Headers;
pub use shared::{CasMismatch, SharedData};
pub use state::Clock;
pub use upload::Upload;
pub use vm::{Module, Plugin, Settings, Vm};
