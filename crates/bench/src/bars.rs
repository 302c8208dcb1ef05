//! The bars: how much the filter may cost, relative to the least that a Proxy-Wasm filter costs
//! which does the same to requests.

use serde::Serialize;

use crate::contender::Contender;
use crate::lane::{Cell, Sample};
use crate::rounds::Series;
use crate::statistics::{Side, Summary, differences, ratios};

/// The bars are about this many connections; with one, Envoy is idle between requests.
const CONNECTIONS: u16 = 16;
const MIB: f64 = 1024.0 * 1024.0;

/// One bar and what was measured for it.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub path: &'static str,
    pub against: &'static str,
    pub unit: &'static str,
    pub measured: Summary,
    /// It is met by what is not above it.
    pub bar: f64,
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Met,
    NotMet,
    NotResolved,
}

impl Verdict {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "**not met**",
            Self::NotResolved => "not resolved",
        }
    }
}

/// A bar for CPU time of a request.
struct CpuBar {
    path: &'static str,
    ours: Contender,
    theirs: Contender,
    size: usize,
    bar: f64,
}

impl CpuBar {
    const fn of(
        path: &'static str,
        ours: Contender,
        theirs: Contender,
        size: usize,
        bar: f64,
    ) -> Self {
        Self { path, ours, theirs, size, bar }
    }
}

const CPU: [CpuBar; 7] = {
    use Contender::{Body, BodyOnClusters, Continues, Header, HeaderOnClusters, Holds, Stock};
    let [small, middle, large] = crate::SIZES;
    [
        CpuBar::of("header path, 2 KB", Header, Continues, small, 1.35),
        CpuBar::of(
            "header path, filter on the cluster, 2 KB",
            HeaderOnClusters,
            Continues,
            small,
            1.50,
        ),
        CpuBar::of("body path, 2 KB", Body, Holds, small, 1.40),
        CpuBar::of("body path, 2 KB", Body, Stock, small, 1.00),
        CpuBar::of("body path, filter on the cluster, 2 KB", BodyOnClusters, Holds, small, 1.58),
        CpuBar::of("body path, 100 KB", Body, Holds, middle, 1.30),
        CpuBar::of("body path, 1 MB", Body, Holds, large, 1.30),
    ]
};

/// Bytes that the module may have.
const MODULE: f64 = 800_000.0;
/// MiB above bare Envoy.
const RESIDENT: f64 = 40.0;

/// All bars for which there are measurements.
pub(crate) fn rows(series: &[Series], module: u64) -> Vec<Row> {
    let mut rows: Vec<Row> = CPU.iter().filter_map(|bar| cpu_row(series, bar)).collect();
    rows.extend(resident_row(series));
    let module = module as f64;
    rows.push(Row {
        path: "module",
        against: "",
        unit: "KB",
        measured: Summary { median: module / 1e3, min: module / 1e3, max: module / 1e3 },
        bar: MODULE / 1e3,
        verdict: if module <= MODULE { Verdict::Met } else { Verdict::NotMet },
    });
    rows
}

fn cpu_row(series: &[Series], bar: &CpuBar) -> Option<Row> {
    let cell = Cell { size: bar.size, connections: CONNECTIONS };
    let cpu = |sample: &Sample| sample.cpu;
    let ours = values(series, bar.ours, cell, cpu)?;
    let theirs = values(series, bar.theirs, cell, cpu)?;
    row(bar.path, bar.theirs, "×", &ratios(&ours, &theirs), bar.bar)
}

/// After the largest bodies, of the path that holds them.
fn resident_row(series: &[Series]) -> Option<Row> {
    let [.., size] = crate::SIZES;
    let cell = Cell { size, connections: CONNECTIONS };
    let resident = |sample: &Sample| sample.resident.map(|bytes| bytes as f64 / MIB);
    let ours = values(series, Contender::BodyOnClusters, cell, resident)?;
    let theirs = values(series, Contender::Bare, cell, resident)?;
    let path = "RSS after 1 MB bodies, body path, filter on the cluster";
    row(path, Contender::Bare, "MiB more", &differences(&ours, &theirs), RESIDENT)
}

fn row(
    path: &'static str,
    theirs: Contender,
    unit: &'static str,
    values: &[f64],
    bar: f64,
) -> Option<Row> {
    let verdict = match Side::of(values, bar) {
        Side::Below => Verdict::Met,
        Side::Above => Verdict::NotMet,
        Side::NotResolved => Verdict::NotResolved,
    };
    let measured = Summary::of(values)?;
    Some(Row { path, against: theirs.as_str(), unit, measured, bar, verdict })
}

/// One number of every round; `None` if a round has none.
pub(crate) fn values(
    series: &[Series],
    contender: Contender,
    cell: Cell,
    value: impl Fn(&Sample) -> Option<f64>,
) -> Option<Vec<f64>> {
    let series = series.iter().find(|one| one.contender == contender && one.cell == cell)?;
    series.samples.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(contender: Contender, size: usize, cpu: &[f64], mib: u64) -> Series {
        let sample = |&cpu: &f64| Sample {
            cpu: Some(cpu),
            requests_per_second: 1.0,
            p50: 1.0,
            p99: 1.0,
            resident: Some(mib << 20),
        };
        let cell = Cell { size, connections: CONNECTIONS };
        Series { contender, cell, samples: cpu.iter().map(sample).collect() }
    }

    fn verdicts(ours: &[f64]) -> Vec<(&'static str, Verdict)> {
        let theirs = [100.0; 5];
        let all = [
            series(Contender::Body, 2048, ours, 0),
            series(Contender::Holds, 2048, &theirs, 0),
            series(Contender::Stock, 2048, &theirs, 0),
        ];
        rows(&all, 1_000_000).iter().map(|row| (row.against, row.verdict)).collect()
    }

    #[test]
    fn a_bar_is_met_if_the_rounds_agree_and_missed_if_they_do() {
        let (holds, stock) = ("no-op that holds", "json_to_metadata + MAGLEV");
        for (ours, against_noop, against_stock) in [
            ([90.0; 5], Verdict::Met, Verdict::Met),
            ([130.0; 5], Verdict::Met, Verdict::NotMet),
            ([150.0; 5], Verdict::NotMet, Verdict::NotMet),
            ([90.0, 90.0, 90.0, 90.0, 150.0], Verdict::NotResolved, Verdict::NotResolved),
        ] {
            let expected = [(holds, against_noop), (stock, against_stock), ("", Verdict::NotMet)];
            assert_eq!(verdicts(&ours), expected, "{ours:?}");
        }
    }

    #[test]
    fn memory_is_compared_by_its_difference() {
        let [.., size] = crate::SIZES;
        let all = [
            series(Contender::BodyOnClusters, size, &[1.0; 5], 112),
            series(Contender::Bare, size, &[1.0; 5], 68),
        ];
        let rows = rows(&all, 1);
        let row = rows.iter().find(|row| row.unit == "MiB more").unwrap();
        assert_eq!((row.measured.median, row.verdict), (44.0, Verdict::NotMet));
    }
}
