//! Plots of how results grow with the fleet.

use anyhow::{Context, Result, anyhow};
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::report::Answered;
use crate::scenario::Scenario;
use crate::suites::HEADROOM;
use crate::tally::Results;

const SIZE: (u32, u32) = (760, 420);

/// A picture of a suite: one line for each strategy.
pub struct Plot {
    /// The name of the file, without its extension.
    pub name: &'static str,
    pub title: &'static str,
    pub across: &'static str,
    pub x: fn(&Scenario) -> f64,
    pub y: fn(&Results) -> f64,
    /// Whether each step across is a multiple of the one before.
    pub is_log: bool,
    /// What tells one line from another; none: not in the picture.
    pub line: fn(&Scenario) -> Option<String>,
}

/// The plots of a suite.
pub fn plots(suite: &str) -> Vec<Plot> {
    let envoys = |name, title, y| Plot {
        name,
        title,
        across: "Envoys",
        x: |scenario| scenario.envoys as f64,
        y,
        is_log: true,
        line: |scenario| Some(scenario.way_name()),
    };
    match suite {
        "growth" => vec![
            envoys("warm", "Turns that meet a warm cache, in percent", |it| it.warm_share),
            envoys("cost", "Price of all prompts; 1 is perfect", |it| it.cost),
            envoys("moves", "Moves per 1,000 turns", |it| it.moves),
            envoys("failed", "Failed attempts per 1,000 turns", |it| it.failed_attempts),
            envoys("memory", "Shared data of an Envoy, in kilobytes", |it| it.bytes as f64 / 1e3),
        ],
        "table" => vec![Plot {
            name: "table",
            title: "Turns that meet a warm cache, in percent, by the size of the table",
            across: "session.max_bindings",
            x: |scenario| f64::from(scenario.max_bindings),
            y: |it| it.warm_share,
            is_log: true,
            line: |scenario| Some(format!("{}, Envoys: {}", scenario.way.name(), scenario.envoys)),
        }],
        HEADROOM => vec![Plot {
            name: "headroom_failed",
            title: "Failed attempts per 1,000 turns",
            across: "Quota of all weeks, in percent of what is needed",
            x: quota,
            y: |it| it.failed_attempts,
            is_log: false,
            line: line_by_room,
        }],
        _ => Vec::new(),
    }
}

/// The quota of a run in percent of what is needed, as its suite has it.
fn quota(scenario: &Scenario) -> f64 {
    scenario.subscriptions.as_ref().map_or(0.0, |it| f64::from(it.percent))
}

/// One Envoy with all sessions, and weights that say how large accounts are.
fn line_by_room(scenario: &Scenario) -> Option<String> {
    let is_usual = scenario.envoys == 1
        && scenario.sessions >= 10_000
        && scenario.subscriptions.as_ref()?.weighted;
    is_usual.then(|| scenario.way_name())
}

impl Plot {
    /// The picture, as SVG.
    ///
    /// # Errors
    /// If there is nothing to draw.
    pub fn svg(&self, answered: &Answered) -> Result<String> {
        let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
        for (_, scenario, results) in answered.rows() {
            let Some(name) = (self.line)(scenario) else { continue };
            let point = ((self.x)(scenario), (self.y)(results));
            match lines.iter_mut().find(|(known, _)| *known == name) {
                Some((_, points)) => points.push(point),
                None => lines.push((name, vec![point])),
            }
        }
        let mut svg = String::new();
        self.draw(&lines, &mut svg).map_err(|error| anyhow!("{}: {error}", self.name))?;
        Ok(svg)
    }

    fn draw(&self, lines: &[(String, Vec<(f64, f64)>)], svg: &mut String) -> Result<()> {
        let points = || lines.iter().flat_map(|(_, points)| points);
        let first = points().map(|(x, _)| *x).reduce(f64::min).context("no points")?;
        let last = points().map(|(x, _)| *x).fold(first, f64::max);
        let highest = points().map(|(_, y)| *y).fold(0.0, f64::max);
        let lowest = points().map(|(_, y)| *y).fold(highest, f64::min);
        let margin = (highest - lowest) / 12.0 + 0.01;
        let bottom = if lowest < highest / 3.0 { 0.0 } else { lowest - margin };
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root);
        chart.caption(self.title, ("sans-serif", 18)).margin(12);
        chart.x_label_area_size(42).y_label_area_size(58);
        let down = bottom..highest + margin;
        if self.is_log {
            let across = (first..last * 1.01).log_scale().base(2.0);
            self.lines(chart.build_cartesian_2d(across, down)?, lines)?;
        } else {
            self.lines(chart.build_cartesian_2d(first..last, down)?, lines)?;
        }
        root.present()?;
        Ok(())
    }

    fn lines<'a, X>(
        &self,
        mut chart: ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, RangedCoordf64>>,
        lines: &[(String, Vec<(f64, f64)>)],
    ) -> Result<()>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        chart
            .configure_mesh()
            .x_desc(self.across)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .draw()?;
        for (number, (name, points)) in lines.iter().enumerate() {
            let color = Palette99::pick(number).to_rgba();
            // Lines that lie on each other are both seen.
            let style = color.stroke_width(if number % 2 == 0 { 4 } else { 2 });
            chart
                .draw_series(LineSeries::new(points.iter().copied(), style))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        let place = match self.is_log {
            true => SeriesLabelPosition::MiddleRight,
            false => SeriesLabelPosition::UpperRight,
        };
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .position(place)
            .draw()?;
        Ok(())
    }
}
