//! What is counted: every metric with its labels, and the counts of one VM until they are handed to
//! the host.
//!
//! Envoy knows no labels of a metric; they are in its name, and rules of the bootstrap take them
//! out. The names here have the form of Istio's own metrics, `pool=.=llm;.;outcome=.=hit;.;` and
//! then the name: there one annotation makes labels of them, elsewhere one rule for each label.
//!
//! All labels are from closed sets: words of this crate, and names of the configuration. A label
//! without a value is left out.

use std::hash::Hasher;

use fnv::FnvHasher;

/// What metrics of the filter begin with.
pub const PREFIX: &str = "session_affinity_";

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It grows.
    Counter,
    /// It is set.
    Gauge,
}

/// Everything that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Streams, by how they were decided.
    Requests,
    /// Attempts, by the class of their response.
    Attempts,
    /// Streams in which a credential failed, by how that ended.
    Failovers,
    /// Requests with ciphertext that another group than their home's served.
    LeftGroup,
    /// Requests that were sent to try a credential in a cooldown.
    Probes,
    /// Pins that were made.
    Pins,
    /// Entries of a table that gave way while they could still be used.
    Evictions,
    /// Writes that were given up, because other workers wrote in every try.
    ContendedWrites,
    /// Watched requests, by how they would have been decided and what became of them.
    ShadowRequests,
    /// Watched requests, by the credential that would have been chosen.
    ShadowChoices,
    /// Tokens that providers say they have processed.
    Tokens,
    /// Responses of which that is not known.
    UsageUnread,
    /// What the tokens cost, by the operator's prices, in millionths of the currency.
    Cost,
    /// What more they would have cost without a cache to read from.
    Saved,
    /// Credentials of a pool, by their state.
    Credentials,
    /// Whether a credential is in a state.
    CredentialState,
    /// When the cooldown of a credential ends.
    BlockEnd,
    /// What is used of a window of a credential's limits, in percent.
    Utilization,
    /// When such a window is whole again.
    WindowReset,
    /// Requests that are under way at a credential.
    InFlight,
    /// Entries of a table that can still be used.
    TableEntries,
    /// Entries that a table has room for.
    TableCapacity,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 22] = [
        Self::Requests,
        Self::Attempts,
        Self::Failovers,
        Self::LeftGroup,
        Self::Probes,
        Self::Pins,
        Self::Evictions,
        Self::ContendedWrites,
        Self::ShadowRequests,
        Self::ShadowChoices,
        Self::Tokens,
        Self::UsageUnread,
        Self::Cost,
        Self::Saved,
        Self::Credentials,
        Self::CredentialState,
        Self::BlockEnd,
        Self::Utilization,
        Self::WindowReset,
        Self::InFlight,
        Self::TableEntries,
        Self::TableCapacity,
    ];

    /// Its name, behind [`PREFIX`], and its labels.
    fn parts(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Requests => ("requests_total", &["pool", "outcome", "source"]),
            Self::Attempts => ("attempts_total", &["pool", "credential", "class"]),
            Self::Failovers => ("failovers_total", &["pool", "end"]),
            Self::LeftGroup => ("left_group_total", &["pool"]),
            Self::Probes => ("probes_total", &["pool", "credential"]),
            Self::Pins => ("pins_total", &[]),
            Self::Evictions => ("evictions_total", &["table"]),
            Self::ContendedWrites => ("contended_writes_total", &[]),
            Self::ShadowRequests => ("shadow_requests_total", &["pool", "outcome", "actual"]),
            Self::ShadowChoices => ("shadow_choices_total", &["pool", "credential"]),
            Self::Tokens => ("tokens_total", &["pool", "outcome", "type"]),
            Self::UsageUnread => ("usage_unread_total", &["reason"]),
            Self::Cost => ("cost_microunits_total", &["pool", "outcome", "currency"]),
            Self::Saved => ("saved_microunits_total", &["pool", "outcome", "currency"]),
            Self::Credentials => ("credentials", &["pool", "state"]),
            Self::CredentialState => ("credential_state", &["pool", "credential", "state"]),
            Self::BlockEnd => {
                ("credential_block_end_timestamp_seconds", &["pool", "credential", "class"])
            }
            Self::Utilization => {
                ("credential_limit_used_percent", &["pool", "credential", "window"])
            }
            Self::WindowReset => {
                ("credential_limit_reset_timestamp_seconds", &["pool", "credential", "window"])
            }
            Self::InFlight => ("credential_requests_in_flight", &["pool", "credential"]),
            Self::TableEntries => ("table_entries", &["table"]),
            Self::TableCapacity => ("table_capacity", &["table"]),
        }
    }

    /// Its name as Prometheus shows it.
    pub fn name(self) -> String {
        [PREFIX, self.parts().0].concat()
    }

    /// Its labels.
    pub fn labels(self) -> &'static [&'static str] {
        self.parts().1
    }

    /// How it behaves.
    pub fn kind(self) -> Kind {
        if self.parts().0.ends_with("_total") { Kind::Counter } else { Kind::Gauge }
    }

    /// The name under which Envoy has it with these labels.
    pub fn series(self, values: &[&str]) -> String {
        let (name, labels) = self.parts();
        let mut series = String::new();
        for (label, value) in labels.iter().zip(values).filter(|(_, value)| !value.is_empty()) {
            series.push_str(label);
            series.push_str("=.=");
            value.bytes().for_each(|byte| push_escaped(&mut series, byte));
            series.push_str(";.;");
        }
        series.push_str(PREFIX);
        series.push_str(name);
        series
    }
}

/// Adds a byte of a value: what separates labels is escaped, as in a URL, so that different values
/// are different series.
fn push_escaped(series: &mut String, byte: u8) {
    if byte.is_ascii_graphic() && !matches!(byte, b';' | b'=' | b'"' | b'\\' | b'%') {
        series.push(char::from(byte));
        return;
    }
    series.push('%');
    let digits = [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16));
    series.extend(digits.into_iter().flatten());
}

/// What a VM has counted and not handed over.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Sorted by key.
    series: Vec<Series>,
    is_pending: bool,
    /// Which configuration sets gauges.
    owner: u32,
}

#[derive(Debug)]
struct Series {
    /// The hash of metric and values.
    key: u64,
    metric: Metric,
    place: Place,
    value: u64,
    is_pending: bool,
    /// Which configuration has changed it last.
    owner: u32,
}

#[derive(Debug)]
enum Place {
    /// The host does not know it yet.
    New(String),
    /// What the host calls it.
    Defined(u32),
    /// The host does not want it.
    Refused,
}

/// Where metrics go.
pub trait Sink {
    /// Makes a metric known; `None` if it is refused.
    fn define(&mut self, kind: Kind, name: &str) -> Option<u32>;

    /// Adds to a counter, or sets a gauge.
    fn write(&mut self, kind: Kind, id: u32, value: u64);
}

impl Ledger {
    /// A configuration begins to set gauges.
    pub fn own(&mut self, owner: u32) {
        self.owner = owner;
    }

    /// A configuration has come to its end: its gauges are of nothing, but those that another one
    /// has set since. Counters keep what they have.
    pub fn retire(&mut self, owner: u32) {
        let is_over = |it: &&mut Series| it.owner == owner && it.metric.kind() == Kind::Gauge;
        for series in self.series.iter_mut().filter(is_over) {
            (series.value, series.is_pending) = (0, true);
            self.is_pending = true;
        }
    }

    /// Counts. `values` are those of the labels, in their order.
    pub fn count(&mut self, metric: Metric, values: &[&str], by: u64) {
        self.change(metric, values, |value| value.saturating_add(by));
    }

    /// Makes a counter known that has counted nothing yet: without it the first count is no increase
    /// to whoever watches.
    pub fn declare(&mut self, metric: Metric, values: &[&str]) {
        if self.find(key(metric, values)).is_err() {
            self.count(metric, values, 0);
        }
    }

    /// Sets a gauge.
    pub fn set(&mut self, metric: Metric, values: &[&str], value: u64) {
        self.change(metric, values, |_| value);
    }

    /// Sets a gauge to nothing, if it was ever set.
    pub fn clear(&mut self, metric: Metric, values: &[&str]) {
        if self.find(key(metric, values)).is_ok() {
            self.set(metric, values, 0);
        }
    }

    /// Hands over what has come up since the last time; nothing happens if nothing has.
    pub fn flush(&mut self, sink: &mut impl Sink) {
        if !std::mem::take(&mut self.is_pending) {
            return;
        }
        for series in self.series.iter_mut().filter(|series| series.is_pending) {
            series.is_pending = false;
            let kind = series.metric.kind();
            if let Place::New(name) = &series.place {
                series.place = sink.define(kind, name).map_or(Place::Refused, Place::Defined);
            }
            if let Place::Defined(id) = series.place {
                sink.write(kind, id, std::mem::take(&mut series.value));
            }
        }
    }

    fn find(&self, key: u64) -> Result<usize, usize> {
        self.series.binary_search_by_key(&key, |series| series.key)
    }

    fn change(&mut self, metric: Metric, values: &[&str], change: impl FnOnce(u64) -> u64) {
        let key = key(metric, values);
        let at = match self.find(key) {
            Ok(at) => at,
            Err(at) => {
                let place = Place::New(metric.series(values));
                let (value, is_pending, owner) = (0, true, self.owner);
                self.series.insert(at, Series { key, metric, place, value, is_pending, owner });
                at
            }
        };
        if let Some(series) = self.series.get_mut(at) {
            series.owner = self.owner;
            series.value = change(series.value);
            series.is_pending = true;
            self.is_pending = true;
        }
    }
}

/// FNV-1a: the values are the operator's and our own, so no client gains by two that collide.
fn key(metric: Metric, values: &[&str]) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(&[metric as u8]);
    for value in values {
        hasher.write(value.as_bytes());
        hasher.write(&[0]);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Written {
        names: Vec<String>,
        writes: Vec<(u32, u64)>,
        refuses: bool,
    }

    impl Sink for Written {
        fn define(&mut self, _: Kind, name: &str) -> Option<u32> {
            self.names.push(name.to_owned());
            (!self.refuses).then(|| self.names.len() as u32 - 1)
        }

        fn write(&mut self, _: Kind, id: u32, value: u64) {
            self.writes.push((id, value));
        }
    }

    #[test]
    fn labels_come_before_the_name_in_the_form_of_istios() {
        assert_eq!(
            Metric::Requests.series(&["llm", "hit", "header"]),
            "pool=.=llm;.;outcome=.=hit;.;source=.=header;.;session_affinity_requests_total"
        );
        assert_eq!(
            Metric::Requests.series(&["", "unmatched", ""]),
            "outcome=.=unmatched;.;session_affinity_requests_total"
        );
    }

    #[test]
    fn no_value_can_end_its_label_or_begin_another() {
        assert_eq!(
            Metric::Failovers.series(&["a;.;end=.=served;.;b\"\\\n\u{e9}", "gpt-4.1:x/y"]),
            "pool=.=a%3b.%3bend%3d.%3dserved%3b.%3bb%22%5c%0a%c3%a9;.;end=.=gpt-4.1:x/y;.;\
             session_affinity_failovers_total"
        );
    }

    #[test]
    fn values_that_differ_are_different_series() {
        let values = ["a;b", "a=b", "a\"b", "a\\b", "a_b", "a%b", "a%3bb", "a%3Bb", "a%253bb"];
        let series = values.map(|value| Metric::Failovers.series(&[value, "x"]));
        let different: std::collections::BTreeSet<_> = series.iter().collect();
        assert_eq!(different.len(), values.len(), "{series:?}");
    }

    #[test]
    fn what_was_counted_is_handed_over_once() {
        let (mut ledger, mut host) = (Ledger::default(), Written::default());
        ledger.count(Metric::Requests, &["a", "hit", ""], 1);
        ledger.count(Metric::Requests, &["a", "hit", ""], 2);
        ledger.flush(&mut host);
        ledger.flush(&mut host);
        assert_eq!((host.names.len(), host.writes), (1, vec![(0, 3)]));

        let mut host = Written::default();
        ledger.count(Metric::Requests, &["a", "hit", ""], 5);
        ledger.flush(&mut host);
        assert_eq!((host.names.len(), host.writes), (0, vec![(0, 5)]), "it is known");
    }

    #[test]
    fn every_combination_of_labels_is_counted_apart() {
        let (mut ledger, mut host) = (Ledger::default(), Written::default());
        for (at, values) in [["ab", "c"], ["a", "bc"], ["abc", ""]].iter().enumerate() {
            ledger.count(Metric::Failovers, values, at as u64 + 1);
        }
        ledger.count(Metric::Attempts, &["ab", "c"], 9);
        ledger.flush(&mut host);
        let mut values: Vec<_> = host.writes.iter().map(|(_, value)| *value).collect();
        values.sort_unstable();
        assert_eq!(values, [1, 2, 3, 9]);
    }

    #[test]
    fn a_gauge_is_written_whenever_it_is_set_and_cleared_only_if_it_was() {
        let (mut ledger, mut host) = (Ledger::default(), Written::default());
        ledger.clear(Metric::BlockEnd, &["p", "a", "rate_limit"]);
        ledger.flush(&mut host);
        assert!(host.names.is_empty());
        for _ in 0..2 {
            ledger.set(Metric::BlockEnd, &["p", "a", "rate_limit"], 7);
            ledger.flush(&mut host);
        }
        ledger.clear(Metric::BlockEnd, &["p", "a", "rate_limit"]);
        ledger.flush(&mut host);
        assert_eq!(host.writes, [(0, 7), (0, 7), (0, 0)]);
    }

    #[test]
    fn the_gauges_of_a_configuration_end_with_it_unless_another_one_has_them() {
        let (mut ledger, mut host) = (Ledger::default(), Written::default());
        let set = |ledger: &mut Ledger, owner, credential| {
            ledger.own(owner);
            ledger.set(Metric::CredentialState, &["p", credential, "blocked"], 1);
            ledger.set(Metric::TableCapacity, &["pin"], 9);
        };
        set(&mut ledger, 1, "old");
        ledger.count(Metric::Pins, &[], 5);
        ledger.flush(&mut host);
        set(&mut ledger, 2, "new");
        ledger.flush(&mut host);
        let id = |name: &str| host.names.iter().position(|it| it.contains(name)).unwrap() as u32;
        let old = id("=old;");
        host.writes.clear();
        ledger.retire(1);
        ledger.flush(&mut host);
        assert_eq!(host.writes, [(old, 0)]);
    }

    #[test]
    fn what_the_host_refuses_is_asked_for_once() {
        let mut host = Written { refuses: true, ..Written::default() };
        let mut ledger = Ledger::default();
        for _ in 0..3 {
            ledger.count(Metric::Pins, &[], 1);
            ledger.flush(&mut host);
        }
        assert_eq!((host.names.len(), host.writes.len()), (1, 0));
    }

    #[test]
    fn names_of_counters_say_so_and_no_two_metrics_share_one() {
        for metric in Metric::ALL {
            assert_eq!(metric.kind() == Kind::Counter, metric.name().ends_with("_total"));
            assert_eq!(Metric::ALL.iter().filter(|it| it.name() == metric.name()).count(), 1);
        }
    }
}
