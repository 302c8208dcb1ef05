//! What the filter asks of Envoy, with each answer turned into a plain value.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::UNIX_EPOCH;

use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;

use crate::outcome::{Learnt, Outcome};
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

/// Who made a response.
pub(super) enum Origin {
    /// The credential's upstream.
    Upstream,
    /// Envoy, because the upstream could not be reached or broke off.
    FailedConnection,
    /// Envoy or a filter, for reasons of their own.
    Envoy,
}

/// Who made the response that is passing, from Envoy's response code details.
pub(super) fn origin_of_response() -> Origin {
    let details = hostcalls::get_property(vec!["response", "code_details"]).ok().flatten().unwrap_or_default();
    match details.as_slice() {
        b"via_upstream" => Origin::Upstream,
        details if details.starts_with(b"upstream_") || details.starts_with(b"no_healthy_upstream") => {
            Origin::FailedConnection
        }
        _ => Origin::Envoy,
    }
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

/// One counter for every outcome, `session_affinity.outcome.<word>.requests`, and one for everything that an answer can
/// teach, `session_affinity.answer.<word>.responses`.
pub(super) struct Counters {
    outcomes: Vec<(Outcome, u32)>,
    answers: Vec<(Learnt, u32)>,
}

impl Counters {
    /// Defines the counters; each VM must, and all of them count into one.
    pub(super) fn define() -> Self {
        let define = |name: String| hostcalls::define_metric(MetricType::Counter, &name).ok();
        let of_outcome = |outcome: Outcome| {
            let id = define(format!("session_affinity.outcome.{}.requests", outcome.as_str()))?;
            Some((outcome, id))
        };
        let of_answer = |learnt: Learnt| {
            let id = define(format!("session_affinity.answer.{learnt}.responses"))?;
            Some((learnt, id))
        };
        Self {
            outcomes: Outcome::ALL.into_iter().filter_map(of_outcome).collect(),
            answers: Learnt::all().filter_map(of_answer).collect(),
        }
    }

    pub(super) fn count(&self, outcome: Outcome) {
        increment(&self.outcomes, outcome);
    }

    pub(super) fn count_answer(&self, learnt: Learnt) {
        increment(&self.answers, learnt);
    }
}

fn increment<T: PartialEq>(counters: &[(T, u32)], counted: T) {
    if let Some((_, id)) = counters.iter().find(|(word, _)| *word == counted) {
        let _refused_only_if_undefined = hostcalls::increment_metric(*id, 1);
    }
}
