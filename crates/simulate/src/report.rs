//! Results as Markdown and JSON.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use crate::scenario::Scenario;
use crate::suites::{self, Suite};
use crate::tally::{Results, Room};

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

    /// Whether it belongs to the page on headroom.
    pub fn is_by_room(&self) -> bool {
        self.suite.name == suites::HEADROOM
    }

    /// The table of the suite.
    pub fn markdown(&self) -> String {
        if self.is_by_room() {
            return self.by_room();
        }
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

    fn by_room(&self) -> String {
        let mut text = format!("## {}\n\n{COLUMNS_BY_ROOM}", self.suite.question)
            .replace("AXIS", self.suite.axis);
        for (label, scenario, results) in self.rows() {
            let Some(room) = &results.room else { continue };
            let Results { warm_share, cost, moves, failed_attempts, errors, .. } = results;
            let Room { refused_sessions, void, skew_of_weeks, skew_of_five_hours, .. } = room;
            let (way, (weeks, five_hours)) = (scenario.way_name(), room.used_up);
            let row = format!(
                "| {label} | {way} | {refused_sessions:.2} | {errors:.2} | {failed_attempts:.1} | \
                 {warm_share:.2} | {cost:.3} | {moves:.1} | {skew_of_weeks:.2} | \
                 {skew_of_five_hours:.2} | {weeks} | {five_hours} | {void:.1} |"
            );
            let _ = writeln!(text, "{row}");
        }
        text
    }
}

const COLUMNS_BY_ROOM: &str = "\
| AXIS | strategy | sessions refused % | turns refused ‰ | failed ‰ | warm % | cost | moves ‰ | skew, weeks | skew, 5 hours | weeks used up | 5 hours used up | void % |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";

const INTRODUCTION_BY_ROOM: &str = "\
- **sessions refused**: those of which a turn or more ended in an error for the client, in percent.
- **turns refused**: turns that ended in an error, per 1,000.
- **failed**, **warm**, **cost**, **moves**: as in [the other results](results.md).
- **skew**: the share of its quota that the fullest account used, compared with the mean of all; of
  weeks, and of windows of five hours.
- **used up**: weeks of all accounts, of 16, and windows of five hours, of which nothing was left before
  their end.
- **void**: of the quota of all weeks, what was left when they ended, in percent.

";

/// The page on headroom, with other tables at its end.
pub fn page_by_room(command: &str, answered: &[Answered], others: &[String]) -> String {
    let tables = answered.iter().map(Answered::markdown).chain(others.iter().cloned());
    let tables: Vec<_> = tables.collect();
    format!(
        "# Results of the simulation of headroom\n\nWritten by `{command}`; \
         [Headroom](../headroom.md) reads them.\n\n{INTRODUCTION_BY_ROOM}{}",
        tables.join("\n")
    )
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
