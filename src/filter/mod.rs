//! The filter as Envoy sees it: the only part that speaks Proxy-Wasm.
//!
//! It carries data in and out and decides nothing. The root context reads the configuration and refuses a bad one; a
//! stream context holds a request as long as its body is needed, asks the router, and tells Envoy the answer.

mod host;
mod stream;
#[cfg(feature = "trap")]
mod trap;

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{ContextType, LogLevel};

use crate::config::Config;
use crate::hash::Seed;
use crate::route::Router;

use host::{Counters, Host};
use stream::Stream;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Debug);
    proxy_wasm::set_root_context(|_| Box::new(Root { running: None }));
}}

/// What all streams of one configuration share.
struct Running {
    router: Router,
    counters: Counters,
}

struct Root {
    running: Option<Rc<Running>>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let json = self.get_plugin_configuration().unwrap_or_default();
        let config = match Config::parse(&json) {
            Ok(config) => config,
            Err(problems) => {
                let count = problems.lines().len();
                log::error!("the configuration has {count} problem(s):\n{}", problems.lines().join("\n"));
                return false;
            }
        };
        for warning in &config.warnings {
            log::warn!("{warning}");
        }
        let router = Router::new(config, Seed::agree(&Host, host::random_bytes()));
        self.running = Some(Rc::new(Running { router, counters: Counters::define() }));
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream::new(self.running.clone()?)))
    }
}
