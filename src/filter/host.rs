//! What the filter needs of Envoy, with each result turned into a plain value.

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::mem;
use std::time::{Duration, UNIX_EPOCH};

use fnv::FnvHasher;
use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType, MetricType};

use super::filter_state::FirstResponse;
use super::metrics;
use crate::reply::LocalReply;
use crate::request::Headers;
use crate::response::Failure;
use crate::shared::{Cas, CasMismatch, Note, SharedData, Stored};
use crate::time::Timestamp;

/// How often a VM looks at what changes slowly.
const DUE_EVERY: Duration = Duration::from_secs(3);

/// Parts of what is kept under a key that are looked at each on its own.
const PARTS: u8 = 16;

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

    /// Once in [`DUE_EVERY`] for each part of a key. Clients choose the names of parts, so some
    /// share a place.
    fn is_due(&self, key: &str, part: &str, now: Timestamp) -> bool {
        let [mut hasher, mut of_part] = [FnvHasher::default(), FnvHasher::default()];
        of_part.write(part.as_bytes());
        hasher.write(key.as_bytes());
        hasher.write_u8(of_part.finish() as u8 % PARTS);
        let (key, period) = (hasher.finish(), now.as_millis() / DUE_EVERY.as_millis() as u64);
        LOOKED.with_borrow_mut(|looked| match looked.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(at) => {
                looked.get_mut(at).is_some_and(|(_, last)| mem::replace(last, period) != period)
            }
            Err(at) => {
                looked.insert(at, (key, period));
                true
            }
        })
    }

    fn note(&self, note: Note) {
        metrics::note(note);
    }
}

thread_local! {
    /// In which period it was last looked at what is kept under a key, by its hash. There are no
    /// more keys than credentials that were ever configured, with [`PARTS`] each.
    static LOOKED: RefCell<Vec<(u64, u64)>> = const { RefCell::new(Vec::new()) };
}

/// What all VMs have counted under a name; 0 if nothing.
pub(super) fn counted(name: &str) -> u64 {
    let id = COUNTERS.with_borrow_mut(|counters| {
        if let Some((_, id)) = counters.iter().find(|(known, _)| known == name) {
            return Some(*id);
        }
        let id = hostcalls::define_metric(MetricType::Counter, name).ok()?;
        counters.push((name.to_owned(), id));
        Some(id)
    });
    id.and_then(|id| hostcalls::get_metric(id).ok()).unwrap_or(0)
}

thread_local! {
    /// The counters that were read. Each definition takes memory of Envoy, also of a known name.
    static COUNTERS: RefCell<Vec<(String, u32)>> = const { RefCell::new(Vec::new()) };
}

/// Now, by Envoy's clock.
pub(super) fn now() -> Timestamp {
    let time = hostcalls::get_current_time().unwrap_or(UNIX_EPOCH);
    Timestamp::EPOCH + time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Takes over Envoy's level of the log: what that drops is not even put into words.
pub(super) fn adopt_log_level() {
    if let Ok(level) = hostcalls::get_log_level() {
        proxy_wasm::set_log_level(level);
    }
}

/// Bytes that cannot be guessed, from the random keys that the standard library draws for its hash
/// maps.
pub(super) fn random_bytes() -> [u8; 16] {
    let [high, low] = [(), ()].map(|()| RandomState::new().build_hasher().finish());
    ((u128::from(high) << 64) | u128::from(low)).to_le_bytes()
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

/// Responds in place of an upstream. The callback that does so has to return `Action::Pause`.
pub(super) fn respond(reply: &LocalReply) {
    let retry_after = reply.retry_after.map(|seconds| seconds.to_string());
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(retry_after.as_deref().map(|seconds| ("retry-after", seconds)));
    headers.extend(reply.retry_is_useless.then_some(("x-should-retry", "false")));
    let sent = hostcalls::send_http_response(
        u32::from(reply.status),
        headers,
        Some(reply.body.as_bytes()),
    );
    if let Err(status) = sent {
        log::warn!("a local reply was refused: {status:?}");
    }
}

/// Responds with an earlier response of an upstream.
pub(super) fn respond_as(first: &FirstResponse) {
    let headers = first.headers.iter();
    let headers = headers
        .filter_map(|(name, value)| Some((name.as_str(), std::str::from_utf8(value).ok()?)))
        .collect();
    let sent = hostcalls::send_http_response(u32::from(first.status), headers, Some(&first.body));
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

/// The status among the headers of a response; 0 if they tell none.
pub(super) fn status_of(headers: &Headers) -> u16 {
    headers.text(":status").parse().unwrap_or(0)
}

/// A part of the piece of a request's body that is passing, or of all that is held.
pub(super) fn request_body(start: usize, length: usize) -> Vec<u8> {
    hostcalls::get_buffer(BufferType::HttpRequestBody, start, length)
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// A part of the piece of a response's body that is passing, or of all that is held.
pub(super) fn response_body(start: usize, length: usize) -> Vec<u8> {
    hostcalls::get_buffer(BufferType::HttpResponseBody, start, length)
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// A piece of a response's body that passes. A small one that two readers need is read once.
pub(super) struct Piece {
    pub(super) size: usize,
    bytes: Option<Vec<u8>>,
}

impl Piece {
    /// Bytes of a piece that is read at once.
    const SMALL: usize = 16 << 10;

    /// A piece for one reader.
    pub(super) fn of(size: usize) -> Self {
        Self { size, bytes: None }
    }

    /// A piece for several readers.
    pub(super) fn shared(size: usize) -> Self {
        let bytes = matches!(size, 1..=Self::SMALL).then(|| response_body(0, size));
        Self { size, bytes }
    }

    /// A part of it.
    pub(super) fn part(&self, start: usize, length: usize) -> Vec<u8> {
        match &self.bytes {
            Some(bytes) => bytes.get(start..start + length).unwrap_or_default().to_vec(),
            None => response_body(start, length),
        }
    }
}

/// The name of the cluster on which this filter runs.
pub(super) fn cluster_name() -> String {
    String::from_utf8(attribute(&["xds", "cluster_name"])).unwrap_or_default()
}

/// Whether an attempt has a connection already, as its headers pass: then it uses one that was
/// kept.
pub(super) fn has_connection() -> bool {
    !attribute(&["upstream", "local_address"]).is_empty()
}

/// An attempt that takes no longer to break than this, on a connection that was kept, met one that
/// the provider had closed.
const STALE_WITHIN: Duration = Duration::from_secs(1);

/// A connection that was ready faster than this was not made for the attempt.
const READY_AT_ONCE: Duration = Duration::from_micros(150);

/// Whether the connection of an attempt was ready faster than one can be made.
fn was_ready_at_once() -> bool {
    let duration = attribute(&["upstream", "cx_pool_ready_duration"]);
    let nanoseconds = duration.try_into().map(u64::from_le_bytes);
    nanoseconds.is_ok_and(|nanoseconds| Duration::from_nanos(nanoseconds) < READY_AT_ONCE)
}

/// Why an attempt that began at `sent` ended without a response; `None` if the client ended it, or
/// took too long to end its upload. `has_sent_all` says whether all of the request has passed.
pub(super) fn failure_of_attempt(
    sent: Timestamp,
    is_kept: bool,
    has_sent_all: bool,
) -> Option<Failure> {
    let details = attribute(&["response", "code_details"]);
    let is_timeout = contains(&details, b"timeout");
    if was_left(&details) || (is_timeout && !has_sent_all) {
        return None;
    }
    let reason = attribute(&["upstream", "transport_failure_reason"]);
    Some(if reason.starts_with(b"TLS_error") {
        Failure::Tls
    } else if !has_connection() {
        Failure::Connect
    } else if is_timeout || now().since(sent) >= TIMEOUT_AFTER {
        Failure::Timeout
    } else if is_kept && was_ready_at_once() && now().since(sent) < STALE_WITHIN {
        Failure::Stale
    } else {
        Failure::Reset
    })
}

/// The response flags of a stream that its client ended: the connection was closed (DC), what came
/// was no HTTP (DPE), the stream was reset (DR); or Envoy did, to save memory (OM). Envoy keeps the
/// bits as they are (`envoy/stream_info/stream_info.h`).
const LEFT: u64 = 1 << 14 | 1 << 18 | 1 << 25 | 1 << 28;

/// Whether the client ended the stream. Not all that Envoy does then has a flag, or has it in time; a
/// reset, and what is no HTTP, has the details of the client's codec, such as `http2.remote_reset`.
/// Those of an upstream's codec begin with `upstream_`.
fn was_left(details: &[u8]) -> bool {
    let flags = attribute(&["response", "flags"]);
    let flags = flags.first_chunk().map_or(0, |flags| u64::from_le_bytes(*flags));
    flags & LEFT != 0 || details.starts_with(b"downstream") || details.starts_with(b"http")
}

/// An attempt that ends after so long without a response has most likely run into a timeout of the
/// route. Only words depend on it.
const TIMEOUT_AFTER: Duration = Duration::from_secs(10);

/// Who made a response.
pub(super) enum Origin {
    /// The credential's upstream.
    Upstream,
    /// Envoy, because there was no response.
    Failed(Failure),
    /// Envoy or a filter, for reasons of their own.
    Envoy,
}

/// Who made the response that is passing, from Envoy's response code details.
pub(super) fn origin_of_response() -> Origin {
    let details = attribute(&["response", "code_details"]);
    let details = details.as_slice();
    match details {
        b"via_upstream" => Origin::Upstream,
        b"no_healthy_upstream" | b"cluster_not_found" => Origin::Failed(Failure::NoHost),
        b"response_timeout" | b"upstream_per_try_timeout" | b"upstream_per_try_idle_timeout" => {
            Origin::Failed(Failure::Timeout)
        }
        // A circuit breaker of Envoy's own.
        _ if details.ends_with(b"{overflow}") => Origin::Envoy,
        _ if !details.starts_with(b"upstream_") => Origin::Envoy,
        _ if contains(details, b"TLS_error") => Origin::Failed(Failure::Tls),
        _ if contains(details, b"connection_failure")
            || contains(details, b"connection_timeout") =>
        {
            Origin::Failed(Failure::Connect)
        }
        _ => Origin::Failed(Failure::Reset),
    }
}

/// Whether the stream ended because its upstream broke off in the middle of the response. A provider
/// that closes a WebSocket as it should closes its connection, and Envoy calls that the same.
pub(super) fn was_cut_off() -> bool {
    attribute(&["response", "code_details"]).starts_with(b"upstream_reset_after_response_started")
        && attribute(&["response", "code"]) != 101_i64.to_le_bytes()
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

fn attribute(path: &[&str]) -> Vec<u8> {
    hostcalls::get_property(path.to_vec()).ok().flatten().unwrap_or_default()
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
