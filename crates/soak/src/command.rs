//! The command: runs with every way, a report, and an exit code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, value_parser};
use envoy_harness::output::print;
use envoy_harness::progress::note;
use envoy_harness::{Envoy, Mode, module};

use crate::oracle::{self, Rule};
use crate::report::{self, Part};
use crate::run::{Plan, Strategy, run};

/// The workers of the runs, in turn.
const WORKERS: [u32; 4] = [2, 4, 1, 2];

/// From so many minutes on, every way is run with every strategy.
const LONG: u64 = 15;

/// How many violations are printed in full.
const PRINTED: usize = 20;

/// What is run, and for how long.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// How long all runs take together, without the time to start and to come to rest
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = value_parser!(u64).range(1..))]
    minutes: u64,
    /// What all that is sent follows from
    #[arg(long, value_name = "S", default_value_t = 17)]
    seed: u64,
    /// Threads of Envoy, instead of 1, 2 and 4 in turn
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=64))]
    workers: Option<u32>,
    /// Only these ways to wire the filter, instead of all
    #[arg(long, value_enum)]
    way: Vec<Mode>,
    /// Only these strategies; otherwise each way has one of them in a short run, and all in a run of
    /// a quarter of an hour or more
    #[arg(long, value_enum)]
    strategy: Vec<Strategy>,
    /// Trap VMs as well, with a module that is built for it
    #[arg(long)]
    traps: bool,
    /// Run a plan once more that only broke rules of order, and fail if one of them is broken again
    #[arg(long)]
    confirm: bool,
    /// Write the report into this file as Markdown, and beside it as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

impl Arguments {
    /// What a change has to pass.
    pub fn of_ci() -> Self {
        Self {
            minutes: 2,
            seed: 17,
            workers: None,
            way: vec![],
            strategy: vec![],
            traps: false,
            confirm: true,
            report: None,
        }
    }

    /// The module that it needs: this one, or one that traps.
    ///
    /// # Errors
    /// If that cannot be built.
    fn module(&self, shipped: &Path) -> Result<PathBuf> {
        match self.traps {
            true => Ok(module::build_with_trap()?.path),
            false => Ok(shipped.to_owned()),
        }
    }

    /// The runs: each way with each strategy, or, in short, one after the other.
    fn runs(&self, ways: &[Mode]) -> Vec<(Mode, Strategy)> {
        let strategies = match self.strategy.as_slice() {
            [] => Strategy::ALL.as_slice(),
            some => some,
        };
        if self.minutes < LONG && self.strategy.is_empty() {
            return ways.iter().copied().zip(strategies.iter().copied().cycle()).collect();
        }
        let all = strategies.iter().flat_map(|it| ways.iter().map(|way| (*way, *it)));
        all.collect()
    }

    /// Runs it with the module that is shipped.
    ///
    /// # Errors
    /// If a rule was broken, or the machinery failed.
    pub async fn run(&self, envoy: &Envoy, module: &Path) -> Result<()> {
        let ways = if self.way.is_empty() { Mode::ALL.to_vec() } else { self.way.clone() };
        let ways: Vec<_> = ways.into_iter().filter(|way| way.runs_on(envoy.version)).collect();
        ensure!(!ways.is_empty(), "Envoy {} has none of these ways", envoy.version);
        let module = self.module(module)?;
        let runs = self.runs(&ways);
        let length = Duration::from_secs(self.minutes * 60 / runs.len() as u64);
        let (mut parts, mut has_failed) = (Vec::new(), false);
        for (number, ((mode, strategy), workers)) in
            runs.iter().zip(WORKERS.iter().cycle()).enumerate()
        {
            let plan = Plan {
                mode: *mode,
                strategy: *strategy,
                workers: self.workers.unwrap_or(*workers),
                seed: self.seed + number as u64,
                length,
                traps: self.traps,
            };
            note(&format!(
                "soak {}/{}: {}, {}, {} workers, seed {}, {} s",
                number + 1,
                runs.len(),
                mode.as_str(),
                strategy.as_str(),
                plan.workers,
                plan.seed,
                length.as_secs()
            ));
            let part = play(envoy, &module, &plan).await?;
            let broken = part.verdict.broken();
            let again = if self.confirm && may_be_chance(&broken) {
                note("once more: what broke a rule of order must do so again");
                Some(play(envoy, &module, &plan).await?)
            } else {
                None
            };
            has_failed |= match &again {
                Some(again) => is_confirmed(&broken, &again.verdict.broken()),
                None => !broken.is_empty(),
            };
            parts.push(part);
            parts.extend(again);
        }
        let command = self.to_string();
        let page = report::page(&command, envoy.version, &parts);
        match &self.report {
            Some(file) => {
                if let Some(folder) = file.parent() {
                    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
                }
                let json = file.with_extension("json");
                fs::write(file, &page).with_context(|| file.display().to_string())?;
                fs::write(&json, report::json(&command, &parts)?)
                    .with_context(|| json.display().to_string())?;
            }
            None => print(&page)?,
        }
        let broken: usize = parts.iter().map(|part| part.verdict.violations.len()).sum();
        ensure!(!has_failed, "the soak found {broken} violations: see above");
        Ok(())
    }
}

/// Runs a plan, judges it, and says what broke a rule.
async fn play(envoy: &Envoy, module: &Path, plan: &Plan) -> Result<Part> {
    let history = run(envoy, module, plan).await?;
    let verdict = oracle::judge(&history, plan.setting(envoy));
    for violation in verdict.violations.iter().take(PRINTED) {
        let request = violation.request.map(|id| format!(" request {id},")).unwrap_or_default();
        note(&format!("{}:{request} seed {}: {}", violation.rule, plan.seed, violation.story));
    }
    Ok(Part { plan: plan.clone(), history, verdict })
}

/// Whether what was broken can have looked so by chance.
fn may_be_chance(broken: &BTreeSet<Rule>) -> bool {
    !broken.is_empty() && broken.iter().all(|rule| rule.is_of_order())
}

/// Whether a second run bears out the first, or has found worse.
fn is_confirmed(first: &BTreeSet<Rule>, again: &BTreeSet<Rule>) -> bool {
    again.iter().any(|rule| first.contains(rule) || !rule.is_of_order())
}

impl std::fmt::Display for Arguments {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "cargo xtask soak --minutes {} --seed {}", self.minutes, self.seed)?;
        if let Some(workers) = self.workers {
            write!(formatter, " --workers {workers}")?;
        }
        if self.traps {
            write!(formatter, " --traps")?;
        }
        if self.confirm {
            write!(formatter, " --confirm")?;
        }
        self.way.iter().try_for_each(|way| write!(formatter, " --way {}", way.as_str()))?;
        let mut strategies = self.strategy.iter();
        strategies.try_for_each(|it| write!(formatter, " --strategy {}", it.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rules_of_order_may_be_broken_by_chance_and_only_once() {
        let [none, told, moved, key] = [&[][..], &[Rule::Told], &[Rule::Move], &[Rule::Key]]
            .map(|it| BTreeSet::from_iter(it.iter().copied()));
        assert!(may_be_chance(&told) && may_be_chance(&moved));
        assert!(!may_be_chance(&none) && !may_be_chance(&key) && !may_be_chance(&(&told | &key)));
        assert!(is_confirmed(&told, &told) && is_confirmed(&told, &key));
        assert!(!is_confirmed(&told, &none) && !is_confirmed(&told, &moved));
    }
}
