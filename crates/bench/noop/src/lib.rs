//! A Proxy-Wasm filter that does nothing, built with the same SDK and settings as ours: what is left
//! of our cost above it is ours.
//!
//! Configured as `hold`, it holds a request until its body is there, as our filter does where it
//! must read the body. Otherwise it lets everything pass.
#![cfg(target_arch = "wasm32")]

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Error);
    proxy_wasm::set_root_context(|_| Box::new(Root { holds: false }));
}}

struct Root {
    holds: bool,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        // A `StringValue` reaches the module as it is.
        self.holds = self.get_plugin_configuration().as_deref() == Some(b"hold".as_slice());
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { holds: self.holds }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    holds: bool,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        self.action(end_of_stream)
    }

    fn on_http_request_body(&mut self, _: usize, end_of_stream: bool) -> Action {
        self.action(end_of_stream)
    }
}

impl Stream {
    fn action(&self, end_of_stream: bool) -> Action {
        if self.holds && !end_of_stream { Action::Pause } else { Action::Continue }
    }
}
