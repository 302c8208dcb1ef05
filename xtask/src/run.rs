//! `cargo xtask run`: the set-up of `envoy.yaml`, for `curl` and for real clients, until Ctrl-C. An
//! Envoy that is too old for it runs `examples/next-request.yaml`, which is the same but for
//! failover.
//!
//! Envoy listens where `envoy.yaml` says, or where the command line says; the simulated providers
//! take free ports. So several checkouts can run side by side.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result, bail};
use clap::Args;
use envoy_harness::gateway::Gateway;
use envoy_harness::output::print;
use envoy_harness::progress::{Step, note};
use simulated_providers::{Shutdown, Vendor};

use crate::{EnvoyChoice, prepare};

const WORKERS: u32 = 2;

/// Where Envoy listens.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    envoy: EnvoyChoice,
    /// Where Envoy listens for clients; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([127, 0, 0, 1], 10000)))]
    listen: SocketAddr,
    /// Where the operator's page listens; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([127, 0, 0, 1], 9902)))]
    operator: SocketAddr,
    /// Where the admin interface of Envoy listens; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([127, 0, 0, 1], 9901)))]
    admin: SocketAddr,
}

/// Serves until Ctrl-C or SIGTERM, and shows the access log.
///
/// # Errors
/// If an address is taken, Envoy does not start, or it ends by itself.
pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    arguments.check_addresses()?;
    let envoy = prepare::envoy_and_module(arguments.envoy.version())?;
    // Again, because the build may have taken its time: two Envoys can share a port, each with a
    // part of the connections.
    arguments.check_addresses()?;
    let mut shutdown = Shutdown::listen()?;
    let step = Step::start("gateway");
    step.say("starting Envoy and the providers");
    let mut gateway = tokio::select! {
        () = shutdown.requested() => return Ok(()),
        gateway = Gateway::start(&envoy, WORKERS, |fixture| {
            Ok(fixture.listening_on(arguments.listen, arguments.operator, arguments.admin))
        }) => gateway?,
    };
    step.done("running, Ctrl-C ends it");

    let served = serve(&mut gateway, &mut shutdown).await;
    let stopped = gateway.stop().await;
    served?;
    stopped?;
    note("\n✓ ended");
    Ok(())
}

/// Returns when a signal asks for the end, when nothing reads the log any more, or when Envoy has
/// ended.
async fn serve(gateway: &mut Gateway, shutdown: &mut Shutdown) -> Result<()> {
    let mut log = gateway.envoy.follow_log();
    print(&format!(
        "\n{}\n{}\n\nAccess log:\n",
        addresses(gateway),
        examples(gateway.envoy.address())
    ))?;
    loop {
        tokio::select! {
            () = shutdown.requested() => return Ok(()),
            ended = gateway.envoy.ended() => return ended,
            Some(lines) = log.next() => {
                for line in lines.iter().filter(|line| !is_chatter(line)) {
                    print(&format!("{line}\n"))?;
                }
            }
        }
    }
}

/// Envoy's own log shares the terminal with the access log. Only its warnings and errors are worth
/// showing.
fn is_chatter(line: &str) -> bool {
    line.contains("][info][")
}

impl Arguments {
    fn check_addresses(&self) -> Result<()> {
        check_address(self.listen, "--listen")?;
        check_address(self.operator, "--operator")?;
        check_address(self.admin, "--admin")
    }
}

fn check_address(address: SocketAddr, option: &str) -> Result<()> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => bail!(
            "{address} is taken: end the program that listens there, or choose another address \
             with {option}"
        ),
        Err(error) => Err(error).with_context(|| format!("cannot listen on {address}")),
    }
}

fn addresses(gateway: &Gateway) -> String {
    let envoy = [("Envoy", gateway.envoy.address()), ("admin", gateway.envoy.admin())];
    let page = gateway.envoy.operator().map(|address| ("operator", address));
    let envoy: Vec<_> = (envoy.into_iter().chain(page))
        .map(|(name, address)| format!("  {name:<10} http://{address}"))
        .collect();
    let providers = Vendor::ALL.map(|vendor| {
        let accounts = gateway.providers.accounts().iter();
        let accounts = accounts.filter(|account| account.vendor == vendor);
        let names: Vec<_> = accounts.map(|account| account.name.as_str()).collect();
        let address = gateway.providers.address(vendor);
        format!("  {:<10} http://{address}  simulated: {}", vendor.as_str(), names.join(", "))
    });
    [envoy.as_slice(), &providers].concat().join("\n")
}

fn examples(address: SocketAddr) -> String {
    EXAMPLES.replace("ADDRESS", &address.to_string()).replace("NAMES", &response_lines())
}

/// The names of all simulated responses, in lines for a narrow terminal.
fn response_lines() -> String {
    let mut lines: Vec<String> = Vec::new();
    for name in simulated_providers::response_names() {
        match lines.last_mut().filter(|line| line.len() + name.len() < 76) {
            Some(line) => line.push_str(&format!(", {name}")),
            None => lines.push(format!("  {name}")),
        }
    }
    lines.join(",\n")
}

const EXAMPLES: &str = r#"
Try this twice. The first time the log says `outcome=miss`, the second time
`outcome=hit`, with the same credential:

  curl -i ADDRESS/v1/messages \
    -H 'content-type: application/json' -H 'x-session-id: my-session' \
    -d '{"model":"claude-sonnet-5","max_tokens":64,
         "messages":[{"role":"user","content":"Hello"}]}'

A session without an id is recognized by how it was opened, also in a stream:

  curl -i ADDRESS/v1/chat/completions \
    -H 'content-type: application/json' \
    -d '{"model":"gpt-5.6","stream":true,
         "messages":[{"role":"user","content":"Why is the sky blue?"}]}'

The providers fail on request. Another credential serves the same request
(since Envoy 1.39):

  curl -i ADDRESS/v1/messages -H 'content-type: application/json' \
    -H 'x-simulate: account=anthropic-a,anthropic-b; status=429' \
    -d '{"model":"claude-sonnet-5","max_tokens":64,
         "messages":[{"role":"user","content":"Hello"}]}'

Put any of these in place of `status=429`, and look for `then=` and `out=` in
the log. Without `account=` every credential fails alike:

  status=529; retry-after=7     an error status
  response=codex-usage-limit    the error of a real provider, named below
  wait=60                       with `response`: when the limit ends, in seconds
  model=opus                    with any other: only for this model
  drop, stale                   no response; the same on a kept connection only
  first-byte=2s                 late, alone or with any other
  cut=3, end=3, silent=3        a stream breaks, ends or stops after 3 events
  concurrency=2                 429 to more than two requests at once

NAMES"#;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn the_default_addresses_are_those_of_envoy_yaml() {
        let Arguments { listen, operator, admin, .. } = CommandLine::parse_from(["run"]).arguments;
        let yaml = include_str!("../../envoy.yaml");
        for address in [listen, operator, admin] {
            let (host, port) = (address.ip(), address.port());
            assert!(yaml.contains(&format!("address: {host}, port_value: {port}")), "{address}");
        }
    }

    #[test]
    fn an_address_that_is_taken_is_named_with_the_remedy() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(
            check_address(address, "--listen").unwrap_err().to_string(),
            format!(
                "{address} is taken: end the program that listens there, or choose another \
                 address with --listen"
            )
        );
    }

    #[test]
    fn the_examples_fit_a_narrow_terminal() {
        let examples = examples(SocketAddr::from(([127, 0, 0, 1], 65535)));
        assert!(examples.lines().all(|line| line.chars().count() <= 80), "{examples}");
    }
}
