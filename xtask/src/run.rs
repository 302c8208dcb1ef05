//! `cargo xtask run`: the set-up of `envoy.yaml` on its own ports, for `curl` and for real clients,
//! until Ctrl-C. An Envoy that is too old for it runs `examples/next-request.yaml`, which is the
//! same but for failover.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result, bail};

use envoy_harness::Envoy;
use envoy_harness::gateway::Gateway;
use envoy_harness::progress::Step;
use simulated_providers::Shutdown;
use simulated_providers::{Addresses, Vendor};

/// As in `envoy.yaml`, with what listens there.
const ENVOY_PORTS: [(u16, &str); 2] = [(10000, "Envoy"), (9901, "Envoy's admin interface")];

const WORKERS: u32 = 2;

/// Serves until Ctrl-C or SIGTERM, and shows the access log.
///
/// # Errors
/// If a port is taken, Envoy does not start, or it ends by itself.
pub(crate) async fn run(envoy: &Envoy) -> Result<()> {
    check_ports()?;
    let mut shutdown = Shutdown::listen()?;
    let step = Step::start("gateway");
    step.say("starting Envoy and the providers");
    let mut gateway = tokio::select! {
        () = shutdown.requested() => return Ok(()),
        gateway = Gateway::start_on_shipped_ports(envoy, WORKERS) => gateway?,
    };
    step.done("running, Ctrl-C ends it");
    println!("\n{}\n{EXAMPLES}\n\nAccess log:", places(&gateway));

    let served = serve(&mut gateway, &mut shutdown).await;
    let stopped = gateway.stop().await;
    served?;
    stopped?;
    eprintln!("\n✓ ended");
    Ok(())
}

/// Returns when it is asked to end, or Envoy has ended.
async fn serve(gateway: &mut Gateway, shutdown: &mut Shutdown) -> Result<()> {
    let mut log = gateway.envoy.follow_log();
    loop {
        tokio::select! {
            () = shutdown.requested() => return Ok(()),
            ended = gateway.envoy.ended() => return ended,
            Some(lines) = log.next() => lines.iter().filter(|line| !is_chatter(line)).for_each(|line| println!("{line}")),
        }
    }
}

/// Envoy's own log shares the terminal with the access log. Warnings and errors of it are worth
/// showing.
fn is_chatter(line: &str) -> bool {
    line.contains("][info][")
}

/// Looked at before anything starts, because two Envoys may well share a port, each with a part of
/// the connections.
fn check_ports() -> Result<()> {
    let providers = Vendor::ALL
        .map(|vendor| (Addresses::default().of(vendor).port(), format!("simulated {vendor}")));
    let envoy = ENVOY_PORTS.map(|(port, who)| (port, who.to_owned()));
    envoy.into_iter().chain(providers).try_for_each(|(port, who)| check_port(port, &who))
}

fn check_port(port: u16, who: &str) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!(
                "port {port} is taken, and envoy.yaml has it for {who}: end the program that listens on {address}"
            )
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen on {address} for {who}")),
    }
}

fn places(gateway: &Gateway) -> String {
    let envoy = [("Envoy", gateway.envoy.address()), ("admin", gateway.envoy.admin())];
    let mut lines: Vec<_> =
        envoy.map(|(name, address)| format!("  {name:<10} http://{address}")).to_vec();
    for vendor in Vendor::ALL {
        let accounts =
            gateway.providers.accounts().iter().filter(|account| account.vendor == vendor);
        let names: Vec<_> = accounts.map(|account| account.name.as_str()).collect();
        let address = gateway.providers.address(vendor);
        lines.push(format!(
            "  {:<10} http://{address}  simulated: {}",
            vendor.as_str(),
            names.join(", ")
        ));
    }
    lines.join("\n")
}

const EXAMPLES: &str = r#"
Try this twice: it is decided by `outcome=miss` and then by `outcome=hit`, on the same account.

  curl -i 127.0.0.1:10000/v1/messages \
    -H 'content-type: application/json' -H 'x-session-id: my-conversation' \
    -d '{"model":"claude-sonnet-5","max_tokens":64,"messages":[{"role":"user","content":"Hello"}]}'

A conversation without an id is known by its first messages, also in a stream:

  curl -i 127.0.0.1:10000/v1/chat/completions -H 'content-type: application/json' \
    -d '{"model":"gpt-5.6","stream":true,"messages":[{"role":"user","content":"Why is the sky blue?"}]}'

The providers fail when they are asked to. Another account serves the same request (since Envoy 1.39):

  curl -i 127.0.0.1:10000/v1/messages \
    -H 'content-type: application/json' -H 'x-simulate: account=anthropic-a,anthropic-b; status=429; retry-after=7' \
    -d '{"model":"claude-sonnet-5","max_tokens":64,"messages":[{"role":"user","content":"Hello"}]}'"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_are_those_of_envoy_yaml() {
        let yaml = include_str!("../../envoy.yaml");
        for (port, _) in ENVOY_PORTS {
            assert!(yaml.contains(&format!("address: 127.0.0.1, port_value: {port}")), "{port}");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(
            check_port(port, "simulated openai").unwrap_err().to_string(),
            format!(
                "port {port} is taken, and envoy.yaml has it for simulated openai: \
                 end the program that listens on 127.0.0.1:{port}"
            )
        );
    }
}
