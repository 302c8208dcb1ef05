//! Session affinity for LLM traffic in Envoy: a conversation stays on its credential.
//!
//! The core is two decisions, [`router::Router::route`] and [`router::Router::observe`]: given a
//! request, the shared data and the time, which credential serves it; and what does its answer
//! teach. It knows no proxy, and everything in it is tested natively. Only the module `filter`,
//! compiled for WebAssembly alone, speaks Proxy-Wasm.
#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

pub mod api;
pub mod availability;
pub mod balance;
pub mod binding;
pub mod body;
mod codec;
pub mod config;
pub mod cooldown;
pub mod duration;
pub mod hash;
pub mod home;
pub mod json;
pub mod operation;
pub mod outcome;
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

#[cfg(target_arch = "wasm32")]
mod filter;
