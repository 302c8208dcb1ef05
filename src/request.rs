//! A request as the decision sees it: plain data, taken from the host once.

use crate::body::Body;
use crate::steps;

/// The headers of a stream in the order they were sent, pseudo headers included. Names are lower
/// case, as Envoy gives them; values are bytes, because nothing makes clients send UTF-8.
#[derive(Clone, Default)]
pub struct Headers(Vec<(String, Vec<u8>)>);

impl Headers {
    /// All headers, in the order they were sent.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The values of a header (its name in lower case), in the order they were sent.
    pub fn all<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_slice())
    }

    /// The first value of a header, even if it is empty.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        steps::count(self.0.len());
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
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
        let headers = headers.into_iter().map(|(name, value)| {
            let mut name = name.into();
            name.make_ascii_lowercase();
            (name, value.into())
        });
        Self(headers.collect())
    }
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

    #[test]
    fn a_value_that_is_not_utf8_is_kept_as_bytes() {
        let headers: Headers = [("x", vec![0xff, 0xfe])].into_iter().collect();
        assert_eq!(headers.first("x"), Some([0xff, 0xfe].as_slice()));
        assert_eq!(headers.text("x"), "");
    }
}
