//! Session identities and message hashes, as the reference found them.

use serde_json::Value;
use session_affinity::body::{Body, Paths};
use session_affinity::request::{Headers, Request};
use session_affinity::session::{Sources, message_hash};

use super::{Verdict, case};

/// What the reference found in a request, against what the profile `reference` finds.
pub(super) fn check(case: &Value) -> (String, Verdict) {
    (case::text(case, "group").to_owned(), compare(case))
}

/// The hash of three texts.
pub(super) fn check_hash(case: &Value) -> (String, Verdict) {
    let verdict = hash(case).and_then(|hash| equal(case::text(case, "hash"), &hash));
    ("message_hash".to_owned(), verdict)
}

fn hash(case: &Value) -> Result<String, String> {
    let [system, user, assistant] = ["sys", "usr", "ast"].map(|name| case::bytes(case, name));
    Ok(format!("msg:{}", message_hash(&system?, &user?, &assistant?)))
}

fn compare(case: &Value) -> Verdict {
    let mut paths = Paths::default();
    let sources = Sources::reference(&mut paths);
    let found = identify(&sources, &paths, &case::headers(case), &case::body(case)?);
    let expected =
        (case::text(case, "primary").to_owned(), case::text(case, "fallback").to_owned());
    equal(&expected, &found)
}

/// The id and the fallback of a request; empty if there is none.
pub(super) fn identify(
    sources: &Sources,
    paths: &Paths,
    headers: &Headers,
    body: &[u8],
) -> (String, String) {
    let request = Request::new(headers, Body::read(paths, body));
    match sources.identify(&request) {
        Some(session) => {
            (readable(session.primary), session.fallback.map(readable).unwrap_or_default())
        }
        None => (String::new(), String::new()),
    }
}

pub(super) fn equal<T: PartialEq + std::fmt::Debug + ?Sized>(expected: &T, actual: &T) -> Verdict {
    if expected == actual { Ok(()) } else { Err(format!("expected {expected:?}, got {actual:?}")) }
}

/// Ids are bytes. The recorded ones are JSON, in which bytes that are not UTF-8 became U+FFFD.
pub(super) fn readable(id: Vec<u8>) -> String {
    String::from_utf8_lossy(&id).into_owned()
}
