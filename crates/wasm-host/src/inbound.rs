//! A request on its way through the listener and, for every attempt, a cluster.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::{Result, ensure};

use crate::context::{Context, Exchange};
use crate::exchange::Request;
use crate::gateway::{CONTINUE, Gateway};
use crate::outbound::Flow;

/// A request, and how much of it the listener has let through.
pub(crate) struct Inbound<'r> {
    id: u32,
    request: &'r Request,
    /// The pieces of the body. Over HTTP/1, Envoy finds its end after its last bytes.
    pieces: Vec<&'r [u8]>,
    pub(crate) exchange: Rc<RefCell<Exchange>>,
    /// How many pieces the listener has seen.
    seen: usize,
    /// Whether there was an attempt.
    is_sent: bool,
}

impl<'r> Inbound<'r> {
    pub(crate) fn new(id: u32, request: &'r Request, exchange: Rc<RefCell<Exchange>>) -> Self {
        let mut pieces: Vec<_> = request.pieces.iter().map(Vec::as_slice).collect();
        if !pieces.is_empty() && request.trailers.is_none() {
            pieces.push(b"");
        }
        Self { id, request, pieces, exchange, seen: 0, is_sent: false }
    }

    pub(crate) fn filter_state(&self, name: &str) -> String {
        let exchange = self.exchange.borrow();
        let value = exchange.filter_states.get(name).map(Vec::as_slice).unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    }

    /// Whether the request ends with so many pieces.
    fn ends_with(&self, pieces: usize) -> bool {
        pieces == self.pieces.len() && self.request.trailers.is_none()
    }

    /// So many pieces as one.
    fn beginning(&self, pieces: usize) -> Vec<u8> {
        self.pieces.get(..pieces).unwrap_or_default().concat()
    }
}

impl Gateway {
    /// The request reaches the listener, which may hold it; returns the filter's own response, if
    /// it makes one.
    pub(crate) fn hold_request(&mut self, inbound: &mut Inbound<'_>) -> Result<Option<Flow>> {
        let (id, request) = (inbound.id, inbound.request);
        let arguments = [request.headers.len() as u32, inbound.ends_with(0).into()];
        let mut action = self.listener(id, "proxy_on_request_headers", &arguments)?;
        for piece in inbound.pieces.clone() {
            let reply = self.reply(id)?;
            if reply.is_some() || action == CONTINUE {
                return Ok(reply);
            }
            // What is held grows.
            inbound.seen += 1;
            let body = &mut self.vm.context(id)?.request_body;
            body.extend_from_slice(piece);
            let arguments = [body.len() as u32, inbound.ends_with(inbound.seen).into()];
            action = self.listener(id, "proxy_on_request_body", &arguments)?;
        }
        if action != CONTINUE
            && let Some(trailers) = &request.trailers
        {
            self.vm.context(id)?.request_trailers = trailers.clone();
            action = self.listener(id, "proxy_on_request_trailers", &[trailers.len() as u32])?;
        }
        let reply = self.reply(id)?;
        ensure!(
            reply.is_some() || action == CONTINUE,
            "the request waits, and nothing more arrives"
        );
        Ok(reply)
    }

    /// An attempt begins: the request reaches the filter on the cluster, if there is one.
    pub(crate) fn open_attempt(
        &mut self,
        inbound: &mut Inbound<'_>,
        cluster: &str,
    ) -> Result<Option<u32>> {
        let Some(plugin) = self.cluster.clone() else {
            self.pass_request(inbound, None)?;
            return Ok(None);
        };
        let mut context = Context::of(&inbound.exchange);
        context.attributes.insert("xds.cluster_name".to_owned(), cluster.into());
        if self.connected.contains(cluster) {
            context.connect();
        }
        let id = self.vm.open(&plugin, context)?;
        // A retry has all of the body, held by the router.
        let seen = if inbound.is_sent { inbound.pieces.len() } else { inbound.seen };
        let count = inbound.exchange.borrow().request.len() as u32;
        let is_end = seen == 0 && inbound.ends_with(0);
        self.on_cluster(id, "proxy_on_request_headers", &[count, is_end.into()])?;
        if seen > 0 {
            let arguments = [inbound.beginning(seen).len() as u32, inbound.ends_with(seen).into()];
            self.on_cluster(id, "proxy_on_request_body", &arguments)?;
        }
        self.pass_request(inbound, Some(id))?;
        Ok(Some(id))
    }

    /// The rest of the request passes the listener, and then the filter on the cluster.
    fn pass_request(&mut self, inbound: &mut Inbound<'_>, attempt: Option<u32>) -> Result<()> {
        let (id, request) = (inbound.id, inbound.request);
        let is_first = !std::mem::replace(&mut inbound.is_sent, true);
        while is_first && let Some(piece) = inbound.pieces.get(inbound.seen) {
            inbound.seen += 1;
            self.vm.context(id)?.request_body = piece.to_vec();
            let arguments = [piece.len() as u32, inbound.ends_with(inbound.seen).into()];
            self.listener(id, "proxy_on_request_body", &arguments)?;
            if let Some(attempt) = attempt {
                self.on_cluster(attempt, "proxy_on_request_body", &arguments)?;
            }
        }
        if let Some(trailers) = &request.trailers {
            let arguments = [trailers.len() as u32];
            // The listener may have seen them while it held the request.
            if is_first && self.vm.context(id)?.request_trailers.is_empty() {
                self.vm.context(id)?.request_trailers = trailers.clone();
                self.listener(id, "proxy_on_request_trailers", &arguments)?;
            }
            if let Some(attempt) = attempt {
                self.on_cluster(attempt, "proxy_on_request_trailers", &arguments)?;
            }
        }
        Ok(())
    }
}
