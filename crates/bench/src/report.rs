//! What a run found, as Markdown for readers and as JSON with every sample.

use serde::Serialize;
use serde_json::json;

use crate::bars::{Row, values};
use crate::contender::Contender;
use crate::lane::{Cell, Sample};
use crate::machine::Facts;
use crate::rounds::Series;
use crate::statistics::{Side, Summary, differences, ratios};

const MIB: f64 = 1024.0 * 1024.0;

/// All of a run.
pub(crate) struct Report {
    pub facts: Facts,
    pub rounds: usize,
    pub bars: Vec<Row>,
    pub series: Vec<Series>,
}

impl Report {
    /// Everything, with a line for each bar and for each contender in a cell.
    ///
    /// # Errors
    /// If a number is none.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        let Self { facts, rounds, bars, series } = self;
        Ok(format!(
            "{{\n\"facts\": {},\n\"rounds\": {rounds},\n\"bars\": [\n{}\n],\n\"series\": [\n{}\n]\n}}\n",
            json!(facts),
            lines(bars)?,
            lines(series)?
        ))
    }

    /// The whole page.
    pub(crate) fn markdown(&self, title: &str) -> String {
        let mut page = format!("# {title}\n\n{}\n{}", self.facts(), self.bars());
        for cell in self.cells() {
            page.push_str(&self.cell(cell));
        }
        page
    }

    fn facts(&self) -> String {
        let Facts { date, commit, envoy, module, cpu, cores, cores_used, kernel, load_average } =
            &self.facts;
        format!(
            "| | |\n|---|---|\n| date | {date} |\n| commit | {commit} |\n| Envoy | {envoy}, one \
             worker, on core {} |\n| module | {module} bytes |\n| machine | {cpu}, {cores} cores, \
             Linux {kernel} |\n| load and upstream | on core {} |\n| load average before | \
             {load_average} |\n| rounds | {} |\n\nMedians (min..max) of the rounds. Ratios and \
             differences are taken within each round. One that the rounds do not agree on is not \
             resolved.\n",
            cores_used.envoy, cores_used.load, self.rounds
        )
    }

    /// The bars alone, for the terminal as well.
    pub(crate) fn bars(&self) -> String {
        let mut table = "## Bars\n\n| path | measured against | measured | bar | |\n\
            |---|---|--:|--:|---|\n"
            .to_owned();
        for Row { path, against, unit, measured, bar, verdict } in &self.bars {
            let digits = if *unit == "×" { 2 } else { 0 };
            let measured = spread(measured, digits);
            table.push_str(&format!(
                "| {path} | {against} | {measured} {unit} | ≤ {bar:.digits$} | {} |\n",
                verdict.as_str()
            ));
        }
        table.push_str(&format!("\n{}\n", self.control()));
        table
    }

    /// What bare Envoy against itself shows: how far a ratio of this run can be trusted.
    fn control(&self) -> String {
        let ratios = self.cells().into_iter().filter_map(|cell| {
            let ratio = self.ratio(Contender::BareAgain, cell, |sample| sample.cpu)?;
            Some(format!("{} at {}", ratio, name(cell)))
        });
        let ratios: Vec<_> = ratios.collect();
        format!("Control, bare Envoy against itself: {}.", ratios.join("; "))
    }

    fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = self.series.iter().map(|series| series.cell).collect();
        cells.dedup();
        cells
    }

    fn cell(&self, cell: Cell) -> String {
        let mut table = format!(
            "\n## {}\n\n| | CPU µs/request | ÷ bare Envoy | requests/s ÷ bare Envoy | p50 µs | \
             p50 added µs | p99 added µs | RSS MiB |\n|---|--:|--:|--:|--:|--:|--:|--:|\n",
            name(cell)
        );
        for contender in Contender::ALL {
            let digits = |sample: &Sample| sample.cpu;
            let columns = [
                self.value(contender, cell, digits, 1),
                self.ratio(contender, cell, |sample| sample.cpu),
                self.ratio(contender, cell, |sample| Some(sample.requests_per_second)),
                self.value(contender, cell, |sample| Some(sample.p50), 0),
                self.difference(contender, cell, |sample| Some(sample.p50)),
                self.difference(contender, cell, |sample| Some(sample.p99)),
                self.value(contender, cell, |sample| Some(sample.resident? as f64 / MIB), 0),
            ];
            let columns = columns.map(|column| column.unwrap_or("-".to_owned()));
            table.push_str(&format!("| {} | {} |\n", contender.as_str(), columns.join(" | ")));
        }
        table
    }

    fn value(
        &self,
        contender: Contender,
        cell: Cell,
        value: impl Fn(&Sample) -> Option<f64>,
        digits: usize,
    ) -> Option<String> {
        let values = values(&self.series, contender, cell, value)?;
        Some(spread(&Summary::of(&values)?, digits))
    }

    fn ratio(
        &self,
        contender: Contender,
        cell: Cell,
        value: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<String> {
        let (ours, bare) = self.pair(contender, cell, value)?;
        compared(&ratios(&ours, &bare), 1.0, 2)
    }

    fn difference(
        &self,
        contender: Contender,
        cell: Cell,
        value: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<String> {
        let (ours, bare) = self.pair(contender, cell, value)?;
        compared(&differences(&ours, &bare), 0.0, 0)
    }

    /// A number of a contender and of bare Envoy, which has nobody to be compared with.
    fn pair(
        &self,
        contender: Contender,
        cell: Cell,
        value: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<(Vec<f64>, Vec<f64>)> {
        if contender == Contender::Bare {
            return None;
        }
        let ours = values(&self.series, contender, cell, &value)?;
        Some((ours, values(&self.series, Contender::Bare, cell, value)?))
    }
}

fn lines<T: Serialize>(all: &[T]) -> serde_json::Result<String> {
    let lines: serde_json::Result<Vec<_>> = all.iter().map(serde_json::to_string).collect();
    Ok(lines?.join(",\n"))
}

fn compared(values: &[f64], threshold: f64, digits: usize) -> Option<String> {
    let spread = spread(&Summary::of(values)?, digits);
    Some(match Side::of(values, threshold) {
        Side::Below | Side::Above => spread,
        Side::NotResolved => format!("{spread}, not resolved"),
    })
}

fn spread(summary: &Summary, digits: usize) -> String {
    let Summary { median, min, max } = summary;
    if min == max {
        return format!("{median:.digits$}");
    }
    format!("{median:.digits$} ({min:.digits$}..{max:.digits$})")
}

fn name(cell: Cell) -> String {
    let size = match cell.size {
        bytes if bytes >= 1 << 20 => format!("{} MB", bytes >> 20),
        bytes => format!("{} KB", bytes >> 10),
    };
    let plural = if cell.connections == 1 { "" } else { "s" };
    format!("{size}, {} connection{plural}", cell.connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_within_the_spread_names_no_winner() {
        assert_eq!(
            compared(&[0.98, 1.02, 1.01, 0.99, 1.03], 1.0, 2).unwrap(),
            "1.01 (0.98..1.03), not resolved"
        );
        assert_eq!(compared(&[1.2, 1.3, 1.2, 1.1, 1.2], 1.0, 2).unwrap(), "1.20 (1.10..1.30)");
    }

    #[test]
    fn a_cell_is_named_by_its_size_and_connections() {
        for (size, connections, expected) in [
            (2048, 1, "2 KB, 1 connection"),
            (102_400, 16, "100 KB, 16 connections"),
            (1_048_576, 16, "1 MB, 16 connections"),
        ] {
            assert_eq!(name(Cell { size, connections }), expected);
        }
    }

    #[test]
    fn the_results_are_json_with_every_sample() {
        let cell = Cell { size: 2048, connections: 16 };
        let sample = Sample {
            cpu: Some(62.5),
            requests_per_second: 1e4,
            p50: 900.0,
            p99: 1900.0,
            resident: Some(1 << 20),
        };
        let series = vec![Series { contender: Contender::Bare, cell, samples: vec![sample; 2] }];
        let report = Report { facts: Facts::default(), rounds: 2, bars: Vec::new(), series };
        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(json["series"][0]["contender"], "bare Envoy");
        assert_eq!(json["series"][0]["samples"][1]["cpu"], 62.5);
        let page = report.markdown("A run");
        assert!(page.contains("| bare Envoy | 62.5 | - | - | 900 | - | - | 1 |"), "{page}");
    }

    #[test]
    fn one_value_has_no_spread() {
        assert_eq!(spread(&Summary::of(&[890.7]).unwrap(), 0), "891");
    }
}
