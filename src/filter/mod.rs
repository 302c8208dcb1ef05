//! The filter as Envoy sees it: the only part that speaks Proxy-Wasm.
//!
//! It carries data in and out and decides nothing. The root context reads the configuration and
//! refuses a bad one. In the listener a stream context holds a request as long as its body is
//! needed, asks the router, and tells Envoy the answer. On a cluster, where Envoy runs the same
//! module once for every attempt, an attempt context carries the credential in and hears the
//! answer.

mod attempt_context;
mod filter_state;
mod host;
mod pending;
mod stream_context;
#[cfg(feature = "trap")]
mod trap;

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{ContextType, LogLevel};

use crate::config::{Config, Credential};
use crate::hash::Seed;
use crate::outcome::Observed;
use crate::router::Router;

use attempt_context::AttemptContext;
use host::{Counters, Host};
use stream_context::StreamContext;

/// The `root_id` by which a filter on a cluster is told from one in a listener.
const UPSTREAM_ROOT_ID: &[u8] = b"session_affinity_upstream";

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Debug);
    proxy_wasm::set_root_context(|_| Box::new(Root { running: None }));
}}

/// What all streams of one configuration share.
struct Running {
    router: Router,
    counters: Counters,
    role: Role,
    /// Whether the filter on a cluster may hold an error until its body tells what it means.
    holds_errors: bool,
}

impl Running {
    /// Tells the router where to go: the cluster by filter state, and for a credential that is an
    /// endpoint, its address.
    fn select_cluster(&self, credential: &Credential) {
        host::set_filter_state(
            &self.router.config().routing.filter_state,
            credential.cluster.as_bytes(),
        );
        if let Some(endpoint) = &credential.endpoint {
            host::set_destination(endpoint);
        }
    }

    /// Tells what an answer taught.
    fn record_metrics(&self, observed: Observed) {
        log::debug!("observed {observed}");
        self.counters.count_answer(observed);
    }
}

/// Since this version Envoy may be asked to retry an answer whose headers were held until its body
/// was there. Before, it crashes (measured on 1.36.4).
const HOLDS_ERRORS_SINCE: (u64, u64) = (1, 37);

/// Where Envoy runs the filter.
#[derive(Clone, Copy)]
enum Role {
    /// In a listener, once for every request.
    Listener,
    /// On a cluster, once for every attempt.
    Cluster,
}

struct Root {
    running: Option<Rc<Running>>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let json = self.get_plugin_configuration().unwrap_or_default();
        let config = match Config::parse_with(&json, &|variable| std::env::var(variable).ok()) {
            Ok(config) => config,
            Err(problems) => {
                let count = problems.lines().len();
                log::error!(
                    "the configuration has {count} problem(s):\n{}",
                    problems.lines().join("\n")
                );
                return false;
            }
        };
        for warning in &config.warnings {
            log::warn!("{warning}");
        }
        let router = Router::new(config, Seed::agree(&Host, host::random_bytes()));
        let role = if host::root_id() == UPSTREAM_ROOT_ID { Role::Cluster } else { Role::Listener };
        let holds_errors = host::version() >= HOLDS_ERRORS_SINCE;
        self.running =
            Some(Rc::new(Running { router, counters: Counters::define(), role, holds_errors }));
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        let running = self.running.clone()?;
        Some(match running.role {
            Role::Listener => Box::new(StreamContext::new(running)),
            Role::Cluster => Box::new(AttemptContext::new(running)),
        })
    }
}
