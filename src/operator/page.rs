//! The page itself, compressed when the module is built.

use std::borrow::Cow;

use super::Reply;
use crate::request::Headers;
use crate::signals::inflate;

/// A file of the page.
#[derive(Debug)]
pub(super) struct Asset {
    pub(super) path: &'static str,
    content_type: &'static str,
    /// Compressed by gzip.
    bytes: &'static [u8],
}

macro_rules! compressed {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz"))
    };
}

pub(super) static ASSETS: [Asset; 3] = [
    Asset { path: "/", content_type: "text/html; charset=utf-8", bytes: compressed!("page.html") },
    Asset {
        path: "/page.css",
        content_type: "text/css; charset=utf-8",
        bytes: compressed!("page.css"),
    },
    Asset {
        path: "/page.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: compressed!("page.js"),
    },
];

impl Asset {
    /// As it is stored for a client that accepts that, which every browser does.
    pub(super) fn reply(&self, headers: &Headers) -> Reply {
        let mut own = vec![("content-type", self.content_type)];
        let body = if headers.text("accept-encoding").contains("gzip") {
            own.push(("content-encoding", "gzip"));
            Cow::Borrowed(self.bytes)
        } else {
            inflate::error_body(self.bytes, "gzip")
        };
        Reply { status: 200, headers: own, body, done: None }
    }
}
