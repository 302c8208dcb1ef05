//! Plots of how results grow with the fleet.

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;

use crate::report::Answered;
use crate::scenario::Scenario;
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
    /// What tells one line from another.
    pub line: fn(&Scenario) -> String,
}

/// The plots of a suite.
pub fn plots(suite: &str) -> Vec<Plot> {
    let envoys = |name, title, y| Plot {
        name,
        title,
        across: "Envoys",
        x: |scenario| scenario.envoys as f64,
        y,
        line: Scenario::way_name,
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
            line: |scenario| format!("{}, Envoys: {}", scenario.way.name(), scenario.envoys),
        }],
        _ => Vec::new(),
    }
}

impl Plot {
    /// The picture, as SVG.
    ///
    /// # Errors
    /// If there is nothing to draw.
    pub fn svg(&self, answered: &Answered) -> Result<String> {
        let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
        for (_, scenario, results) in answered.rows() {
            let (name, point) = ((self.line)(scenario), ((self.x)(scenario), (self.y)(results)));
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
        let mut chart = ChartBuilder::on(&root)
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(58)
            .build_cartesian_2d(
                (first..last * 1.01).log_scale().base(2.0),
                bottom..highest + margin,
            )?;
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
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .position(SeriesLabelPosition::MiddleRight)
            .draw()?;
        root.present()?;
        Ok(())
    }
}
