//! What the filter asks of Envoy, with each answer turned into a plain value.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::UNIX_EPOCH;

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType, MetricType};

use crate::outcome::{Failover, Observed, Outcome};
use crate::reply::LocalReply;
use crate::shared::{Cas, CasMismatch, SharedData, Stored};
use crate::time::Timestamp;

/// Envoy's shared data: one map a process, seen by every VM with the same `vm_id`.
pub(super) struct Host;

impl SharedData for Host {
    fn get(&self, key: &str) -> Stored {
        match hostcalls::get_shared_data(key) {
            Ok((value, Some(cas))) => Stored { value: value.unwrap_or_default(), cas: Cas(cas) },
            Ok((_, None)) | Err(_) => Stored::default(),
        }
    }

    fn set(&self, key: &str, value: &[u8], cas: Cas) -> Result<(), CasMismatch> {
        hostcalls::set_shared_data(key, Some(value), Some(cas.0)).map_err(|_| CasMismatch)
    }
}

/// Now, by Envoy's clock.
pub(super) fn now() -> Timestamp {
    let time = hostcalls::get_current_time().unwrap_or(UNIX_EPOCH);
    Timestamp::EPOCH + time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Bytes that nobody can guess, from the random keys that the standard library draws for its hash
/// maps.
pub(super) fn random_bytes() -> [u8; 16] {
    let draw = || RandomState::new().build_hasher().finish();
    ((u128::from(draw()) << 64) | u128::from(draw())).to_le_bytes()
}

/// What the plugin is in Envoy's configuration: by its `root_id` the filter knows its role.
pub(super) fn root_id() -> Vec<u8> {
    hostcalls::get_property(vec!["plugin_root_id"]).ok().flatten().unwrap_or_default()
}

/// Envoy's version, major and minor; zeros if it does not tell.
pub(super) fn version() -> (u64, u64) {
    let number = |name| {
        let path = vec!["xds", "node", "user_agent_build_version", "version", name];
        let bytes = hostcalls::get_property(path).ok().flatten().unwrap_or_default();
        bytes.try_into().map_or(0, u64::from_le_bytes)
    };
    (number("major_number"), number("minor_number"))
}

/// An attribute of Envoy; empty if there is none.
pub(super) fn property(path: &[String]) -> Vec<u8> {
    let path = path.iter().map(String::as_str).collect();
    hostcalls::get_property(path).ok().flatten().unwrap_or_default()
}

/// Answers in place of an upstream. The callback that does so has to return `Action::Pause`.
pub(super) fn answer(reply: &LocalReply) {
    let retry_after = reply.retry_after.map(|seconds| seconds.to_string());
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(retry_after.as_deref().map(|seconds| ("retry-after", seconds)));
    let sent = hostcalls::send_http_response(
        u32::from(reply.status),
        headers,
        Some(reply.body.as_bytes()),
    );
    if let Err(status) = sent {
        log::warn!("a local reply was refused: {status:?}");
    }
}

/// The status of the response that is passing; 0 if it tells none.
pub(super) fn response_status() -> u16 {
    let status =
        hostcalls::get_map_value_bytes(MapType::HttpResponseHeaders, ":status").ok().flatten();
    status.and_then(|status| std::str::from_utf8(&status).ok()?.parse().ok()).unwrap_or(0)
}

/// The beginning of the piece of a response's body that is passing, or of all that is held.
pub(super) fn response_body(length: usize) -> Vec<u8> {
    hostcalls::get_buffer(BufferType::HttpResponseBody, 0, length)
        .ok()
        .flatten()
        .unwrap_or_default()
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
    let details = hostcalls::get_property(vec!["response", "code_details"])
        .ok()
        .flatten()
        .unwrap_or_default();
    match details.as_slice() {
        b"via_upstream" => Origin::Upstream,
        // A circuit breaker of Envoy's own.
        details if details.ends_with(b"{overflow}") => Origin::Envoy,
        details
            if details.starts_with(b"upstream_") || details.starts_with(b"no_healthy_upstream") =>
        {
            Origin::FailedConnection
        }
        _ => Origin::Envoy,
    }
}

/// Sets the address that a cluster of the type ORIGINAL_DST sends to. It is a filter state of
/// Envoy's own, which takes a message of two strings: its name, and its value.
pub(super) fn set_destination(address: &str) {
    const NAME: &str = "envoy.network.transport_socket.original_dst_address";
    const TAGS: [u8; 2] = [0x0a, 0x12];
    let mut message = Vec::new();
    for (tag, text) in TAGS.into_iter().zip([NAME, address]) {
        // No address is so long that its length takes a second byte.
        message.extend_from_slice(&[tag, text.len() as u8]);
        message.extend_from_slice(text.as_bytes());
    }
    if let Err(status) = hostcalls::call_foreign_function("set_envoy_filter_state", Some(&message))
    {
        log::warn!("set_envoy_filter_state was refused: {status:?}");
    }
}

/// Sets a filter state, which Envoy and later filters see as `wasm.<name>`.
pub(super) fn set_filter_state(name: &str, value: &[u8]) {
    if let Err(status) = hostcalls::set_property(vec![name], Some(value)) {
        log::warn!("filter state {name} was refused: {status:?}");
    }
}

/// A filter state that this filter set, in either of its roles; empty if it did not.
pub(super) fn filter_state(name: &str) -> Vec<u8> {
    hostcalls::get_property(vec![name]).ok().flatten().unwrap_or_default()
}

/// Makes Envoy choose the route again. A changed header does so by itself, a changed filter state
/// does not.
pub(super) fn clear_route_cache() {
    if let Err(status) = hostcalls::call_foreign_function("clear_route_cache", None) {
        log::warn!("clear_route_cache was refused: {status:?}");
    }
}

/// One counter for every outcome, `session_affinity.outcome.<word>.requests`; one for everything
/// that an answer can teach, `session_affinity.answer.<word>.responses`; one for every end of a
/// failover, `session_affinity.failover.<word>.requests`.
pub(super) struct Counters {
    outcomes: Vec<(Outcome, u32)>,
    answers: Vec<(Observed, u32)>,
    failovers: Vec<(Failover, u32)>,
}

impl Counters {
    /// Defines the counters; each VM must, and all of them count into one.
    pub(super) fn define() -> Self {
        Self {
            outcomes: define(Outcome::ALL, |outcome| {
                format!("session_affinity.outcome.{}.requests", outcome.as_str())
            }),
            answers: define(Observed::all(), |observed| {
                format!("session_affinity.answer.{observed}.responses")
            }),
            failovers: define(Failover::ALL, |end| {
                format!("session_affinity.failover.{end}.requests")
            }),
        }
    }

    pub(super) fn count(&self, outcome: Outcome) {
        increment(&self.outcomes, outcome);
    }

    pub(super) fn count_answer(&self, observed: Observed) {
        increment(&self.answers, observed);
    }

    pub(super) fn count_failover(&self, end: Failover) {
        increment(&self.failovers, end);
    }
}

/// Defines a counter for every word; one that Envoy refuses does not count.
fn define<T: Copy>(
    words: impl IntoIterator<Item = T>,
    name: impl Fn(T) -> String,
) -> Vec<(T, u32)> {
    let counter =
        |word| Some((word, hostcalls::define_metric(MetricType::Counter, &name(word)).ok()?));
    words.into_iter().filter_map(counter).collect()
}

fn increment<T: PartialEq>(counters: &[(T, u32)], counted: T) {
    if let Some((_, id)) = counters.iter().find(|(word, _)| *word == counted) {
        let _refused_only_if_undefined = hostcalls::increment_metric(*id, 1);
    }
}
