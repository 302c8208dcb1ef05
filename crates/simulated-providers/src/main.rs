//! Serves the simulated providers until Ctrl-C.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use clap::Parser;
use simulated_providers::{Addresses, serve};

/// Serves simulated LLM providers until Ctrl-C
#[derive(Parser)]
struct Arguments {
    /// The address of this machine to listen on
    #[arg(long, default_value_t = IpAddr::from(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve(Addresses::on(Arguments::parse().host)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
