//! A request as the decision sees it: plain data, taken from the host once.

use crate::body::Body;

/// The headers of a stream in the order they were sent, pseudo headers included. Names are lower case, as Envoy gives
/// them; values are bytes, because nothing makes clients send UTF-8.
#[derive(Clone, Default)]
pub struct Headers(Vec<(String, Vec<u8>)>);

impl Headers {
    /// The value of the first header of that name (lower case), even if it is empty.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }

    /// The first value of that name as text; empty if there is none, or it is not UTF-8.
    pub fn text(&self, name: &str) -> &str {
        self.first(name).and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
    }
}

impl<N: Into<String>, V: Into<Vec<u8>>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let lower = |name: N| -> String {
            let mut name = name.into();
            name.make_ascii_lowercase();
            name
        };
        Self(headers.into_iter().map(|(name, value)| (lower(name), value.into())).collect())
    }
}

/// What is known of a request when it is decided.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The headers as the client sent them.
    pub headers: &'a Headers,
    /// What the body says; empty when there is none, or it was not read.
    pub body: Body<'a>,
}

impl<'a> Request<'a> {
    /// The path without its query.
    pub fn path(&self) -> &'a str {
        let path = self.headers.text(":path");
        path.split_once('?').map_or(path, |(path, _)| path)
    }

    /// The authority without its port, as sent.
    pub fn host(&self) -> &'a str {
        let authority = self.headers.text(":authority");
        match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        }
    }

    /// Whether the stream asks to become a WebSocket.
    pub fn is_websocket(&self) -> bool {
        asks_for_websocket(self.headers)
    }
}

/// Whether the filter should hold these headers until it has read the body. Nothing is held that has no body to wait
/// for, or a body that cannot be read as JSON:
/// - an upgrade never ends its body before the upstream answers, so waiting would be a deadlock;
/// - a body with another content type, or compressed, could not be read anyway. A missing content type is read: some
///   clients send none.
pub fn must_read_body(headers: &Headers, end_of_stream: bool) -> bool {
    let content_type = headers.text("content-type").to_ascii_lowercase();
    let content_encoding = headers.text("content-encoding").trim();
    !end_of_stream
        && headers.first("upgrade").is_none()
        && headers.first(":method") != Some(b"CONNECT")
        && (content_type.is_empty() || content_type.contains("json"))
        && (content_encoding.is_empty() || content_encoding.eq_ignore_ascii_case("identity"))
}

fn asks_for_websocket(headers: &Headers) -> bool {
    headers.text("upgrade").eq_ignore_ascii_case("websocket")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Headers {
        list.iter().map(|&(name, value)| (name, value)).collect()
    }

    #[test]
    fn a_json_body_is_waited_for() {
        assert!(must_read_body(&headers(&[("content-type", "application/json; charset=utf-8")]), false));
        assert!(must_read_body(&headers(&[("Content-Type", "application/vnd.api+JSON")]), false));
        assert!(must_read_body(&headers(&[]), false));
        assert!(must_read_body(&headers(&[("content-encoding", "identity")]), false));
    }

    #[test]
    fn nothing_is_held_that_has_no_json_body() {
        assert!(!must_read_body(&headers(&[("content-type", "application/json")]), true));
        assert!(!must_read_body(&headers(&[("content-type", "multipart/form-data; boundary=x")]), false));
        assert!(!must_read_body(
            &headers(&[("content-type", "application/json"), ("content-encoding", "zstd")]),
            false
        ));
        assert!(!must_read_body(&headers(&[("upgrade", "websocket")]), false));
        assert!(!must_read_body(&headers(&[(":method", "CONNECT")]), false));
    }

    #[test]
    fn path_and_host_lose_query_and_port() {
        let headers = headers(&[(":path", "/v1/messages?beta=true"), (":authority", "[::1]:10000")]);
        let request = Request { headers: &headers, body: Body::default() };
        assert_eq!(request.path(), "/v1/messages");
        assert_eq!(request.host(), "[::1]");
    }

    #[test]
    fn a_value_that_is_not_utf8_is_kept_as_bytes() {
        let headers: Headers = [("x", vec![0xff, 0xfe])].into_iter().collect();
        assert_eq!(headers.first("x"), Some([0xff, 0xfe].as_slice()));
        assert_eq!(headers.text("x"), "");
    }
}
