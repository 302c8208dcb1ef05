//! Logs and traces that print keys. What one attempt adds to a request is visible to everything
//! that runs later, and access logs run last.

use super::document::Cursor;
use super::filter::Setup;
use super::finding::Findings;
use super::listener::Manager;
use super::resources::Resources;
use crate::routes::CLIENT_KEY_HEADERS;

/// Request headers with secrets, whatever is configured.
const SECRET: [&str; 2] = ["proxy-authorization", "cookie"];

/// Operators that print a request header.
const PRINTS_HEADER: [&str; 2] = ["%REQ(", "%REQUEST_HEADER("];

/// All headers that may carry a key.
pub(super) fn key_headers(setup: &Setup<'_>, resources: &Resources<'_>) -> Vec<String> {
    let pools = setup.config.pools.iter().flat_map(|pool| &pool.credentials);
    let set = pools.flat_map(|credential| credential.headers.iter().map(|it| it.name.clone()));
    let injected = super::cluster::injectors(resources).into_iter();
    let injected = injected.map(|(_, injector)| super::cluster::injected_header(&injector));
    CLIENT_KEY_HEADERS
        .into_iter()
        .chain(SECRET)
        .map(str::to_owned)
        .chain(set)
        .chain(injected)
        .collect()
}

pub(super) fn check(manager: &Manager<'_>, keys: &[String], findings: &mut Findings) {
    for logs in [manager.at.get("access_log"), manager.listener.get("access_log")] {
        for log in logs.elements() {
            check_log(&log, keys, findings);
        }
    }
    for tag in manager.at.get("tracing.custom_tags").elements() {
        let name = tag.get("request_header.name");
        if name.text().is_some_and(|it| keys.iter().any(|key| key.eq_ignore_ascii_case(it))) {
            findings.problem(&name, "it traces a header that carries keys", "remove this tag");
        }
    }
}

fn check_log(log: &Cursor<'_>, keys: &[String], findings: &mut Findings) {
    let (_, config) = log.typed_config();
    for text in config.texts() {
        for (operator, argument) in headers_in(text.text().unwrap_or_default()) {
            let names: Vec<_> = argument.split('?').map(|name| name.to_ascii_lowercase()).collect();
            if names.iter().any(|name| keys.contains(name)) {
                findings.problem(
                    &text,
                    format!("{operator}{argument})% prints a key"),
                    "remove it from the format",
                );
            } else if names.iter().any(|name| name == ":path" || name == "path") {
                findings.advise(
                    &text,
                    format!(
                        "{operator}{argument})% prints the query, and what a client may pretend"
                    ),
                    "%PATH(NQ:PATH)%",
                );
            }
        }
    }
}

/// The operators of a format that print headers, with what they print.
fn headers_in(format: &str) -> Vec<(&'static str, &str)> {
    let mut found = Vec::new();
    for operator in PRINTS_HEADER {
        let behind = format.split(operator).skip(1);
        found.extend(behind.filter_map(|rest| Some((operator, rest.split_once(')')?.0))));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_in_a_format_are_found() {
        let format = "%REQ(:METHOD)% %REQ(X-A?X-B):7% %START_TIME(%s)% %REQ(open";
        assert_eq!(headers_in(format), [("%REQ(", ":METHOD"), ("%REQ(", "X-A?X-B")]);
    }
}
