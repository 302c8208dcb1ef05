//! A stream in one of the roles, as the host sees it.
//!
//! It is one type for all roles: another type behind `dyn HttpContext` puts some sixty methods that
//! nothing calls into the module, 5 KB.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::attempt_context::AttemptContext;
use super::operator_context::OperatorContext;
use super::stream_context::StreamContext;

pub(super) enum RoleContext {
    Listener(StreamContext),
    Cluster(AttemptContext),
    Operator(OperatorContext),
}

/// Passes a callback on to the role.
macro_rules! of_role {
    ($role:expr, $context:ident => $call:expr) => {
        match $role {
            RoleContext::Listener($context) => $call,
            RoleContext::Cluster($context) => $call,
            RoleContext::Operator($context) => $call,
        }
    };
}

impl Context for RoleContext {
    fn on_done(&mut self) -> bool {
        of_role!(self, it => it.on_done())
    }
}

impl HttpContext for RoleContext {
    fn on_http_request_headers(&mut self, count: usize, end_of_stream: bool) -> Action {
        of_role!(self, it => it.on_http_request_headers(count, end_of_stream))
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        of_role!(self, it => it.on_http_request_body(size, end_of_stream))
    }

    fn on_http_request_trailers(&mut self, count: usize) -> Action {
        of_role!(self, it => it.on_http_request_trailers(count))
    }

    fn on_http_response_headers(&mut self, count: usize, end_of_stream: bool) -> Action {
        of_role!(self, it => it.on_http_response_headers(count, end_of_stream))
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        of_role!(self, it => it.on_http_response_body(size, end_of_stream))
    }

    fn on_http_response_trailers(&mut self, count: usize) -> Action {
        of_role!(self, it => it.on_http_response_trailers(count))
    }

    fn on_log(&mut self) {
        of_role!(self, it => it.on_log());
    }
}
