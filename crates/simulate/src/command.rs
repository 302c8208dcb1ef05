//! The command: runs the suites on all cores and writes what came of them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::crowd;
use crate::herd;
use crate::plot;
use crate::report::{self, Answered};
use crate::suites::{self, Suite};
use crate::tally::Results;
use crate::world;

/// The seed of the results in `docs/simulation`.
const SEED: u64 = 17;

/// Simulates fleets of Envoys over the core of the filter: 1 to 200 Envoys, with the sessions,
/// limits, failures and restarts that `crates/simulate` describes
#[derive(Debug, Parser)]
#[command(name = "cargo xtask simulate", bin_name = "cargo xtask simulate")]
pub struct Arguments {
    /// What all chance follows from: the same seed, the same results
    #[arg(long, default_value_t = SEED)]
    pub seed: u64,
    /// A tenth of the sessions and fewer fleets, in seconds instead of minutes
    #[arg(long)]
    pub quick: bool,
    /// Only these suites
    #[arg(long, value_name = "NAME")]
    pub suite: Vec<String>,
    /// Ten million sessions in a day instead, which take some minutes of a core for
    /// each simulation, and a gigabyte
    #[arg(long, conflicts_with = "quick")]
    pub large: bool,
    /// Write tables, JSON and plots into this folder instead of printing the tables; the committed
    /// ones are in docs/simulation
    #[arg(long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
}

impl Arguments {
    /// Runs what is asked for.
    ///
    /// # Errors
    /// If a suite is not known, a simulation breaks a rule, or something cannot be written.
    pub fn run(&self) -> Result<()> {
        let (by_room, others): (Vec<_>, Vec<_>) =
            answer(self.suites()?)?.into_iter().partition(Answered::is_by_room);
        let large = if self.large { " --large" } else { "" };
        let suites: String = self.suite.iter().map(|name| format!(" --suite {name}")).collect();
        let page = report::page(&format!("cargo xtask simulate{large}{suites}"), &others);
        let name = if self.large { "large" } else { "results" };
        if !others.is_empty() {
            self.give(name, &page, &others)?;
        }
        if !by_room.is_empty() {
            let tables = [herd::markdown(self.seed)?, crowd::markdown(self.seed)?];
            let command = format!("cargo xtask simulate --suite {}", suites::HEADROOM);
            let page = report::page_by_room(&command, &by_room, &tables);
            self.give(suites::HEADROOM, &page, &by_room)?;
        }
        Ok(())
    }

    /// Writes a page with its JSON and plots, or prints it.
    fn give(&self, name: &str, page: &str, answered: &[Answered]) -> Result<()> {
        match &self.output {
            Some(folder) => write(folder, name, page, answered),
            None => Ok(std::io::stdout().write_all(page.as_bytes())?),
        }
    }

    fn suites(&self) -> Result<Vec<Suite>> {
        let mut all = match self.large {
            true => suites::large(self.seed),
            false => suites::all(self.seed, self.quick),
        };
        let is_asked = |name| self.suite.is_empty() || self.suite.iter().any(|it| it == name);
        if !self.large && is_asked(suites::HEADROOM) {
            all.push(suites::headroom(self.seed, self.quick)?);
        }
        for name in &self.suite {
            ensure!(all.iter().any(|suite| suite.name == name), "{name}: no such suite");
        }
        Ok(all.into_iter().filter(|suite| is_asked(suite.name)).collect())
    }
}

fn write(folder: &Path, name: &str, page: &str, answered: &[Answered]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let write = |name: String, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    };
    write(format!("{name}.md"), page)?;
    write(format!("{name}.json"), &report::json(answered)?)?;
    for answered in answered {
        for plot in plot::plots(answered.suite.name) {
            write(format!("{}.svg", plot.name), &plot.svg(answered)?)?;
        }
    }
    Ok(())
}

/// Runs all simulations, as many at once as there are cores. Their results do not depend on it.
///
/// # Errors
/// If a simulation breaks a rule.
pub fn answer(suites: Vec<Suite>) -> Result<Vec<Answered>> {
    let runs: Vec<_> =
        suites.iter().flat_map(|suite| suite.runs.iter().map(|run| (suite.name, run))).collect();
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<Results>)>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let number = next.fetch_add(1, Ordering::Relaxed)
                    && let Some((suite, (label, scenario))) = runs.get(number)
                {
                    let result = world::run(scenario);
                    let way = scenario.way_name();
                    eprintln!("{}/{} {suite}: {label}, {way}", number + 1, runs.len());
                    results.lock().unwrap_or_else(|e| e.into_inner()).push((number, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(|e| e.into_inner());
    results.sort_by_key(|(number, _)| *number);
    let mut results = results.into_iter().map(|(_, result)| result);
    suites
        .into_iter()
        .map(|suite| {
            let results: Result<Vec<_>> = results.by_ref().take(suite.runs.len()).collect();
            Ok(Answered { suite, results: results? })
        })
        .collect()
}
