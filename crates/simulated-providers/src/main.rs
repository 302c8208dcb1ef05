//! Serves the simulated providers until Ctrl-C.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use simulated_providers::{Addresses, Config, serve_with};

/// Serves simulated LLM providers until Ctrl-C
#[derive(Parser)]
struct Arguments {
    /// The address of this machine to listen on
    #[arg(long, default_value_t = IpAddr::from(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Accounts that share prompt caches and state, as `acme=openai-a,openai-b`
    #[arg(long, value_name = "GROUP=ACCOUNT,…", value_parser = group)]
    group: Vec<(String, Vec<String>)>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let addresses = Addresses::on(arguments.host);
    let mut config = Config { addresses, ..Config::default() };
    for (group, members) in arguments.group {
        for member in members {
            let account = config.accounts.iter_mut().find(|account| account.name == member);
            let account = account.with_context(|| format!("there is no account `{member}`"))?;
            account.group.clone_from(&group);
        }
    }
    serve_with(config).await
}

fn group(text: &str) -> Result<(String, Vec<String>)> {
    let (name, members) = text.split_once('=').context("expected `acme=openai-a,openai-b`")?;
    Ok((name.to_owned(), members.split(',').map(str::to_owned).collect()))
}
