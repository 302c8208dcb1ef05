//! A simulation of fleets of Envoys: what do strategies, tables, restarts and a common store come to,
//! before anybody runs 200 Envoys?
//!
//! The real core decides and observes ([`session_affinity::Router`]); each Envoy has shared data of
//! its own, and time is an argument. Around it everything is simulated: sessions ([`session`]),
//! credentials with caches, limits and outages ([`provider`]), and what reaches which Envoy
//! ([`fleet`], [`world`]). All chance follows from a seed ([`random`]), so results can be repeated,
//! and strategies meet the same sessions.
//!
//! What is not simulated: several workers that write at the same moment (the interleaving tests do
//! that), the time that Envoy and the network take, state that providers keep, and clients that send
//! a refused request again.

pub mod command;
pub mod crowd;
pub mod fleet;
pub mod herd;
pub mod plot;
pub mod provider;
pub mod random;
pub mod report;
pub mod scenario;
pub mod session;
mod slab;
pub mod subscription;
pub mod suites;
pub mod tally;
pub mod world;

pub use provider::{Limits, Provider};
pub use scenario::{Refined, Restarts, Scenario, Spread, Way};
pub use subscription::Subscriptions;
pub use tally::{Results, Tally};
pub use world::run;
