//! What goes into a stream and what comes out of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Cost, Headers};

/// A request of a client.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Its headers, with `:method`, `:path` and `:authority`.
    pub headers: Headers,
    /// Its body, in the pieces in which it arrives; none if there is no body.
    pub pieces: Vec<Vec<u8>>,
    /// Its trailers.
    pub trailers: Option<Headers>,
    /// Attributes of Envoy by their path with dots, such as `source.address`.
    pub attributes: BTreeMap<String, Vec<u8>>,
}

impl Request {
    /// A request with these headers, and a body that arrives in one piece.
    pub fn new<'h>(headers: impl IntoIterator<Item = (&'h str, &'h str)>, body: &[u8]) -> Self {
        let headers = headers.into_iter().collect();
        let pieces = if body.is_empty() { Vec::new() } else { vec![body.to_vec()] };
        Self { headers, pieces, ..Self::default() }
    }

    /// The same with its body in pieces of this size.
    #[must_use]
    pub fn in_pieces_of(mut self, size: usize) -> Self {
        self.pieces = self.pieces.concat().chunks(size).map(<[u8]>::to_vec).collect();
        self
    }
}

/// An attempt, as the upstream sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its cluster.
    pub cluster: String,
    /// The headers of the request as the filter on the cluster left them.
    pub headers: Headers,
}

/// What an upstream does with an attempt.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It responds.
    Response(Response),
    /// It does not: the details of the response that Envoy would make of that, and whether there
    /// was a connection.
    Failure {
        /// As `response.code_details` has it.
        details: String,
        /// Whether there was a connection.
        is_connected: bool,
    },
}

/// A response: of an upstream, or as it reaches the client.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// Its headers, with `:status`.
    pub headers: Headers,
    /// What comes after them.
    pub events: Vec<Event>,
    /// Its trailers.
    pub trailers: Option<Headers>,
}

/// What happens after the headers of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A piece of the body arrives.
    Piece(Vec<u8>),
    /// Time passes, and what is due in the VM is done.
    Wait(Duration),
    /// The clock is set back by so much, and what is due in the VM is done.
    SetBack(Duration),
    /// The upstream closes its connection, and nothing comes any more: the last event.
    Cut,
}

impl Response {
    /// A response with this status and these headers, and a body in one piece.
    pub fn new<'h>(
        status: u16,
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
        body: &[u8],
    ) -> Self {
        let mut headers: Headers = headers.into_iter().collect();
        headers.set(":status", status.to_string().as_bytes());
        let events = if body.is_empty() { Vec::new() } else { vec![Event::Piece(body.to_vec())] };
        Self { headers, events, trailers: None }
    }

    /// Its status.
    pub fn status(&self) -> u16 {
        self.headers.status()
    }

    /// Its body.
    pub fn body(&self) -> Vec<u8> {
        let pieces = self.events.iter().filter_map(|event| match event {
            Event::Piece(bytes) => Some(&bytes[..]),
            Event::Wait(_) | Event::SetBack(_) | Event::Cut => None,
        });
        pieces.collect::<Vec<_>>().concat()
    }
}

/// A stream that is over.
#[derive(Clone, Debug)]
pub struct Played {
    /// The response that the client has got.
    pub response: Response,
    /// The attempts, in order.
    pub attempts: Vec<Attempt>,
    /// The filter states, by name.
    pub filter_states: BTreeMap<String, Vec<u8>>,
    /// What all of it has cost in the VM.
    pub cost: Cost,
}

impl Played {
    /// The clusters of the attempts, in order.
    pub fn clusters(&self) -> Vec<&str> {
        self.attempts.iter().map(|attempt| attempt.cluster.as_str()).collect()
    }

    /// A filter state as text; empty if there is none.
    pub fn filter_state(&self, name: &str) -> String {
        let value = self.filter_states.get(name).map(Vec::as_slice).unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    }
}
