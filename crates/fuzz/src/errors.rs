//! Any bytes as an error: its body, its headers, and its compressed form. Nothing crashes; prose
//! and pages prove nothing; rules of the operator come first.

use session_affinity::api::Api;
use session_affinity::request::Headers;
use session_affinity::signals::{
    Class, Context, Evidence, Rule, Scope, Sign, explain, inflate, read,
};
use session_affinity::time::Timestamp;

use crate::input;

const STATUSES: [u16; 12] = [0, 400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 529];

pub(crate) fn run(bytes: &[u8]) {
    let Some((api, status, now, name, value, body)) =
        input::<(u8, u8, u64, &str, &str, &[u8])>(bytes)
    else {
        return;
    };
    let api = Api::ALL[usize::from(api) % Api::ALL.len()];
    let status = STATUSES[usize::from(status) % STATUSES.len()];
    let now = Timestamp::from_millis(now);
    let context = Context { api, provider: "claude", model: "claude-opus-5" };
    let headers: Headers = [("retry-after", value), (name, value)].into_iter().collect();

    let (reading, row) = explain(status, &headers, body, &context, now);
    assert_ne!(reading.class, Class::Success);
    assert!(row.is_some() || !reading.long, "only a code justifies a long cooldown");
    if reading.evidence == Evidence::Proof {
        assert!(reading.class.cools_down() || row.is_some());
    }
    if row.is_none() && reading.class != Class::RateLimit {
        assert_eq!(reading.evidence, Evidence::Suspicion);
    }
    for encoding in ["", "gzip", "deflate"] {
        let body = inflate::error_body(body, encoding);
        read(status, &headers, &body, &context, now);
    }

    for sign in [
        Sign::Status,
        Sign::Code(value.to_owned()),
        Sign::Header(name.to_ascii_lowercase(), Some(value.to_owned())),
        Sign::Contains(value.to_ascii_lowercase()),
    ] {
        let is_any = sign == Sign::Status;
        let rule = Rule {
            provider: None,
            status: None,
            sign,
            class: Class::Denied,
            scope: Some(Scope::Model),
            wait: None,
        };
        let found = Rule::read(&[rule], status, &headers, body, &context);
        assert!(found.is_some() || !is_any);
        if let Some(found) = found {
            assert_eq!((found.class, found.scope), (Class::Denied, Scope::Model));
        }
    }
}
