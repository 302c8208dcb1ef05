//! What the filter believes, against what the providers saw.
//!
//! Every request of an e2e test carries a tag. The credentials in the words of its decision must be
//! those that the providers met it with, in the same order; and a credential that is out must have
//! failed.

use std::sync::atomic::{AtomicU64, Ordering};

use envoy_harness::client::{Body, Response};
use envoy_harness::gateway::Gateway;
use hyper::Request;
use hyper::header::HeaderValue;
use simulated_providers::RequestRecord;

use crate::support::{decision, word};

const TAG: &str = "x-test-tag";

/// Whether a provider saw an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    Certain,
    /// Its connection broke, or the attempt was planned and never made.
    Possible,
    /// It never had a connection.
    Impossible,
}

/// Gives a request a tag that no other one has.
pub(crate) fn tag(request: &mut Request<Body>) -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let tag = HeaderValue::from(NEXT.fetch_add(1, Ordering::Relaxed));
    request.headers_mut().insert(TAG, tag.clone());
    tag
}

/// Compares the words of a decision with the records of the providers.
pub(crate) fn check(gateway: &Gateway, tag: &HeaderValue, response: &Response) {
    let Ok(words) = decision(response) else {
        return;
    };
    let records = gateway.providers.requests();
    let asked: Vec<&str> = records
        .iter()
        .filter(|record| record.headers.get(TAG) == Some(tag))
        .map(|record| record.account.as_deref().unwrap_or("unknown"))
        .collect();
    check_attempts(&attempts(words, response), &asked, words);
    check_blocked(words, &records);
}

/// The attempts that the words of a decision tell of, in order.
fn attempts(words: &str, response: &Response) -> Vec<(String, Arrival)> {
    let mut attempts: Vec<(String, Arrival)> = Vec::new();
    for word in words.split(' ') {
        if let Some(id) = word.strip_prefix("credential=") {
            attempts.push((id.to_owned(), Arrival::Certain));
        } else if let Some((id, why)) = word.strip_prefix("then=").and_then(|it| it.split_once('('))
        {
            if let Some(last) = attempts.last_mut() {
                last.1 = match why.trim_end_matches(')').split(',').next().unwrap_or_default() {
                    "connect" | "tls" | "no_host" | "no_key" => Arrival::Impossible,
                    "reset" | "stale" => Arrival::Possible,
                    _ => Arrival::Certain,
                };
            }
            attempts.push((id.to_owned(), Arrival::Certain));
        }
    }
    let answered = response.header("x-simulated-account");
    if let Some(last) = attempts.last_mut().filter(|last| answered != Some(&last.0)) {
        last.1 = Arrival::Possible;
    }
    attempts
}

fn check_attempts(attempts: &[(String, Arrival)], asked: &[&str], words: &str) {
    let mut rest = asked;
    for (id, arrival) in attempts {
        match rest.split_first() {
            Some((first, others)) if first == id && *arrival != Arrival::Impossible => {
                rest = others;
            }
            _ => {
                assert_ne!(*arrival, Arrival::Certain, "{id} of `{words}` was not asked: {asked:?}")
            }
        }
    }
    assert!(rest.is_empty(), "`{words}` does not tell that {rest:?} of {asked:?} were asked");
}

/// What is out has failed, if it was ever asked.
fn check_blocked(words: &str, records: &[RequestRecord]) {
    let blocked = word(words, "out=").unwrap_or_default();
    for entry in blocked.split(',').filter(|entry| !entry.ends_with(":disabled")) {
        let id = entry.split(':').next().unwrap_or_default();
        let mut of_it =
            records.iter().filter(|record| record.account.as_deref() == Some(id)).peekable();
        let was_asked = of_it.peek().is_some();
        let failed = of_it.any(|it| it.is_faulty || it.status.is_none_or(|status| status >= 400));
        assert!(!was_asked || failed, "{id} is out without a failure: {words}");
    }
}

#[test]
fn the_words_of_a_decision_are_compared_with_what_the_providers_saw() {
    let response = |account: &'static str| Response {
        status: hyper::StatusCode::OK,
        headers: [("x-simulated-account".parse().unwrap(), account.parse().unwrap())]
            .into_iter()
            .collect(),
        body: Default::default(),
        trailers: None,
    };
    let words = "outcome=miss credential=a then=b(connect,transient) then=c(429,rate_limit,7s)";
    let told = attempts(words, &response("c"));
    check_attempts(&told, &["b", "c"], words);
    for wrong in [&["a", "b", "c"][..], &["b"], &["c"], &["b", "c", "c"], &[]] {
        let check = || check_attempts(&told, wrong, words);
        assert!(std::panic::catch_unwind(check).is_err(), "{wrong:?}");
    }
}
