//! What the filter asks of Envoy, with each answer turned into a plain value.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::UNIX_EPOCH;

use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;

use crate::outcome::Outcome;
use crate::shared::{Cas, Refused, SharedData, Stored};

/// Envoy's shared data: one map a process, seen by every VM with the same `vm_id`.
pub(super) struct Host;

impl SharedData for Host {
    fn get(&self, key: &str) -> Stored {
        match hostcalls::get_shared_data(key) {
            Ok((value, Some(cas))) => Stored { value: value.unwrap_or_default(), cas: Cas(cas) },
            Ok((_, None)) | Err(_) => Stored::default(),
        }
    }

    fn set(&self, key: &str, value: &[u8], cas: Cas) -> Result<(), Refused> {
        hostcalls::set_shared_data(key, Some(value), Some(cas.0)).map_err(|_| Refused)
    }
}

/// Milliseconds since the epoch.
pub(super) fn now() -> u64 {
    let time = hostcalls::get_current_time().unwrap_or(UNIX_EPOCH);
    time.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}

/// Bytes that nobody can guess, from the random keys that the standard library draws for its hash maps.
pub(super) fn random_bytes() -> [u8; 16] {
    let draw = || RandomState::new().build_hasher().finish();
    ((u128::from(draw()) << 64) | u128::from(draw())).to_le_bytes()
}

/// An attribute of Envoy; empty if there is none.
pub(super) fn property(path: &[String]) -> Vec<u8> {
    let path = path.iter().map(String::as_str).collect();
    hostcalls::get_property(path).ok().flatten().unwrap_or_default()
}

/// Sets a filter state, which Envoy and later filters see as `wasm.<name>`.
pub(super) fn set_filter_state(name: &str, value: &str) {
    if let Err(status) = hostcalls::set_property(vec![name], Some(value.as_bytes())) {
        log::warn!("filter state {name} was refused: {status:?}");
    }
}

/// Makes Envoy choose the route again. A changed header does so by itself, a changed filter state does not.
pub(super) fn clear_route_cache() {
    if let Err(status) = hostcalls::call_foreign_function("clear_route_cache", None) {
        log::warn!("clear_route_cache was refused: {status:?}");
    }
}

/// One counter for every outcome: `session_affinity.outcome.<word>.requests`.
pub(super) struct Counters(Vec<(Outcome, u32)>);

impl Counters {
    /// Defines the counters; each VM must, and all of them count into one.
    pub(super) fn define() -> Self {
        let define = |outcome: Outcome| {
            let name = format!("session_affinity.outcome.{}.requests", outcome.as_str());
            hostcalls::define_metric(MetricType::Counter, &name).ok().map(|id| (outcome, id))
        };
        Self(Outcome::ALL.into_iter().filter_map(define).collect())
    }

    pub(super) fn count(&self, outcome: Outcome) {
        if let Some((_, id)) = self.0.iter().find(|(counted, _)| *counted == outcome) {
            let _refused_only_if_undefined = hostcalls::increment_metric(*id, 1);
        }
    }
}
