//! A gateway with one worker: the plugin in the listener, the plugin on every cluster, both in one
//! VM, and a router between them that retries as the shipped configurations let Envoy's.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use anyhow::{Context as _, Result};

use crate::context::{Context, Exchange};
use crate::exchange::{Answer, Attempt, Played, Request, Response};
use crate::inbound::Inbound;
use crate::outbound::Flow;
use crate::vm::{Module, Plugin, Settings, Vm};
use crate::{Clock, SharedData};

/// How the filter and the configuration of Envoy's router refer to each other.
#[derive(Clone, Debug)]
pub struct Wiring {
    /// The configuration of the filter.
    pub configuration: String,
    /// The filter state that names the cluster.
    pub cluster_state: String,
    /// Whether the filter also runs on the clusters.
    pub is_on_clusters: bool,
}

/// The response header that asks for another attempt: `retriable_headers` of the shipped routes.
const RETRY: &str = "x-session-affinity-retry";
const MAX_RETRIES: &str = "x-envoy-max-retries";

/// The action of a callback that lets pass; any other holds.
pub(crate) const CONTINUE: i32 = 0;

/// A gateway with one worker.
pub struct Gateway {
    pub(crate) vm: Vm,
    pub(crate) listener: Plugin,
    pub(crate) cluster: Option<Plugin>,
    cluster_state: String,
    pub(crate) clock: Clock,
    /// Clusters to which a connection was kept.
    pub(crate) connected: BTreeSet<String>,
}

/// What an attempt gives to the router.
enum Outcome {
    /// A response of which the headers were let through.
    Passes(Flow),
    /// A response in the place of which the filter wants another attempt.
    Retry,
    /// No response; the details of the one that Envoy would make of that.
    Failed(String),
}

impl Gateway {
    /// Starts a worker with its own VM. Gateways with the same shared data are workers of one
    /// Envoy.
    ///
    /// # Errors
    /// If the VM does not start, or the filter refuses its configuration.
    pub fn start(
        module: &Module,
        wiring: &Wiring,
        settings: Settings,
        shared: &SharedData,
        clock: &Clock,
    ) -> Result<Self> {
        let mut vm = Vm::start(module, settings, shared.clone(), clock.clone())?;
        let configuration = wiring.configuration.as_bytes();
        let listener = vm.configure("listener", "session_affinity", configuration)?;
        let cluster = if wiring.is_on_clusters {
            Some(vm.configure("cluster", "session_affinity_upstream", configuration)?)
        } else {
            None
        };
        vm.take_cost();
        let (cluster_state, clock) = (wiring.cluster_state.clone(), clock.clone());
        let connected = BTreeSet::new();
        Ok(Self { vm, listener, cluster, cluster_state, clock, connected })
    }

    /// The worker's VM.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Does what is due in the VM.
    ///
    /// # Errors
    /// If the module traps.
    pub fn tick(&mut self) -> Result<()> {
        self.vm.tick(&self.listener)?;
        self.cluster.as_ref().map_or(Ok(()), |plugin| self.vm.tick(plugin))
    }

    /// Plays a stream to its end. `upstream` answers every attempt.
    ///
    /// # Errors
    /// If the module traps, or leaves the stream waiting for ever.
    pub fn play(
        &mut self,
        request: &Request,
        mut upstream: impl FnMut(&Attempt) -> Answer,
    ) -> Result<Played> {
        self.vm.take_cost();
        let exchange = Exchange {
            request: request.headers.clone(),
            attributes: request.attributes.clone(),
            ..Exchange::default()
        };
        let exchange = Rc::new(RefCell::new(exchange));
        let id = self.vm.open(&self.listener, Context::of(&exchange))?;
        let mut inbound = Inbound::new(id, request, exchange);
        let mut attempts = Vec::new();
        let flow = match self.hold_request(&mut inbound)? {
            Some(reply) => reply,
            None => self.route(&mut inbound, &mut |attempt| {
                attempts.push(attempt.clone());
                upstream(attempt)
            })?,
        };
        let response = self.respond(id, flow)?;
        self.vm.close(&self.listener, id, true)?;
        let filter_states = inbound.exchange.borrow().filter_states.clone();
        Ok(Played { response, attempts, filter_states, cost: self.vm.take_cost() })
    }

    pub(crate) fn listener(&mut self, id: u32, name: &str, arguments: &[u32]) -> Result<i32> {
        self.vm.callback(&self.listener, id, name, arguments, true)
    }

    pub(crate) fn on_cluster(&mut self, id: u32, name: &str, arguments: &[u32]) -> Result<i32> {
        let plugin = self.cluster.as_ref().context("there is no filter on the cluster")?;
        self.vm.callback(plugin, id, name, arguments, true)
    }

    /// The response that the filter made itself in the last callback.
    pub(crate) fn reply(&mut self, id: u32) -> Result<Option<Flow>> {
        Ok(self.vm.context(id)?.reply.take().map(|reply| Flow::of_filter(reply, None)))
    }

    /// Envoy's router: attempts until a response passes.
    fn route(
        &mut self,
        inbound: &mut Inbound<'_>,
        upstream: &mut dyn FnMut(&Attempt) -> Answer,
    ) -> Result<Flow> {
        let retries = inbound.exchange.borrow().request.text(MAX_RETRIES);
        let mut left: u32 = retries.parse().unwrap_or(0);
        loop {
            match self.attempt(inbound, upstream, left > 0)? {
                Outcome::Passes(flow) => return Ok(flow),
                Outcome::Failed(details) if left == 0 => return Ok(Flow::of_failure(details)),
                Outcome::Retry | Outcome::Failed(_) => left -= 1,
            }
        }
    }

    fn attempt(
        &mut self,
        inbound: &mut Inbound<'_>,
        upstream: &mut dyn FnMut(&Attempt) -> Answer,
        may_retry: bool,
    ) -> Result<Outcome> {
        let cluster = inbound.filter_state(&self.cluster_state);
        let context = self.open_attempt(inbound, &cluster)?;
        if let Some(id) = context
            && let Some(reply) = self.vm.context(id)?.reply.take()
        {
            return Ok(Outcome::Passes(Flow::of_filter(reply, Some(id))));
        }
        let headers = inbound.exchange.borrow().request.clone();
        let attempt = Attempt { cluster, headers };
        match upstream(&attempt) {
            Answer::Failure { details, is_connected } => {
                self.connected.remove(&attempt.cluster);
                if let Some(id) = context {
                    self.fail_attempt(id, &details, is_connected)?;
                }
                Ok(Outcome::Failed(details))
            }
            Answer::Response(response) => {
                self.connected.insert(attempt.cluster);
                self.judge(context, response, may_retry)
            }
        }
    }

    /// An attempt ends without a response.
    fn fail_attempt(&mut self, id: u32, details: &str, is_connected: bool) -> Result<()> {
        let context = self.vm.context(id)?;
        context.attributes.insert("response.code_details".to_owned(), details.into());
        if is_connected {
            context.connect();
        }
        self.close_attempt(id)
    }

    /// The headers of a response reach the router, which lets them pass or tries again.
    fn judge(
        &mut self,
        context: Option<u32>,
        response: Response,
        may_retry: bool,
    ) -> Result<Outcome> {
        let mut flow = Flow::of_upstream(response, context);
        if let Some(id) = context {
            self.hold_response(id, &mut flow)?;
        }
        if may_retry && flow.headers.get(RETRY).is_some() {
            if let Some(id) = context {
                self.close_attempt(id)?;
            }
            return Ok(Outcome::Retry);
        }
        Ok(Outcome::Passes(flow))
    }

    pub(crate) fn close_attempt(&mut self, id: u32) -> Result<()> {
        let plugin = self.cluster.as_ref().context("there is no filter on the cluster")?;
        self.vm.close(plugin, id, false)
    }
}
