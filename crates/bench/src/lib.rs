//! `cargo xtask bench`: what the filter costs, in a real Envoy, beside what else one could put in
//! its place.
//!
//! A run has several rounds, each with fresh processes. Envoy has one worker and a core of its own;
//! `wrk` and the upstream share the other one. All contenders serve the same requests, from 1,024
//! sessions in turn. What is compared was measured within the same round, seconds apart, because
//! shared machines drift; a difference on whose direction the rounds do not agree is called *not
//! resolved*. One of the contenders is there twice, as a control.
//!
//! The results go to `benches/results/`, as Markdown and as JSON with every sample.
//!
//! | to | see |
//! |---|---|
//! | what is compared, and how it is configured | [`contender`], [`setup`] |
//! | what is sent, by what, and what answers | `request`, `load`, [`upstream`] |
//! | what is measured | `lane`, `rounds`, `machine` |
//! | what is made of it | `statistics`, `bars`, `report` |

mod bars;
pub mod contender;
mod lane;
mod load;
mod machine;
mod report;
mod request;
mod rounds;
pub mod setup;
mod statistics;
pub mod upstream;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use envoy_harness::module::Module;
use envoy_harness::output::print;
use envoy_harness::progress::{done, note};
use envoy_harness::{Envoy, Mode, module, project_root};
use simulated_providers::Shutdown;

use self::lane::{Cell, Span};
use self::machine::{Cores, Facts, ensure_programs};
use self::report::Report;
use self::rounds::{Plan, Scene};

/// Bytes of the bodies.
pub(crate) const SIZES: [usize; 3] = [2048, 100 << 10, 1 << 20];
/// The package whose module does nothing.
const NOOP: &str = "bench-noop";

/// Builds the module that does nothing, which some contenders load.
///
/// # Errors
/// If it cannot be built.
pub fn build_noop() -> Result<Module> {
    module::build_package(NOOP, "bench")
}

/// Measures, prints the table of bars and writes the results. A quick run takes less than three
/// minutes, a full one less than 25.
///
/// # Errors
/// If something that it needs is missing, or a contender does not serve.
pub fn bench(envoy: &Envoy, module: &Path, quick: bool) -> Result<()> {
    ensure!(
        Mode::Clusters.runs_on(envoy.version),
        "the benchmark needs Envoy {} or later: it measures the filter on clusters, too",
        Mode::Clusters.oldest_envoy()
    );
    ensure_programs()?;
    let noop = build_noop()?;
    let size = fs::metadata(module).context("there is no module")?.len();
    let cores = Cores::find()?;
    let facts = Facts::gather(envoy.version, size, cores)?;
    note_load(&facts);
    cores.take()?;
    let plan = if quick { Plan::quick() } else { Plan::full() };
    let scene = Scene { envoy, core: cores.envoy, noop: &noop.path };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let series = runtime.block_on(async {
        let mut shutdown = Shutdown::listen()?;
        tokio::select! {
            series = rounds::play(&plan, &scene) => series,
            // All processes end with the future that holds them.
            () = shutdown.requested() => bail!("interrupted before the end"),
        }
    })?;
    let bars = bars::rows(&series, size);
    let report = Report { facts, rounds: plan.rounds, bars, series };
    let path = write(&report, if quick { "quick" } else { "full" })?;
    print(&format!("\n{}", report.bars()))?;
    done("results", &path.display().to_string());
    Ok(())
}

/// A busy machine is no reason not to measure, but a reason not to believe.
fn note_load(facts: &Facts) {
    if facts.load_average.parse::<f64>().is_ok_and(|load| load > 0.5) {
        note(&format!("! the load average is {}: expect much noise", facts.load_average));
    }
}

/// Writes both forms, and returns the path of the one for readers.
fn write(report: &Report, name: &str) -> Result<PathBuf> {
    let directory = project_root().join("benches/results");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let page = directory.join(format!("{name}.md"));
    let json = report.json().context("the results are no JSON")?;
    let markdown = report.markdown(&format!("What the filter costs: a {name} run"));
    fs::write(directory.join(format!("{name}.json")), json)
        .and_then(|()| fs::write(&page, markdown))
        .with_context(|| format!("cannot write {}", page.display()))?;
    Ok(page)
}

impl Plan {
    /// Enough to see whether a change is a large one.
    fn quick() -> Self {
        let cells = SIZES.map(|size| Cell { size, connections: 16 }).to_vec();
        let span = Span { lead: Duration::from_millis(150), measured: Duration::from_millis(500) };
        Self { rounds: 5, cells, span }
    }

    fn full() -> Self {
        let sizes = SIZES.into_iter();
        let cells = sizes.flat_map(|size| [1, 16].map(|connections| Cell { size, connections }));
        let span = Span { lead: Duration::from_millis(300), measured: Duration::from_millis(1900) };
        Self { rounds: 8, cells: cells.collect(), span }
    }
}
