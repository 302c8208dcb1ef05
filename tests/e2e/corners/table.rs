//! The table of corners.

/// What a client sends and gets.
pub(super) struct Corner {
    /// The request line and headers, without `host`, `connection` and the line that ends them,
    /// unless they end themselves.
    pub(super) head: &'static str,
    pub(super) body: &'static str,
    /// What the upstream answers; empty where it must not be asked.
    pub(super) answer: &'static str,
    /// The statuses that the client gets, interim ones first.
    pub(super) statuses: &'static str,
    /// The outcome that the response names; empty where the filter does not decide.
    pub(super) outcome: &'static str,
}

const fn corner(
    head: &'static str,
    body: &'static str,
    answer: &'static str,
    statuses: &'static str,
    outcome: &'static str,
) -> Corner {
    Corner { head, body, answer, statuses, outcome }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

const MESSAGE: &str = r#"{"model":"claude-sonnet-4-5","max_tokens":8,"messages":[]}"#;

pub(super) const CORNERS: [Corner; 26] = [
    // Methods that no pool serves, and tunnels.
    corner("HEAD /v1/messages HTTP/1.1", "", "", "404", "unmatched"),
    corner("OPTIONS /v1/messages HTTP/1.1", "", "", "404", "unmatched"),
    corner("OPTIONS * HTTP/1.1", "", "", "404", ""),
    corner("CONNECT example.com:443 HTTP/1.1", "", "", "404", ""),
    // Responses without bodies, and what comes before and behind a body.
    corner(
        "GET /v1/models HTTP/1.1\r\nanthropic-version: 1\r\nif-none-match: x",
        "",
        "HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n",
        "304",
        "none",
    ),
    corner(
        "POST /v1/messages HTTP/1.1\r\ncontent-length: 2",
        "{}",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "204",
        "none",
    ),
    corner(
        "POST /v1/messages HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 58",
        MESSAGE,
        OK,
        "100 200",
        "none",
    ),
    corner(
        "POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\ntrailer: x-checksum",
        "2\r\n{}\r\n0\r\nx-checksum: 7\r\n\r\n",
        OK,
        "200",
        "none",
    ),
    corner(
        "POST /v1/messages HTTP/1.1\r\ncontent-length: 2",
        "{}",
        "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n\
         content-length: 2\r\n\r\n{}",
        "200",
        "none",
    ),
    corner(
        "POST /v1/messages HTTP/1.1\r\ncontent-length: 2",
        "{}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n2\r\n{}\r\n\
         0\r\nx: 1\r\n\r\n",
        "200",
        "none",
    ),
    // Upgrades that are refused, and a content type that is not read.
    corner(
        "GET /v1/messages HTTP/1.1\r\nhost: gateway\r\nconnection: upgrade, close\r\n\
         upgrade: websocket\r\n\r\n",
        "",
        "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 2\r\n\r\n{}",
        "426",
        "none",
    ),
    corner(
        "GET /v1/messages HTTP/1.1\r\nhost: gateway\r\nconnection: upgrade, close\r\n\
         upgrade: websocket\r\n\r\n",
        "",
        OK,
        "200",
        "none",
    ),
    corner(
        "POST /v1/messages HTTP/1.1\r\ncontent-type: application/grpc\r\ncontent-length: 7",
        "\0\0\0\0\x02hi",
        OK,
        "200",
        "none",
    ),
    // Headers: twice, without a value, that contradict each other.
    corner(
        "POST /v1/messages HTTP/1.1\r\nx-session-id: one\r\nx-session-id: two\r\n\
         content-type: application/json\r\ncontent-type: text/plain\r\ncontent-length: 2",
        "{}",
        OK,
        "200",
        "miss",
    ),
    corner(
        "POST /v1/messages HTTP/1.1\r\nx-session-id:\r\nx-claude-code-session-id:\r\n\
         content-length: 2",
        "{}",
        OK,
        "200",
        "none",
    ),
    corner(
        "POST /v1/messages HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 3",
        "{}",
        "",
        "400",
        "",
    ),
    corner(
        "POST /v1/messages HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked",
        "0\r\n\r\n",
        "",
        "400",
        "",
    ),
    // Targets: whole addresses, and paths that are not what they seem.
    corner(
        "POST http://elsewhere.example/v1/messages HTTP/1.1\r\ncontent-length: 2",
        "{}",
        OK,
        "200",
        "none",
    ),
    corner("POST /v1/./messages?x=/../ HTTP/1.1\r\ncontent-length: 2", "{}", OK, "200", "none"),
    corner("POST /v1/messages/%2E HTTP/1.1\r\ncontent-length: 2", "{}", OK, "200", "none"),
    corner("POST /v1/messages%3B HTTP/1.1\r\ncontent-length: 2", "{}", "", "404", "unmatched"),
    corner("POST /v1/messages#/../ HTTP/1.1\r\ncontent-length: 2", "{}", "", "400", ""),
    corner("POST /v1/messages%00 HTTP/1.1\r\ncontent-length: 2", "{}", "", "400", ""),
    // What is no HTTP/1.1.
    corner(
        "POST /v1/messages HTTP/1.1\r\nx-session-id: a\0b\r\ncontent-length: 2",
        "{}",
        "",
        "400",
        "",
    ),
    corner(
        "POST /v1/messages HTTP/1.1\r\nx-session-id: a\r\n b\r\ncontent-length: 2",
        "{}",
        OK,
        "200",
        "miss",
    ),
    corner("POST /v1/messages HTTP/1.0\r\ncontent-length: 2", "{}", "", "426", ""),
];
