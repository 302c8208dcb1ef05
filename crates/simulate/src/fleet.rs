//! The Envoys: each with the core of the filter and its own shared data.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use session_affinity::config::{Credential, Pool};
use session_affinity::headroom::Flights;
use session_affinity::{Config, InMemory, Router, Seed, Timestamp};

use crate::random::Random;
use crate::scenario::Scenario;

/// What the host keeps for a key beside its bytes.
const OVERHEAD: usize = 100;

/// How often the filter publishes its requests under way, at least.
const REFRESHED_EVERY: Duration = Duration::from_secs(10);

/// One Envoy from its start to its end.
pub struct Instance {
    /// No other instance has it.
    pub number: u64,
    pub router: Router,
    pub shared: Rc<InMemory>,
    flights: RefCell<Flights>,
    /// When it last published the requests under way.
    refreshed: Cell<Timestamp>,
}

impl Instance {
    /// Starts one with this configuration.
    ///
    /// # Errors
    /// If that is refused.
    pub fn start(
        configuration: &[u8],
        shared: Rc<InMemory>,
        number: u64,
        random: [u8; 16],
    ) -> Result<Self> {
        let config = Config::parse(configuration).map_err(|error| anyhow!("{error:?}"))?;
        let router = Router::new(config, Seed::agree(&*shared, random));
        let flights = RefCell::new(Flights::new(number as u32));
        Ok(Self { number, router, shared, flights, refreshed: Cell::default() })
    }

    /// A request is sent to a credential. Returns its ticket; 0 if requests are not counted.
    pub fn begin_flight(&self, pool: &Pool, credential: &Credential, now: Timestamp) -> u32 {
        if !self.router.counts_flights(pool) {
            return 0;
        }
        let mut flights = self.flights.borrow_mut();
        if now.since(self.refreshed.get()) >= REFRESHED_EVERY {
            self.refreshed.set(now);
            flights.refresh(&*self.shared, now);
        }
        flights.begin(&credential.flights_key, &*self.shared, now)
    }

    /// A request is sent to another credential.
    pub fn move_flight(&self, ticket: u32, credential: &Credential, now: Timestamp) {
        if ticket != 0 {
            let mut flights = self.flights.borrow_mut();
            flights.go_on(ticket, &credential.flights_key, &*self.shared, now);
        }
    }

    /// A request is over.
    pub fn end_flight(&self, ticket: u32, now: Timestamp) {
        if ticket != 0 {
            self.flights.borrow_mut().end(ticket, &*self.shared, now);
        }
    }

    /// The bytes of its shared data in the host.
    pub fn bytes(&self) -> u64 {
        use session_affinity::SharedData;
        let keys = self.shared.keys();
        let sizes = keys.iter().map(|key| key.len() + self.shared.get(key).value.len() + OVERHEAD);
        sizes.sum::<usize>() as u64
    }

    /// The bindings that have not ended.
    pub fn bindings(&self, now: Timestamp) -> u64 {
        self.router.bindings().table().count(&*self.shared, u32::MAX, 0, now)
    }
}

/// All Envoys.
pub struct Fleet {
    configuration: Vec<u8>,
    store: Option<Rc<InMemory>>,
    random: Random,
    instances: Vec<Rc<Instance>>,
    started: u64,
    /// The most that the shared data of an instance that is gone took.
    largest: u64,
}

impl Fleet {
    /// Starts the Envoys of a scenario.
    ///
    /// # Errors
    /// If its configuration is refused.
    pub fn new(scenario: &Scenario) -> Result<Self> {
        let mut fleet = Self {
            configuration: scenario.configuration().to_string().into_bytes(),
            store: scenario.common_store.then(Rc::default),
            random: Random::of(&[scenario.seed, 5]),
            instances: Vec::new(),
            started: 0,
            largest: 0,
        };
        for _ in 0..scenario.envoys {
            let instance = fleet.start()?;
            fleet.instances.push(instance);
        }
        Ok(fleet)
    }

    fn start(&mut self) -> Result<Rc<Instance>> {
        let shared = self.store.clone().unwrap_or_default();
        self.started += 1;
        Instance::start(&self.configuration, shared, self.started, self.random.bytes()).map(Rc::new)
    }

    /// Replaces an Envoy by a new one that knows nothing but what is in a common store.
    ///
    /// # Errors
    /// Never, if it could be started before.
    pub fn replace(&mut self, envoy: usize) -> Result<Option<Rc<Instance>>> {
        let new = self.start()?;
        let old = self.instances.get_mut(envoy).map(|old| std::mem::replace(old, new));
        let bytes = old.as_ref().map_or(0, |old| old.bytes());
        self.largest = self.largest.max(bytes);
        Ok(old)
    }

    /// One of them.
    pub fn get(&self, envoy: usize) -> Option<&Rc<Instance>> {
        self.instances.get(envoy)
    }

    /// Their number.
    pub fn size(&self) -> usize {
        self.instances.len()
    }

    /// The bytes of the largest shared data, and the most bindings.
    pub fn largest(&self, now: Timestamp) -> (u64, u64) {
        let distinct = if self.store.is_some() { 1 } else { self.instances.len() };
        let instances = self.instances.iter().take(distinct);
        let bytes = instances.clone().map(|it| it.bytes()).max().unwrap_or(0);
        let bindings = instances.map(|it| it.bindings(now)).max().unwrap_or(0);
        (bytes.max(self.largest), bindings)
    }
}
