//! What a VM's host functions read and write.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use crate::context::Context;
use crate::cost::Cost;
use crate::{Headers, Settings, SharedData};

/// A clock that only tests move; a clone is the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Rc<Cell<u64>>);

impl Clock {
    /// A clock that shows this many seconds after the epoch.
    pub fn at(seconds: u64) -> Self {
        Self(Rc::new(Cell::new(seconds * 1_000_000_000)))
    }

    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.set(self.0.get().saturating_add(by));
    }

    /// Sets it back, as an administrator may.
    pub fn set_back(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.set(self.0.get().saturating_sub(by));
    }

    pub(crate) fn nanoseconds(&self) -> u64 {
        self.0.get()
    }
}

/// The most lines of the log that are kept.
const LOG_LINES: usize = 1000;

pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) shared: SharedData,
    pub(crate) clock: Clock,
    pub(crate) contexts: BTreeMap<u32, Context>,
    /// The context on which host calls act.
    pub(crate) effective: u32,
    /// The root context of the plugin that runs, and of which kind it is.
    pub(crate) root_id: String,
    pub(crate) configuration: Vec<u8>,
    pub(crate) metrics: Metrics,
    pub(crate) log: Vec<String>,
    /// Root contexts that asked for ticks.
    pub(crate) ticking: BTreeSet<u32>,
    pub(crate) random: u64,
    pub(crate) cost: Cost,
}

impl State {
    pub(crate) fn new(settings: Settings, shared: SharedData, clock: Clock) -> Self {
        Self {
            random: settings.seed,
            settings,
            shared,
            clock,
            contexts: BTreeMap::new(),
            effective: 0,
            root_id: String::new(),
            configuration: Vec::new(),
            metrics: Metrics::default(),
            log: Vec::new(),
            ticking: BTreeSet::new(),
            cost: Cost::default(),
        }
    }

    pub(crate) fn context(&self) -> Option<&Context> {
        self.contexts.get(&self.effective)
    }

    pub(crate) fn context_mut(&mut self) -> Option<&mut Context> {
        self.contexts.get_mut(&self.effective)
    }

    pub(crate) fn map(&self, kind: u32) -> Option<Headers> {
        self.context()?.map(kind)
    }

    /// An attribute of Envoy, or a filter state, by its path with dots.
    pub(crate) fn property(&self, path: &str) -> Option<Vec<u8>> {
        let version = "xds.node.user_agent_build_version.version.";
        if let Some(part) = path.strip_prefix(version) {
            let (major, minor) = self.settings.envoy;
            let number = match part {
                "major_number" => major,
                "minor_number" => minor,
                _ => return None,
            };
            return Some(number.to_le_bytes().to_vec());
        }
        match path {
            "plugin_root_id" => Some(self.root_id.clone().into_bytes()),
            _ => self.context()?.attribute(path),
        }
    }

    pub(crate) fn log(&mut self, level: u32, message: &str) {
        const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "critical"];
        /// Envoy drops what is below.
        const LEAST: usize = 2;
        let level = level as usize;
        if level >= LEAST && self.log.len() < LOG_LINES {
            let level = LEVELS.get(level).unwrap_or(&"unknown");
            self.log.push(format!("{level}: {message}"));
        }
    }

    /// Bytes that look random and are the same in every run.
    pub(crate) fn random_bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            // SplitMix64.
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// The metrics that were defined, and their values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(Vec<(String, u64)>);

impl Metrics {
    /// The number of a metric; all definitions of a name are one.
    pub(crate) fn define(&mut self, name: &str) -> u32 {
        let known = self.0.iter().position(|(known, _)| known == name);
        let index = known.unwrap_or_else(|| {
            self.0.push((name.to_owned(), 0));
            self.0.len() - 1
        });
        index as u32
    }

    /// Adds to a metric; returns its name, unless there is none.
    pub(crate) fn increment(&mut self, id: u32, by: i64) -> Option<&str> {
        let (name, value) = self.0.get_mut(id as usize)?;
        *value = value.saturating_add_signed(by);
        Some(name)
    }

    /// Sets a metric; returns its name, unless there is none.
    pub(crate) fn set(&mut self, id: u32, value: u64) -> Option<&str> {
        let (name, old) = self.0.get_mut(id as usize)?;
        *old = value;
        Some(name)
    }

    /// The name and the value of a metric.
    pub(crate) fn at(&self, id: u32) -> Option<(&str, u64)> {
        self.0.get(id as usize).map(|(name, value)| (name.as_str(), *value))
    }

    /// The value of a metric; 0 if it was not defined.
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.iter().find(|(known, _)| known == name).map_or(0, |(_, value)| *value)
    }
}
