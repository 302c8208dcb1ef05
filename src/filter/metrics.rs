//! Metrics on their way to Envoy.
//!
//! Counts are collected in the VM and handed over on a tick, and when the VM ends: what a request
//! costs does not grow with what is counted. A trap loses what its VM has counted since the last
//! tick, a second at most. A VM in which nothing happens calls nothing.

use std::cell::{Cell, RefCell};

use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;

use super::host::{self, Host};
use crate::metrics::{Kind, Ledger, Metric, Sink};
use crate::router::Router;
use crate::shared::Note;

thread_local! {
    /// What was counted. Each definition of a metric takes memory of Envoy, also of a known name, so
    /// all configurations of a VM share it.
    static LEDGER: RefCell<Ledger> = RefCell::default();
    /// The configurations that this VM has had.
    static CONFIGURATIONS: Cell<u32> = const { Cell::new(0) };
    /// What happened to shared data, by table: evictions, and what was given up, and pinned.
    static NOTES: RefCell<Vec<Note>> = const { RefCell::new(Vec::new()) };
}

/// Counts are handed over so often, in ticks of [`super::SECOND`].
const GAUGES_EVERY: u32 = 10;

/// The metrics of one configuration in one VM.
pub(super) struct Metrics {
    /// The number of the configuration, for what is its own.
    owner: u32,
    seconds: Cell<u32>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let owner = CONFIGURATIONS.get().wrapping_add(1);
        CONFIGURATIONS.set(owner);
        Self { owner, seconds: Cell::new(0) }
    }

    /// Counts. `values` are those of the metric's labels, in their order; an empty one is left out.
    pub(super) fn count(&self, metric: Metric, values: &[&str], by: u64) {
        LEDGER.with_borrow_mut(|ledger| ledger.count(metric, values, by));
    }

    /// A second has passed. Returns whether it is time for what is done every ten of them.
    pub(super) fn pass_second(&self) -> bool {
        let seconds = self.seconds.get();
        self.seconds.set((seconds + 1) % GAUGES_EVERY);
        seconds == 0
    }

    /// Looks at how things are.
    pub(super) fn set_gauges(&self, router: &Router) {
        LEDGER.with_borrow_mut(|ledger| {
            ledger.own(self.owner);
            router.set_gauges(ledger, &Host, host::now());
        });
    }

    /// The configuration has come to its end, and with it what it alone knows of.
    pub(super) fn retire(&self) {
        LEDGER.with_borrow_mut(|ledger| ledger.retire(self.owner));
    }

    /// Hands over what has come up.
    pub(super) fn flush(&self) {
        LEDGER.with_borrow_mut(|ledger| {
            for note in NOTES.take() {
                match note {
                    Note::Evicted(table) => ledger.count(Metric::Evictions, &[table], 1),
                    Note::Contended => ledger.count(Metric::ContendedWrites, &[], 1),
                    Note::Pinned => ledger.count(Metric::Pins, &[], 1),
                }
            }
            ledger.flush(&mut Envoy);
        });
    }
}

/// Something has happened to shared data.
pub(super) fn note(note: Note) {
    NOTES.with_borrow_mut(|notes| notes.push(note));
}

/// Envoy's metrics. One that it refuses does not count.
struct Envoy;

impl Sink for Envoy {
    fn define(&mut self, kind: Kind, name: &str) -> Option<u32> {
        let kind = match kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
        };
        hostcalls::define_metric(kind, name).ok()
    }

    fn write(&mut self, kind: Kind, id: u32, value: u64) {
        let _refused_only_if_undefined = match kind {
            Kind::Counter => hostcalls::increment_metric(id, value.cast_signed()),
            Kind::Gauge => hostcalls::record_metric(id, value),
        };
    }
}
