//! What arrived, for tests: the newest requests in full, and totals of each account.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};

use super::lock::locked;
use super::told::Told;
use super::turn::Usage;
use super::vendor::Vendor;

/// How many requests the log keeps. Older ones are forgotten; the totals include them.
pub const LOG_CAPACITY: usize = 16_384;

/// A request as this upstream saw it, and its response.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// The server it came to.
    pub vendor: Vendor,
    /// The account whose key it carried; `None` if the key was missing or unknown.
    pub account: Option<String>,
    /// `GET`, `POST`; `WS` for a message on a WebSocket, whose handshake is a record of its own.
    pub method: Method,
    /// With the query.
    pub path: String,
    /// All of them, keys included (these keys are worth nothing); empty for a message on a
    /// WebSocket.
    pub headers: HeaderMap,
    /// In bytes.
    pub body_length: usize,
    /// `None` until there is a response; it stays so if the connection is dropped or the client
    /// leaves first.
    pub status: Option<u16>,
    /// Whether a fault was due, other than a delay.
    pub is_faulty: bool,
    /// Of responses with a reply of a model.
    pub usage: Option<Usage>,
    /// What of it the response tells.
    pub told: Told,
    /// The ids of the state that it created, even if the response was lost.
    pub created: Vec<String>,
}

/// Sums over all requests to an account since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests with the key of the account, whatever the response; a WebSocket counts by its
    /// messages and its handshake.
    pub requests: u64,
    /// Tokens of the prompts, cached or not.
    pub prompt_tokens: u64,
    /// The part of them that came from the cache.
    pub cached_tokens: u64,
    /// Tokens of the replies.
    pub output_tokens: u64,
}

/// Shared by the three servers, so that its order is the order of arrival.
#[derive(Debug, Default)]
pub(super) struct RequestLog(Mutex<Log>);

#[derive(Debug, Default)]
struct Log {
    records: VecDeque<RequestRecord>,
    /// The number of the first record still kept.
    first: u64,
    totals: BTreeMap<String, Totals>,
}

/// The number of a record. It stays valid when the record has been forgotten.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordId(u64);

impl RequestLog {
    /// Records a request on arrival, so that one that the client gives up is there, too.
    pub(super) fn arrived(&self, vendor: Vendor, account: Option<&str>, parts: &Parts) -> RecordId {
        self.push(RequestRecord {
            vendor,
            account: account.map(str::to_owned),
            method: parts.method.clone(),
            path: parts
                .uri
                .path_and_query()
                .map_or_else(|| parts.uri.to_string(), ToString::to_string),
            headers: parts.headers.clone(),
            body_length: 0,
            status: None,
            is_faulty: false,
            usage: None,
            told: Told::default(),
            created: Vec::new(),
        })
    }

    pub(super) fn push(&self, record: RequestRecord) -> RecordId {
        let mut log = locked(&self.0);
        if let Some(account) = &record.account {
            log.totals.entry(account.clone()).or_default().requests += 1;
        }
        if log.records.len() == LOG_CAPACITY {
            log.records.pop_front();
            log.first += 1;
        }
        log.records.push_back(record);
        RecordId(log.first + log.records.len() as u64 - 1)
    }

    /// A fault is due.
    pub(super) fn fails(&self, id: RecordId) {
        locked(&self.0).update(id, |record| record.is_faulty = true);
    }

    pub(super) fn body_read(&self, id: RecordId, length: usize) {
        locked(&self.0).update(id, |record| record.body_length = length);
    }

    /// Records what a request has created.
    pub(super) fn created(&self, id: RecordId, created: &[String]) {
        locked(&self.0).update(id, |record| created.clone_into(&mut record.created));
    }

    /// Records what a response tells.
    pub(super) fn told(&self, id: RecordId, told: Told) {
        locked(&self.0).update(id, |record| record.told = told);
    }

    /// The response is compressed.
    pub(super) fn compressed(&self, id: RecordId) {
        locked(&self.0).update(id, |record| record.told.is_compressed = true);
    }

    /// Records a response before its first byte leaves, so that a client that has the response
    /// finds it in the log.
    pub(super) fn responded(
        &self,
        id: RecordId,
        account: Option<&str>,
        status: u16,
        usage: Option<Usage>,
    ) {
        let mut log = locked(&self.0);
        log.update(id, |record| (record.status, record.usage) = (Some(status), usage));
        if let (Some(account), Some(usage)) = (account, usage) {
            let totals = log.totals.entry(account.to_owned()).or_default();
            totals.prompt_tokens += usage.prompt_tokens;
            totals.cached_tokens += usage.cached_tokens;
            totals.output_tokens += usage.output_tokens;
        }
    }

    pub(super) fn records(&self) -> Vec<RequestRecord> {
        locked(&self.0).records.iter().cloned().collect()
    }

    pub(super) fn clear(&self) {
        let mut log = locked(&self.0);
        log.first += log.records.len() as u64;
        log.records.clear();
    }

    pub(super) fn totals(&self) -> BTreeMap<String, Totals> {
        locked(&self.0).totals.clone()
    }
}

impl Log {
    fn update(&mut self, id: RecordId, change: impl FnOnce(&mut RequestRecord)) {
        let index = id.0.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(record) = index.and_then(|index| self.records.get_mut(index)) {
            change(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(path: &str) -> RequestRecord {
        RequestRecord {
            vendor: Vendor::OpenAi,
            account: Some("a".into()),
            method: Method::POST,
            path: path.into(),
            headers: HeaderMap::new(),
            body_length: 0,
            status: None,
            is_faulty: false,
            usage: None,
            told: Told::default(),
            created: Vec::new(),
        }
    }

    #[test]
    fn the_log_is_bounded_and_the_totals_are_not() {
        let log = RequestLog::default();
        let forgotten = log.push(record("first"));
        let newest = (0..LOG_CAPACITY).map(|_| log.push(record("later"))).last().unwrap();
        let usage =
            Usage { prompt_tokens: 10, cached_tokens: 4, output_tokens: 1, ..Usage::default() };
        log.responded(forgotten, Some("a"), 200, Some(usage));
        log.responded(newest, Some("a"), 200, Some(usage));

        let records = log.records();
        assert_eq!(records.len(), LOG_CAPACITY);
        assert!(records.iter().all(|record| record.path == "later"));
        assert_eq!(records.iter().filter(|record| record.status == Some(200)).count(), 1);
        let requests = LOG_CAPACITY as u64 + 1;
        assert_eq!(
            log.totals()["a"],
            Totals { requests, prompt_tokens: 20, cached_tokens: 8, output_tokens: 2 }
        );
    }

    #[test]
    fn a_record_cleared_meanwhile_takes_no_response() {
        let log = RequestLog::default();
        let before = log.push(record("before"));
        log.clear();
        log.push(record("after"));
        log.responded(before, None, 500, None);
        assert_eq!(log.records()[0].status, None);
    }
}
