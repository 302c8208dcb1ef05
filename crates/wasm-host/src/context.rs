//! What host calls see of one stream.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::Headers;

/// What the listener's context and those of all attempts have in common.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    pub(crate) request: Headers,
    pub(crate) filter_states: BTreeMap<String, Vec<u8>>,
    /// Attributes of Envoy by their path, with dots.
    pub(crate) attributes: BTreeMap<String, Vec<u8>>,
}

/// A response that the filter made itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalReply {
    /// Its headers, the status among them.
    pub headers: Headers,
    /// Its body.
    pub body: Vec<u8>,
}

/// One context of a stream.
#[derive(Debug, Default)]
pub(crate) struct Context {
    pub(crate) exchange: Rc<RefCell<Exchange>>,
    pub(crate) request_trailers: Headers,
    pub(crate) response: Headers,
    pub(crate) response_trailers: Headers,
    /// What body callbacks see: all that is held, or the piece that passes.
    pub(crate) request_body: Vec<u8>,
    pub(crate) response_body: Vec<u8>,
    /// Attributes of this context alone.
    pub(crate) attributes: BTreeMap<String, Vec<u8>>,
    pub(crate) reply: Option<LocalReply>,
    /// Whether the filter has let a held response go.
    pub(crate) is_resumed: bool,
}

impl Context {
    pub(crate) fn of(exchange: &Rc<RefCell<Exchange>>) -> Self {
        Self { exchange: Rc::clone(exchange), ..Self::default() }
    }

    /// There is a connection to the upstream.
    pub(crate) fn connect(&mut self) {
        let address = b"127.0.0.1:40000".to_vec();
        self.attributes.insert("upstream.local_address".to_owned(), address);
    }

    pub(crate) fn attribute(&self, path: &str) -> Option<Vec<u8>> {
        let exchange = self.exchange.borrow();
        let attribute = self.attributes.get(path).or_else(|| exchange.attributes.get(path));
        attribute.cloned().or_else(|| of_request(&exchange.request, path)).or_else(|| {
            // A name alone may be that of a filter state.
            exchange.filter_states.get(path).cloned()
        })
    }

    pub(crate) fn map(&self, kind: u32) -> Option<Headers> {
        Some(match kind {
            0 => self.exchange.borrow().request.clone(),
            1 => self.request_trailers.clone(),
            2 => self.response.clone(),
            3 => self.response_trailers.clone(),
            _ => return None,
        })
    }

    /// Changes a map; returns whether there is such a one.
    pub(crate) fn change_map(&mut self, kind: u32, change: impl FnOnce(&mut Headers)) -> bool {
        match kind {
            0 => change(&mut self.exchange.borrow_mut().request),
            1 => change(&mut self.request_trailers),
            2 => change(&mut self.response),
            3 => change(&mut self.response_trailers),
            _ => return false,
        }
        true
    }
}

/// The name of a map, as a table shows it.
pub(crate) fn map_name(kind: u32) -> &'static str {
    match kind {
        0 => "request",
        1 => "request_trailers",
        2 => "response",
        3 => "response_trailers",
        _ => "unknown",
    }
}

/// Attributes that repeat a header of the request.
fn of_request(request: &Headers, path: &str) -> Option<Vec<u8>> {
    let name = match path {
        "request.path" => ":path",
        "request.method" => ":method",
        "request.host" => ":authority",
        _ => path.strip_prefix("request.headers.")?,
    };
    request.get(name)
}
