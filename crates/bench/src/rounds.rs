//! The rounds. Each has its own processes. In a round one cell after the other is measured, each of
//! all contenders in turn, so that what is compared was measured within seconds; who comes first
//! rotates.

use std::path::Path;

use anyhow::{Context, Result};
use envoy_harness::Envoy;
use envoy_harness::progress::Step;
use serde::Serialize;

use crate::contender::Contender;
use crate::lane::{Cell, Lane, Sample, Span};
use crate::load::Requests;
use crate::upstream::Upstream;

/// How much is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub rounds: usize,
    pub cells: Vec<Cell>,
    pub span: Span,
}

/// What it is measured on.
pub(crate) struct Scene<'run> {
    pub envoy: &'run Envoy,
    /// The core of Envoy.
    pub core: usize,
    /// The module of the no-ops.
    pub noop: &'run Path,
}

/// What was measured of a contender in a cell, round by round.
#[derive(Debug, Serialize)]
pub(crate) struct Series {
    pub contender: Contender,
    pub cell: Cell,
    pub samples: Vec<Sample>,
}

/// Plays all rounds.
///
/// # Errors
/// If a contender does not start or does not serve.
pub(crate) async fn play(plan: &Plan, scene: &Scene<'_>) -> Result<Vec<Series>> {
    let requests = Requests::write(plan.cells.iter().map(|cell| cell.size))?;
    let mut results = empty(plan);
    let parts = plan.rounds * plan.cells.len() * Contender::ALL.len();
    let step = Step::of_parts("measuring", parts as u64);
    for round in 0..plan.rounds {
        step.announce(&format!("round {} of {}", round + 1, plan.rounds));
        let upstream = Upstream::start()?;
        let mut lanes = Vec::new();
        for contender in Contender::ALL {
            let Scene { envoy, core, noop } = *scene;
            let lane = Lane::start(contender, envoy, core, noop, &upstream, &requests).await;
            lanes.push(lane.with_context(|| contender.as_str())?);
        }
        for (index, &cell) in plan.cells.iter().enumerate() {
            for lane in rotated(&lanes, round + index) {
                step.say(&format!("{} B, {}", cell.size, lane.contender.as_str()));
                let sample = lane.measure(cell, plan.span, &requests).await;
                let sample = sample.with_context(|| lane.contender.as_str())?;
                let series = results
                    .iter_mut()
                    .find(|series| series.contender == lane.contender && series.cell == cell);
                series.context("a cell that is not planned")?.samples.push(sample);
                step.advance();
            }
        }
        for lane in lanes {
            lane.finish().await?;
        }
    }
    step.done(&format!("{} rounds", plan.rounds));
    Ok(results)
}

fn empty(plan: &Plan) -> Vec<Series> {
    let contenders = plan.cells.iter().flat_map(|&cell| {
        let series = |contender| Series { contender, cell, samples: Vec::new() };
        Contender::ALL.map(series)
    });
    contenders.collect()
}

/// All, beginning at another one.
fn rotated<T>(all: &[T], by: usize) -> impl Iterator<Item = &T> {
    let start = by % all.len().max(1);
    all.iter().cycle().skip(start).take(all.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_rotates_and_leaves_nobody_out() {
        let order = |by| rotated(&[1, 2, 3], by).copied().collect::<Vec<_>>();
        assert_eq!([order(0), order(1), order(3)], [[1, 2, 3], [2, 3, 1], [1, 2, 3]]);
        assert_eq!(rotated::<u8>(&[], 1).count(), 0);
    }
}
