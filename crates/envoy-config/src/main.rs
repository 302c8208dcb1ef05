//! Prints a complete configuration of Envoy for a list of pools, where the project is not checked
//! out.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use envoy_config::command::{Arguments, Module};
use envoy_harness::output::Closed;
use envoy_harness::progress::note;
use envoy_harness::{Envoy, find_here, find_in};

const NAME: &str = "session-affinity-config";

/// Prints a complete configuration of Envoy, after Envoy itself has accepted it, if there is one
#[derive(Parser)]
#[command(name = NAME, version)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
}

fn main() -> ExitCode {
    match Command::parse().arguments.run(NAME, find, Module::Present) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Closed>() => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// An Envoy is only downloaded for whoever asks for a version.
fn find(requested: Option<&str>) -> Result<Option<Envoy>> {
    match requested {
        Some(_) => find_in(&cache()?.join("session-affinity/envoy"), requested).map(Some),
        None => find_here(),
    }
}

/// Where programs keep what they can download again.
fn cache() -> Result<PathBuf> {
    let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    match given.filter(|path| path.is_absolute()) {
        Some(cache) => Ok(cache),
        None => {
            let home = std::env::home_dir().context("HOME is not set: set it, or ENVOY")?;
            Ok(home.join(".cache"))
        }
    }
}
