//! One request to the operator's page. Every one is replied to here: none is ever routed.

use std::mem;
use std::rc::Rc;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::Running;
use super::host::{self, Host};
use crate::operator::{MOST_BYTES, Reply};
use crate::request::Headers;

pub(super) struct OperatorContext {
    running: Rc<Running>,
    /// The request, until it is replied to.
    headers: Option<Headers>,
}

impl OperatorContext {
    pub(super) fn new(running: Rc<Running>) -> Self {
        Self { running, headers: None }
    }

    fn reply(&mut self, size: usize) -> Action {
        if let Some(headers) = mem::take(&mut self.headers) {
            // One byte more than is allowed shows that it is too long.
            let body = host::request_body(0, size.min(MOST_BYTES + 1));
            let router = &self.running.router;
            let reply = router.operate(&headers, &body, &Host, &host::counted, host::now());
            if let Some(done) = &reply.done {
                log::info!("{done}");
            }
            send(&reply);
        }
        Action::Pause
    }
}

fn send(reply: &Reply) {
    let headers = Reply::SECURITY.into_iter().chain(reply.headers.iter().copied()).collect();
    let sent = hostcalls::send_http_response(u32::from(reply.status), headers, Some(&reply.body));
    if let Err(status) = sent {
        log::warn!("a local reply was refused: {status:?}");
    }
}

impl Context for OperatorContext {}

impl HttpContext for OperatorContext {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        let headers: Headers = self.get_http_request_headers_bytes().into_iter().collect();
        let has_body = !end_of_stream && headers.text(":method") == "POST";
        self.headers = Some(headers);
        if has_body { Action::Pause } else { self.reply(0) }
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if end_of_stream || size > MOST_BYTES { self.reply(size) } else { Action::Pause }
    }

    /// With trailers no body callback ever says that the stream ends.
    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        self.reply(MOST_BYTES + 1)
    }
}
