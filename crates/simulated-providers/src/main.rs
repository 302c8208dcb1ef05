//! Serves the simulated providers until Ctrl-C.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

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
    match serve_with(Arguments::parse().config()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    fn config(self) -> Config {
        let mut config = Config { addresses: Addresses::on(self.host), ..Config::default() };
        for (group, members) in self.group {
            let members = config.accounts.iter_mut().filter(|it| members.contains(&it.name));
            members.for_each(|account| account.group.clone_from(&group));
        }
        config
    }
}

fn group(text: &str) -> Result<(String, Vec<String>), String> {
    let (name, members) = text.split_once('=').ok_or("expected `acme=openai-a,openai-b`")?;
    Ok((name.to_owned(), members.split(',').map(str::to_owned).collect()))
}
