//! Any bytes as a body, in both profiles: nothing crashes, hangs, or finds an id that breaks the
//! rules.

use session_affinity::body::{Body, Paths};
use session_affinity::json::Value;
use session_affinity::request::{Headers, Request};
use session_affinity::session::Sources;

pub(crate) fn run(bytes: &[u8]) {
    let mut paths = Paths::default();
    let headers = Headers::default();
    for (sources, validated) in
        [(Sources::recommended(&mut paths), true), (Sources::reference(&mut paths), false)]
    {
        let request =
            Request { headers: &headers, body: Body::read(&paths, bytes), properties: &[] };
        let request = &request;
        let first = sources.identify(request);
        let last = sources.identify_bound(request, Some(&|_: &[u8]| false));
        let of_question = sources.identify_bound(request, None);
        for session in [first, last, of_question].into_iter().flatten() {
            let id = session.primary.splitn(2, |&byte| byte == b':').nth(1).unwrap();
            assert!(!id.is_empty());
            assert!(!validated || (id.len() <= 256 && !id.iter().any(u8::is_ascii_control)));
        }
    }
    read_all(Value::document(bytes), 3);
}

fn read_all(value: Option<Value<'_>>, levels: u32) {
    let Some(value) = value else { return };
    let _ = value.text();
    if levels > 0 {
        value.members().for_each(|(_, member)| read_all(Some(member), levels - 1));
        value.elements().for_each(|element| read_all(Some(element), levels - 1));
    }
}
