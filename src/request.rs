//! A request as the decision sees it: plain data, taken from the host once.

use crate::body::Body;
use crate::steps;

/// The headers of a stream in the order they were sent, pseudo headers included. Names are lower
/// case, as Envoy gives them; values are bytes, because nothing makes clients send UTF-8.
///
/// All of them are one piece of memory, as the host hands them over: a stream has two dozen, and to
/// allocate and free each of them was a fifth of what the module did for a request.
#[derive(Clone, Default)]
pub struct Headers {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    /// The marks of all names: most headers that are asked for are not there.
    marks: u64,
}

/// Where a header is: the value is behind the name and a byte that ends it.
#[derive(Clone, Copy)]
struct Span {
    name: usize,
    name_length: usize,
    value_length: usize,
}

impl Headers {
    /// The headers that Proxy-Wasm's encoding of a map holds: their number and the sizes of each
    /// name and value, as 4 bytes in little endian each; then each name and value, with a zero byte
    /// behind. What does not decode is not there.
    pub fn of_map(mut bytes: Vec<u8>) -> Self {
        let count = size_at(&bytes, 0).unwrap_or_default();
        let mut name = count.saturating_mul(8).saturating_add(4);
        let mut spans = Vec::with_capacity(count.min(bytes.len() / 8));
        let mut marks = 0;
        for at in (0..count).map(|index| 4 + index * 8) {
            let sizes = size_at(&bytes, at).zip(size_at(&bytes, at + 4));
            let Some((name_length, value_length)) = sizes else { break };
            let value = name.saturating_add(name_length).saturating_add(1);
            let end = value.saturating_add(value_length);
            if end >= bytes.len() {
                break;
            }
            let text = bytes.get_mut(name..value - 1).unwrap_or_default();
            text.make_ascii_lowercase();
            marks |= mark(text);
            spans.push(Span { name, name_length, value_length });
            name = end + 1;
        }
        Self { bytes, spans, marks }
    }

    /// Adds a header behind all others.
    #[inline(never)]
    pub fn push(&mut self, mut name: String, value: &[u8]) {
        name.make_ascii_lowercase();
        let (name_length, value_length) = (name.len(), value.len());
        self.marks |= mark(name.as_bytes());
        self.spans.push(Span { name: self.bytes.len(), name_length, value_length });
        for part in [name.as_bytes(), b"\0", value, b"\0"] {
            self.bytes.extend_from_slice(part);
        }
    }

    fn name(&self, span: &Span) -> &[u8] {
        self.bytes.get(span.name..span.name + span.name_length).unwrap_or_default()
    }

    fn value(&self, span: &Span) -> &[u8] {
        let start = span.name + span.name_length + 1;
        self.bytes.get(start..start + span.value_length).unwrap_or_default()
    }

    #[inline(always)]
    fn is_named(&self, span: &Span, name: &str) -> bool {
        span.name_length == name.len() && self.name(span) == name.as_bytes()
    }

    /// Those that may have this name.
    #[inline(always)]
    fn candidates(&self, name: &str) -> &[Span] {
        if self.marks & mark(name.as_bytes()) == 0 { &[] } else { &self.spans }
    }

    /// All headers, in the order they were sent.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.spans.iter().map(|span| {
            // Names are ASCII: Envoy takes no other.
            let name = std::str::from_utf8(self.name(span)).unwrap_or_default();
            (name, self.value(span))
        })
    }

    /// The names of all headers, in the order they were sent.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|span| self.name(span))
    }

    /// Whether the name of any header begins so.
    pub fn any_begins_with(&self, beginning: &str) -> bool {
        self.spans.iter().any(|span| self.name(span).starts_with(beginning.as_bytes()))
    }

    /// The values of a header (its name in lower case), in the order they were sent.
    pub fn all<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        let named = self.candidates(name).iter().filter(move |span| self.is_named(span, name));
        named.map(|span| self.value(span))
    }

    /// The first value of a header, even if it is empty.
    #[inline(never)]
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        steps::count(self.spans.len());
        let mut candidates = self.candidates(name).iter();
        candidates.find(|span| self.is_named(span, name)).map(|span| self.value(span))
    }

    /// The path without its query.
    pub fn path(&self) -> &str {
        let path = self.text(":path");
        path.split_once('?').map_or(path, |(path, _)| path)
    }

    /// The authority without its port, in lower case.
    pub fn host(&self) -> String {
        let authority = self.text(":authority");
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        };
        host.to_ascii_lowercase()
    }

    /// Whether the stream asks to become a WebSocket.
    pub fn ask_for_websocket(&self) -> bool {
        self.text("upgrade").eq_ignore_ascii_case("websocket")
    }

    /// Whether a body follows that can be waited for and read as JSON:
    /// - an upgrade never ends its body before the upstream responds, so waiting would be a
    ///   deadlock;
    /// - a body with another content type, or compressed, could not be read anyway. A missing
    ///   content type is read: some clients send none.
    pub fn announce_json(&self, end_of_stream: bool) -> bool {
        let content_type = self.text("content-type");
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        let media_type = media_type.to_ascii_lowercase();
        // Not lines of JSON, nor gRPC: such a stream may wait for a response before it ends.
        let is_document = media_type.is_empty()
            || media_type.ends_with("/json")
            || (media_type.ends_with("+json") && !media_type.starts_with("application/grpc"));
        let content_encoding = self.text("content-encoding").trim();
        !end_of_stream
            && self.first("upgrade").is_none()
            && self.first(":method") != Some(b"CONNECT")
            && is_document
            && (content_encoding.is_empty() || content_encoding.eq_ignore_ascii_case("identity"))
    }

    /// The first value of that name as text; empty if there is none, or it is not UTF-8.
    pub fn text(&self, name: &str) -> &str {
        self.first(name).and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
    }
}

impl<N: Into<String>, V: Into<Vec<u8>>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let mut collected = Self::default();
        for (name, value) in headers {
            let (name, value) = (name.into(), value.into());
            collected.push(name, &value);
        }
        collected
    }
}

/// One of 64 bits, by the length of a name and its last byte.
fn mark(name: &[u8]) -> u64 {
    let last = name.last().map_or(0, |&last| usize::from(last));
    1 << ((name.len() + 5 * last) & 63)
}

fn size_at(bytes: &[u8], at: usize) -> Option<usize> {
    let size = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*size)).ok()
}

/// What is known of a request when it is decided.
#[derive(Clone)]
pub struct Request<'a> {
    /// The headers as the client sent them.
    pub headers: &'a Headers,
    /// What the body says; empty when there is none, or it was not read.
    pub body: Body<'a>,
    /// The values of the properties that the configuration's scope names, in its order; empty ones
    /// are absent.
    pub properties: &'a [Vec<u8>],
}

impl<'a> Request<'a> {
    /// A request without properties.
    pub fn new(headers: &'a Headers, body: Body<'a>) -> Self {
        Self { headers, body, properties: &[] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Headers {
        list.iter().map(|&(name, value)| (name, value)).collect()
    }

    #[test]
    fn a_json_body_is_waited_for() {
        assert!(
            headers(&[("content-type", "application/json; charset=utf-8")]).announce_json(false)
        );
        assert!(headers(&[("Content-Type", "application/vnd.api+JSON")]).announce_json(false));
        assert!(headers(&[]).announce_json(false));
        assert!(headers(&[("content-encoding", "identity")]).announce_json(false));
    }

    #[test]
    fn nothing_is_held_that_has_no_json_body() {
        assert!(!headers(&[("content-type", "application/json")]).announce_json(true));
        assert!(
            !headers(&[("content-type", "multipart/form-data; boundary=x")]).announce_json(false)
        );
        assert!(
            !headers(&[("content-type", "application/json"), ("content-encoding", "zstd")])
                .announce_json(false)
        );
        for stream in ["application/x-ndjson", "application/jsonl", "application/grpc+json"] {
            assert!(!headers(&[("content-type", stream)]).announce_json(false), "{stream}");
        }
        assert!(!headers(&[("upgrade", "websocket")]).announce_json(false));
        assert!(!headers(&[(":method", "CONNECT")]).announce_json(false));
    }

    #[test]
    fn path_and_host_lose_query_and_port() {
        let headers =
            headers(&[(":path", "/v1/messages?beta=true"), (":authority", "[::1]:10000")]);
        assert_eq!(headers.path(), "/v1/messages");
        assert_eq!(headers.host(), "[::1]");
    }

    /// Headers in Proxy-Wasm's encoding.
    fn map(list: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut bytes = (list.len() as u32).to_le_bytes().to_vec();
        for size in list.iter().flat_map(|(name, value)| [name.len(), value.len()]) {
            bytes.extend_from_slice(&(size as u32).to_le_bytes());
        }
        for (name, value) in list {
            bytes.extend_from_slice(&[*name, b"\0", *value, b"\0"].concat());
        }
        bytes
    }

    #[test]
    fn the_hosts_map_reads_as_what_was_sent() {
        let list: [(&[u8], &[u8]); 4] =
            [(b":path", b"/v1"), (b"X-Empty", b""), (b"x", b"a\0b\xff"), (b"x", b"second")];
        let headers = Headers::of_map(map(&list));
        let expected: Headers = list
            .iter()
            .map(|(name, value)| (String::from_utf8_lossy(name), value.to_vec()))
            .collect();
        assert!(headers.iter().eq(expected.iter()));
        assert_eq!(headers.first("x-empty"), Some(b"".as_slice()));
        assert!(headers.all("x").eq([b"a\0b\xff".as_slice(), b"second"]));
        assert_eq!(headers.first("absent"), None);
    }

    #[test]
    fn a_map_that_was_cut_or_lies_reads_as_far_as_it_is_whole() {
        let whole = map(&[(b"a", b"1"), (b"b", b"2")]);
        for length in 0..whole.len() {
            let headers = Headers::of_map(whole.get(..length).unwrap().to_vec());
            assert!(headers.iter().count() < 2, "{length}");
            assert!(headers.iter().all(|header| header == ("a", b"1".as_slice())));
        }
        for lie in [[0xff; 4], [0, 0, 0, 0x80], [3, 0, 0, 0]] {
            let mut bytes = whole.clone();
            bytes.splice(0..4, lie);
            assert_eq!(Headers::of_map(bytes).iter().count(), 0);
        }
        let mut bytes = whole;
        bytes.splice(4..8, [0xff; 4]);
        assert_eq!(Headers::of_map(bytes).iter().count(), 0);
    }

    #[test]
    fn a_value_that_is_not_utf8_is_kept_as_bytes() {
        let headers: Headers = [("x", vec![0xff, 0xfe])].into_iter().collect();
        assert_eq!(headers.first("x"), Some([0xff, 0xfe].as_slice()));
        assert_eq!(headers.text("x"), "");
    }
}
