//! A response on its way through the filter on the cluster and the listener to the client.

use std::collections::VecDeque;

use anyhow::{Result, bail, ensure};

use crate::Headers;
use crate::context::LocalReply;
use crate::exchange::{Event, Response};
use crate::gateway::{CONTINUE, Gateway};

/// A response that reaches the router.
pub(crate) struct Flow {
    /// The context on the cluster, if there is one.
    context: Option<u32>,
    pub(crate) headers: Headers,
    /// What was held with the headers.
    held: Vec<u8>,
    /// What comes after that.
    rest: VecDeque<Event>,
    trailers: Option<Headers>,
    /// Where it came from, as `response.code_details` has it.
    details: String,
}

impl Flow {
    pub(crate) fn of_upstream(response: Response, context: Option<u32>) -> Self {
        let Response { headers, events, trailers } = response;
        let details = "via_upstream".to_owned();
        let mut rest: VecDeque<_> = events.into();
        let is_cut = rest.back() == Some(&Event::Cut);
        if trailers.is_none() && !is_cut && rest.iter().any(is_arrival) {
            // Over HTTP/1, Envoy finds the end of a body after its last bytes.
            rest.push_back(Event::Piece(Vec::new()));
        }
        Self { context, headers, held: Vec::new(), rest, trailers, details }
    }

    /// A response that is made on this side of any connection.
    fn made(response: Response, details: String) -> Self {
        let Response { headers, events, trailers } = response;
        let (held, rest) = (Vec::new(), events.into());
        Self { context: None, headers, held, rest, trailers, details }
    }

    /// The response that Envoy makes where there is none.
    pub(crate) fn of_failure(details: String) -> Self {
        let response =
            Response::new(503, [("content-type", "text/plain")], b"upstream connect error");
        Self::made(response, details)
    }

    /// A response that the filter makes, in the listener or on a cluster.
    pub(crate) fn of_filter(reply: LocalReply, context: Option<u32>) -> Self {
        let LocalReply { headers, body } = reply;
        let response = Response { headers, events: vec![Event::Piece(body)], trailers: None };
        Self { context, ..Self::made(response, "wasm".to_owned()) }
    }

    /// Whether nothing comes any more.
    fn is_over(&self) -> bool {
        self.trailers.is_none() && self.held.is_empty() && !self.rest.iter().any(is_arrival)
    }

    /// Whether nothing comes after what is held.
    fn ends_with_held(&self) -> bool {
        self.trailers.is_none() && !self.rest.iter().any(is_arrival)
    }
}

/// What Envoy says of a response whose upstream has closed its connection.
const CUT: &[u8] = b"upstream_reset_after_response_started{connection_termination}";

/// Whether a response is not over before an event.
fn is_arrival(event: &Event) -> bool {
    matches!(event, Event::Piece(_) | Event::Cut)
}

impl Gateway {
    /// A response reaches the filter on the cluster; returns when its headers are let through.
    pub(crate) fn hold_response(&mut self, id: u32, flow: &mut Flow) -> Result<()> {
        let context = self.vm.context(id)?;
        context.response = flow.headers.clone();
        context.connect();
        let arguments = [flow.headers.len() as u32, flow.is_over().into()];
        let mut action = self.on_cluster(id, "proxy_on_response_headers", &arguments)?;
        while action != CONTINUE
            && let Some(event) = flow.rest.pop_front()
        {
            match event {
                Event::Cut => bail!("cut off while its beginning is held"),
                Event::Wait(_) | Event::SetBack(_) => {
                    self.pass_time(&event)?;
                    if self.vm.context(id)?.is_resumed {
                        action = CONTINUE;
                    }
                }
                Event::Piece(piece) => {
                    flow.held.extend_from_slice(&piece);
                    let size = flow.held.len() as u32;
                    self.vm.context(id)?.response_body.clone_from(&flow.held);
                    let arguments = [size, flow.ends_with_held().into()];
                    action = self.on_cluster(id, "proxy_on_response_body", &arguments)?;
                }
            }
        }
        if action != CONTINUE
            && let Some(trailers) = &flow.trailers
        {
            self.vm.context(id)?.response_trailers = trailers.clone();
            let arguments = [trailers.len() as u32];
            action = self.on_cluster(id, "proxy_on_response_trailers", &arguments)?;
        }
        ensure!(action == CONTINUE, "the response waits, and nothing more arrives");
        flow.headers = self.vm.context(id)?.response.clone();
        Ok(())
    }

    fn pass_time(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Wait(time) => self.clock.advance(*time),
            Event::SetBack(time) => self.clock.set_back(*time),
            Event::Piece(_) | Event::Cut => {}
        }
        self.tick()
    }

    /// A response passes the listener, with what comes later from the cluster; returns what the
    /// client gets.
    pub(crate) fn respond(&mut self, id: u32, mut flow: Flow) -> Result<Response> {
        let context = self.vm.context(id)?;
        let details = flow.details.clone().into_bytes();
        context.attributes.insert("response.code_details".to_owned(), details);
        let code = i64::from(flow.headers.status()).to_le_bytes();
        context.attributes.insert("response.code".to_owned(), code.to_vec());
        context.response = flow.headers.clone();
        let is_over = flow.is_over();
        self.end_attempt(&mut flow, is_over)?;
        let arguments = [flow.headers.len() as u32, is_over.into()];
        self.listener(id, "proxy_on_response_headers", &arguments)?;
        let mut response =
            Response { headers: self.vm.context(id)?.response.clone(), ..Response::default() };
        if let Some(reply) = self.vm.context(id)?.reply.take() {
            // It takes the place of the response.
            response.headers = reply.headers;
            response.events.push(Event::Piece(reply.body));
        } else {
            self.pass_body(id, &mut flow, &mut response)?;
        }
        self.end_attempt(&mut flow, true)?;
        Ok(response)
    }

    /// The attempt is over before the listener sees the end of its response.
    fn end_attempt(&mut self, flow: &mut Flow, is_over: bool) -> Result<()> {
        match flow.context.take_if(|_| is_over) {
            Some(attempt) => self.close_attempt(attempt),
            None => Ok(()),
        }
    }

    fn pass_body(&mut self, id: u32, flow: &mut Flow, response: &mut Response) -> Result<()> {
        let held = std::mem::take(&mut flow.held);
        if !held.is_empty() {
            let is_end = flow.ends_with_held();
            self.end_attempt(flow, is_end)?;
            self.pass_piece(id, held, is_end, response)?;
        }
        while let Some(event) = flow.rest.pop_front() {
            match event {
                Event::Wait(_) | Event::SetBack(_) => self.pass_time(&event)?,
                Event::Cut => {
                    self.end_attempt(flow, true)?;
                    let attributes = &mut self.vm.context(id)?.attributes;
                    attributes.insert("response.code_details".to_owned(), CUT.to_vec());
                }
                Event::Piece(piece) => {
                    let is_end = flow.ends_with_held();
                    if let Some(attempt) = flow.context {
                        self.vm.context(attempt)?.response_body.clone_from(&piece);
                        let arguments = [piece.len() as u32, is_end.into()];
                        self.on_cluster(attempt, "proxy_on_response_body", &arguments)?;
                    }
                    self.end_attempt(flow, is_end)?;
                    self.pass_piece(id, piece, is_end, response)?;
                }
            }
        }
        let Some(trailers) = flow.trailers.take() else { return Ok(()) };
        let arguments = [trailers.len() as u32];
        if let Some(attempt) = flow.context
            && self.vm.context(attempt)?.response_trailers.is_empty()
        {
            self.vm.context(attempt)?.response_trailers = trailers.clone();
            self.on_cluster(attempt, "proxy_on_response_trailers", &arguments)?;
        }
        self.end_attempt(flow, true)?;
        self.vm.context(id)?.response_trailers = trailers.clone();
        self.listener(id, "proxy_on_response_trailers", &arguments)?;
        response.trailers = Some(trailers);
        Ok(())
    }

    fn pass_piece(
        &mut self,
        id: u32,
        piece: Vec<u8>,
        is_end: bool,
        response: &mut Response,
    ) -> Result<()> {
        self.vm.context(id)?.response_body.clone_from(&piece);
        let arguments = [piece.len() as u32, is_end.into()];
        self.listener(id, "proxy_on_response_body", &arguments)?;
        if !piece.is_empty() {
            response.events.push(Event::Piece(piece));
        }
        Ok(())
    }
}
