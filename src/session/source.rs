//! One place where clients name their session, and how an id is taken from it.

use std::borrow::Cow;

use regex::bytes::Regex;

use super::{claude, id};
use crate::body::PathId;
use crate::json::{Kind, Value};
use crate::request::Request;
use crate::steps;

/// Bytes of a text in which an expression looks for an id.
const PATTERN_TEXT: usize = 4096;

/// A place that may hold a session id.
#[derive(Clone, Debug)]
pub struct Source {
    /// The word for logs, and the prefix of the session id, which keeps equal ids of different
    /// places apart.
    pub name: Cow<'static, str>,
    /// Where it is.
    pub location: SourceLocation,
    /// Only for clients whose `originator` or `user-agent` begins so; all if empty.
    pub clients: &'static [&'static str],
    /// The text is JSON, and the id a string at this path in it; empty if the text is the id.
    pub json: Vec<String>,
    /// The id is what the first group of this expression matches; the whole text if there is none.
    pub pattern: Option<Regex>,
}

/// Where a source looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceLocation {
    /// A request header (lower case).
    Header(Cow<'static, str>),
    /// A string in the body.
    Body(PathId),
    /// `metadata.user_id`, if it is Claude Code's.
    Claude(PathId),
    /// The hash of the first messages.
    MessageHash,
}

/// What a value must be to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Trimmed, 1 to 256 bytes, no control characters; of a body only strings; of a header any of
    /// its values.
    Recommended,
    /// As the reference: whatever is not empty, of any type; of a header only the first value.
    Reference,
}

impl Source {
    /// A source that takes the text of a place as it is.
    pub fn new(name: impl Into<Cow<'static, str>>, location: SourceLocation) -> Self {
        Self { name: name.into(), location, clients: &[], json: Vec::new(), pattern: None }
    }

    /// The id that a request has here. The message hash is no id of a client's, so it is not found
    /// here.
    pub(super) fn id(&self, request: &Request<'_>, rules: Rules) -> Option<Vec<u8>> {
        if !self.is_for_client(request) {
            return None;
        }
        match &self.location {
            SourceLocation::Header(name) => {
                let values = request.headers.all(name);
                let most = if rules == Rules::Reference { 1 } else { usize::MAX };
                values.take(most).find_map(|value| self.refined(value, rules))
            }
            SourceLocation::Body(path) => self.refined(&string_at(request, *path, rules)?, rules),
            SourceLocation::Claude(path) => {
                let user_id = string_at(request, *path, rules)?;
                match rules {
                    Rules::Reference => claude::reference_session(&user_id),
                    Rules::Recommended => accepted(&claude::session(&user_id)?, rules),
                }
            }
            SourceLocation::MessageHash => None,
        }
    }

    fn is_for_client(&self, request: &Request<'_>) -> bool {
        self.clients.is_empty()
            || ["originator", "user-agent"].iter().any(|header| {
                let name = request.headers.text(header);
                self.clients.iter().any(|client| names_client(name, client))
            })
    }

    fn refined(&self, text: &[u8], rules: Rules) -> Option<Vec<u8>> {
        let mut text = Cow::Borrowed(text);
        if !self.json.is_empty() {
            let mut value = Value::document(&text)?;
            for name in &self.json {
                value = value.get(name)?;
            }
            text = Cow::Owned(
                Some(value).filter(|value| value.kind() == Kind::String)?.text().into_owned(),
            );
        }
        match &self.pattern {
            Some(pattern) => {
                // An expression costs some hundred nanoseconds a byte, and an id is short.
                let text = text.get(..PATTERN_TEXT).unwrap_or(&text);
                steps::count(text.len());
                accepted(pattern.captures(text)?.get(1)?.as_bytes(), rules)
            }
            None => accepted(&text, rules),
        }
    }
}

fn accepted(text: &[u8], rules: Rules) -> Option<Vec<u8>> {
    match rules {
        Rules::Recommended => id::valid(text).map(<[u8]>::to_vec),
        Rules::Reference => (!text.is_empty()).then(|| text.to_vec()),
    }
}

fn string_at<'a>(request: &Request<'a>, path: PathId, rules: Rules) -> Option<Cow<'a, [u8]>> {
    let value = request.body.get(path)?;
    (rules == Rules::Reference || value.kind() == Kind::String).then(|| value.text())
}

/// Whether a client's name is this, or begins so and goes on with something that is no letter: `pi`
/// is in `pi/0.52` and not in `pip`.
fn names_client(name: &str, client: &str) -> bool {
    let (name, length) = (name.as_bytes(), client.len());
    name.get(..length).is_some_and(|start| start.eq_ignore_ascii_case(client.as_bytes()))
        && !name.get(length).is_some_and(u8::is_ascii_alphabetic)
}
