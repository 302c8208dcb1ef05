//! The fields of an error that providers fill, whatever the shape of the body.
//!
//! A pool that is called `openai` may be DeepSeek, OpenRouter or vLLM, and Gemini's
//! OpenAI-compatible endpoint responds with Google's errors. So no shape is expected: each field is
//! read wherever a provider puts it.

use std::borrow::Cow;

use super::row::contains;
use crate::json::{Kind, Value};
use crate::request::Headers;
use crate::steps;

/// Details of an error that are read for codes: each code is looked up in every table.
const MOST_DETAILS: usize = 32;

/// As much of a message as is read.
const MESSAGE_BYTES: usize = 2048;

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Json,
    Html,
    Text,
    Empty,
}

/// What an error says in its fields.
pub(super) struct Report<'a> {
    pub(super) content: Content,
    /// The object that describes the error: `error`, or the whole document.
    pub(super) error: Option<Value<'a>>,
    /// The provider's codes, the most telling one first.
    pub(super) codes: Vec<Cow<'a, [u8]>>,
    /// The kinds of error that it names.
    pub(super) types: Vec<Cow<'a, [u8]>>,
    /// Whether one of the codes is a name, as in APIs that mean their codes to be read.
    pub(super) has_own_code: bool,
    /// What the provider wrote for people, in lower case.
    pub(super) message: Vec<u8>,
    /// Whether the message rejects a part of the request, and so repeats what a client wrote.
    pub(super) quotes_the_request: bool,
    /// The status that the body repeats.
    pub(super) status: Option<u16>,
}

/// How messages begin or end that repeat a part of the request: a member, a header's value, a role.
const QUOTING: [&str; 20] = [
    "extra inputs are not permitted",
    "does not match any of the expected",
    "input should be",
    "unexpected value",
    "unknown name",
    "cannot find field",
    "invalid json payload",
    "unknown parameter",
    "unsupported parameter",
    "unrecognized request argument",
    "unrecognized key",
    "unknown field",
    "invalid value",
    "invalid type",
    "additional properties",
    "unexpected role",
    "unknown variant",
    "invalid enum value",
    "cannot unmarshal",
    "does not match pattern",
];

/// Values of `error.code` that name nothing.
const NO_CODES: [&str; 5] =
    ["invalid_request_error", "bad_request", "unknown_error", "error", "none"];

impl<'a> Report<'a> {
    /// What a response says.
    pub(super) fn of(headers: &Headers, body: &'a [u8]) -> Self {
        let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
        let content_type = headers.text("content-type").as_bytes();
        let content = match text.first() {
            Some(b'{' | b'[' | b':') => Content::Json,
            Some(b'<') => Content::Html,
            _ if starts_with_ignoring_case(content_type, b"text/html") => Content::Html,
            None => Content::Empty,
            _ if [&b"data:"[..], b"event:", b"id:"].iter().any(|word| text.starts_with(word)) => {
                Content::Json
            }
            _ => Content::Text,
        };
        let document = Value::document(text).filter(|_| content == Content::Json);
        // Google's list of one error object.
        let root = document.and_then(|document| match document.kind() {
            Kind::Array => document.elements().next(),
            _ => Some(document),
        });
        let mut report = match root {
            Some(root) => Self::of_json(root),
            None => Self::new(content),
        };
        if content == Content::Text {
            report.message = lower(text);
        }
        // AWS names the kind of error before the body: `ThrottlingException:http://…`.
        let aws = headers.first("x-amzn-errortype").unwrap_or_default();
        if let Some(code) = aws.split(|&byte| byte == b':').next().filter(|code| !code.is_empty()) {
            report.codes.insert(0, Cow::Owned(code.to_vec()));
            report.has_own_code = true;
        }
        report
    }

    #[inline(never)]
    fn new(content: Content) -> Self {
        Self {
            content,
            error: None,
            codes: Vec::new(),
            types: Vec::new(),
            has_own_code: false,
            message: Vec::new(),
            quotes_the_request: false,
            status: None,
        }
    }

    /// What a document says: the body of a response, an event of a stream, a frame.
    pub(super) fn of_json(root: Value<'a>) -> Self {
        let error = error_object(root).unwrap_or(root);
        let is_root = error == root;
        let mut report = Self { error: Some(error), ..Self::new(Content::Json) };

        report.add_code(member(root, "__type"));
        if let Some(details) = member(error, "details") {
            report.add_code(member(details, "error_code"));
            if details.kind() == Kind::Array {
                for detail in details.elements().take(MOST_DETAILS) {
                    report.add_code(member(detail, "reason"));
                }
            }
        }
        if let Some(metadata) = member(error, "metadata") {
            report.add_code(member(metadata, "error_type"));
            if member(metadata, "flagged_input").is_some() {
                report.codes.push(Cow::Borrowed(b"moderation"));
            }
        }
        report.add_code(member(error, "code"));
        report.add_type(member(error, "type"));
        report.add_type(member(error, "status").filter(|value| value.kind() == Kind::String));
        report.add_type(member(error, "error_type"));
        if !is_root {
            report.add_code(member(root, "code"));
            report.add_type(member(root, "type"));
            report.add_type(member(root, "error_type"));
        }

        let message = ["message", "Message", "error", "detail", "msg"]
            .into_iter()
            .find_map(|name| string(member(error, name)))
            .or_else(|| string(member(root, "message")));
        report.message = message.map(|text| lower(&text)).unwrap_or_default();
        report.quotes_the_request = QUOTING.iter().any(|words| contains(&report.message, words));
        report.status =
            [member(root, "status"), member(root, "status_code"), member(error, "status")]
                .into_iter()
                .chain([member(error, "code"), member(error, "status_code")])
                .flatten()
                .find_map(as_status);
        report
    }

    fn add_code(&mut self, value: Option<Value<'a>>) {
        let Some(value) = value else { return };
        let code = match value.kind() {
            Kind::String | Kind::Number => value.text(),
            _ => return,
        };
        // AWS: `com.amazon.coral.availability#ThrottlingException`.
        let code = match memchr::memchr(b'#', &code) {
            Some(at) => Cow::Owned(code.get(at + 1..).unwrap_or_default().to_vec()),
            None => code,
        };
        let is_name = value.kind() == Kind::String
            && code.iter().any(u8::is_ascii_alphabetic)
            // Sentences, as xAI writes them, are prose.
            && !code.contains(&b' ')
            && !NO_CODES.iter().any(|word| word.as_bytes() == code.as_ref());
        self.has_own_code |= is_name;
        if !code.is_empty() {
            self.codes.push(code);
        }
    }

    #[inline(never)]
    fn add_type(&mut self, value: Option<Value<'a>>) {
        if let Some(text) = string(value) {
            self.types.push(text);
        }
    }

    /// Whether the message names the model, as a word of its own: not as a part of a longer name,
    /// nor of a path with a method.
    pub(super) fn names(&self, model: &str) -> bool {
        steps::count(self.message.len());
        self.message.split(|&byte| !is_of_a_name(byte)).any(|word| {
            let end = word.iter().rposition(|&byte| !matches!(byte, b'.' | b':' | b'/'));
            let word = word.get(..end.map_or(0, |end| end + 1)).unwrap_or_default();
            let (before, name) = word.split_at(word.len().saturating_sub(model.len()));
            !model.is_empty()
                && name.eq_ignore_ascii_case(model.as_bytes())
                && before.last().is_none_or(|&byte| byte == b'/')
        })
    }

    /// The elements of `error.details`, as Google fills it.
    pub(super) fn details(&self) -> impl Iterator<Item = Value<'a>> {
        let details = self.error.and_then(|error| member(error, "details"));
        details
            .filter(|details| details.kind() == Kind::Array)
            .into_iter()
            .flat_map(Value::elements)
            .filter(|detail| detail.kind() == Kind::Object)
    }
}

/// The object that describes the error, if it is not the document itself.
fn error_object(root: Value<'_>) -> Option<Value<'_>> {
    [
        member(root, "error"),
        member(root, "response").and_then(|response| member(response, "error")),
        member(root, "detail"),
        member(root, "errors").and_then(|errors| errors.elements().next()),
    ]
    .into_iter()
    .flatten()
    .find(|value| value.kind() == Kind::Object)
}

/// The member of that name. Not inlined: errors are rare, and there are many members.
#[inline(never)]
pub(super) fn member<'a>(value: Value<'a>, name: &str) -> Option<Value<'a>> {
    value.get(name)
}

fn string(value: Option<Value<'_>>) -> Option<Cow<'_, [u8]>> {
    value.filter(|value| value.kind() == Kind::String).map(Value::text)
}

fn as_status(value: Value<'_>) -> Option<u16> {
    let text = value.text();
    let status = std::str::from_utf8(&text).ok()?.parse().ok()?;
    (400..600).contains(&status).then_some(status)
}

#[inline(never)]
fn lower(text: &[u8]) -> Vec<u8> {
    text.get(..MESSAGE_BYTES).unwrap_or(text).to_ascii_lowercase()
}

/// Bytes of which names of models consist.
fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/' | b'@')
}

fn starts_with_ignoring_case(text: &[u8], beginning: &[u8]) -> bool {
    text.get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning))
}
