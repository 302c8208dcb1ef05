//! Results as Markdown and JSON.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use crate::scenario::Scenario;
use crate::suites::Suite;
use crate::tally::Results;

/// A suite with what came of it, in its order.
#[derive(Clone, Debug)]
pub struct Answered {
    pub suite: Suite,
    pub results: Vec<Results>,
}

impl Answered {
    /// Every run with its place on the axis.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &Scenario, &Results)> {
        let runs = self.suite.runs.iter().zip(&self.results);
        runs.map(|((label, scenario), results)| (label.as_str(), scenario, results))
    }

    /// The table of the suite.
    pub fn markdown(&self) -> String {
        let mut text =
            format!("## {}\n\n{COLUMNS}", self.suite.question).replace("AXIS", self.suite.axis);
        for (label, scenario, results) in self.rows() {
            let Results { warm_share, token_share, cost, moves, .. } = results;
            let Results { failed_attempts, errors, skew, bindings, tally, .. } = results;
            let (way, kilobytes) = (scenario.way_name(), results.bytes.div_ceil(1000));
            let evicted = tally.evicted;
            let row = format!(
                "| {label} | {way} | {warm_share:.2} | {token_share:.2} | {cost:.3} | {moves:.1} | \
                 {failed_attempts:.1} | {errors:.1} | {skew:.2} | {bindings} | {kilobytes} | \
                 {evicted} |"
            );
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{row}");
        }
        text
    }
}

const COLUMNS: &str = "\
| AXIS | strategy | warm % | tokens % | cost | moves ‰ | failed ‰ | errors ‰ | skew | bindings | KB | evicted |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";

const INTRODUCTION: &str = "\
- **warm**: of the turns whose prompt some credential had cached, those that met it, in percent.
- **tokens**: of the tokens that some credential had cached, those that were read, in percent.
- **cost**: the price of all prompts, with cached tokens at a tenth and others at 1.25 times the
  price, compared with a gateway that always finds the cached ones.
- **moves**: turns that another credential served than the turn before, per 1,000.
- **failed**: attempts at credentials that failed, per 1,000 turns; Envoy tried another one, if there
  was one.
- **errors**: turns that ended in an error for the client, per 1,000.
- **skew**: the turns of the busiest credential, compared with the mean.
- **bindings**, **KB**: bindings and kilobytes of shared data of the Envoy that has most.
- **evicted**: bindings that had to give way before their end, in all Envoys.

";

/// The page with all tables.
pub fn page(command: &str, answered: &[Answered]) -> String {
    let tables: Vec<_> = answered.iter().map(Answered::markdown).collect();
    format!(
        "# Results of the simulation\n\nWritten by `{command}`; [Fleets](../fleet.md) reads them.\n\n\
         {INTRODUCTION}{}",
        tables.join("\n")
    )
}

/// All parameters and results.
pub fn json(answered: &[Answered]) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Run<'a> {
        suite: &'static str,
        scenario: &'a Scenario,
        results: &'a Results,
    }
    let runs = answered.iter().flat_map(|answered| {
        let suite = answered.suite.name;
        answered.rows().map(move |(_, scenario, results)| Run { suite, scenario, results })
    });
    let lines: Result<Vec<_>, _> = runs.map(|run| serde_json::to_string(&run)).collect();
    Ok(format!("[\n{}\n]\n", lines?.join(",\n")))
}

/// What a page of results says in JSON, for tests.
pub fn parsed(json: &str) -> serde_json::Result<Vec<Value>> {
    serde_json::from_str(json)
}
