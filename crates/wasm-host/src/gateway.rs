//! A gateway with one worker: the plugin in the listener, the plugin on every cluster, both in one
//! VM, and a router between them that retries only what the filter makes it retry.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use anyhow::{Context as _, Result};

use crate::context::{Context, Exchange};
use crate::exchange::{Answer, Attempt, Played, Request, Response};
use crate::inbound::Inbound;
use crate::outbound::Flow;
use crate::vm::{Module, Plugin, Settings, Vm};
use crate::{Clock, Cost, SharedData};

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

const MAX_RETRIES: &str = "x-envoy-max-retries";
const RETRY_ON: &str = "x-envoy-retry-on";
const RETRIABLE_HEADERS: &str = "x-envoy-retriable-header-names";

/// What lets Envoy retry an attempt without a response, whatever it failed from.
const ON_FAILURE: [&str; 3] = ["connect-failure", "reset", "refused-stream"];

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

/// What the filter lets the router retry. There is no policy of the route.
struct Retries {
    left: u32,
    on_failure: bool,
    on_headers: Vec<String>,
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

    /// What was counted since the last time.
    pub fn take_cost(&mut self) -> Cost {
        self.vm.take_cost()
    }

    /// Ends the configuration, as an update or the end of Envoy does, and returns the VM.
    ///
    /// # Errors
    /// If the module traps.
    pub fn end(mut self) -> Result<Vm> {
        self.vm.end(&self.listener)?;
        if let Some(cluster) = &self.cluster {
            self.vm.end(cluster)?;
        }
        Ok(self.vm)
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
        let mut retries = Retries::take(inbound);
        loop {
            match self.attempt(inbound, upstream, &retries)? {
                Outcome::Passes(flow) => return Ok(flow),
                Outcome::Failed(details) if retries.left == 0 || !retries.on_failure => {
                    return Ok(Flow::of_failure(details));
                }
                Outcome::Retry | Outcome::Failed(_) => retries.left -= 1,
            }
        }
    }

    fn attempt(
        &mut self,
        inbound: &mut Inbound<'_>,
        upstream: &mut dyn FnMut(&Attempt) -> Answer,
        retries: &Retries,
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
                self.judge(context, response, retries)
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
        retries: &Retries,
    ) -> Result<Outcome> {
        let mut flow = Flow::of_upstream(response, context);
        if let Some(id) = context {
            self.hold_response(id, &mut flow)?;
        }
        if retries.ask_for(&flow) {
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

impl Retries {
    /// Takes what the filter says out of the request, as Envoy does.
    fn take(inbound: &Inbound<'_>) -> Self {
        let request = &mut inbound.exchange.borrow_mut().request;
        let words = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let conditions = words(&request.text(RETRY_ON));
        let has = |condition: &str| conditions.iter().any(|it| it == condition);
        let names = request.text(RETRIABLE_HEADERS);
        let retries = Self {
            left: request.text(MAX_RETRIES).parse().unwrap_or(0),
            on_failure: ON_FAILURE.into_iter().all(has),
            on_headers: if has("retriable-headers") { words(&names) } else { Vec::new() },
        };
        for name in [MAX_RETRIES, RETRY_ON, RETRIABLE_HEADERS] {
            request.remove(name);
        }
        retries
    }

    /// Whether a response is retried.
    fn ask_for(&self, flow: &Flow) -> bool {
        self.left > 0 && self.on_headers.iter().any(|name| flow.headers.get(name).is_some())
    }
}
