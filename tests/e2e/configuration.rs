//! The configuration of the filter, and changes to it.

use anyhow::Result;
use envoy_harness::gateway::Gateway;
use envoy_harness::{Encoding, Fixture, Mode, Process, Update};
use serde_json::{Value, json};

use crate::support::{envoy, gateway_with, served_in};

fn spoil(filter: &mut Value) {
    filter["routing"]["strategy"] = json!("random");
    filter["pools"][2]["credentials"][0]["priority"] = json!("high");
    filter["typo"] = json!(1);
}

const PROBLEMS: [&str; 3] = [
    "routing.strategy: expected round-robin, fill-first, consistent or headroom, found \"random\"",
    "pools[2].credentials[0].priority: expected an integer, found a string",
    "typo: unknown key",
];

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn the_configuration_may_be_a_struct_or_a_string() -> Result<()> {
    for encoding in [Encoding::Struct, Encoding::StringValue] {
        let gateway = gateway_with(|fixture| Ok(fixture.filter_configuration_as(encoding))).await?;
        assert_eq!(served_in(&gateway, "1").await?.outcome, "miss");
        gateway.stop().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_bad_configuration_is_refused_with_all_its_problems() -> Result<()> {
    let envoy = envoy()?;
    let fixture =
        Fixture::shipped(Mode::of_demo_on(envoy.version))?.on_free_ports().edit_filter(spoil)?;
    let providers =
        simulated_providers::Providers::start(simulated_providers::Config::default()).await?;
    let refusal =
        Process::start_expecting_refusal(&envoy, &fixture, &Gateway::environment(&providers))
            .await?;
    for problem in PROBLEMS {
        assert!(refusal.mentions(problem), "{problem} is not in {refusal}");
    }
    providers.stop().await;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn an_update_keeps_bindings_and_a_bad_one_changes_nothing() -> Result<()> {
    let gateway = gateway_with(|fixture| Ok(fixture.with_listeners_from_file())).await?;
    let before = served_in(&gateway, "1").await?;
    assert_eq!(before.credential, "anthropic-a");

    let fixture = gateway.fixture()?.with_listeners_from_file();
    let reordered = fixture.clone().edit_filter(|filter| {
        filter["pools"][0]["credentials"].as_array_mut().unwrap().reverse();
        filter["routing"]["session_affinity_ttl"] = json!("2h");
    })?;
    assert_eq!(gateway.envoy.update_listener(&reordered).await?, Update::Accepted);
    let after = served_in(&gateway, "1").await?;
    assert_eq!((after.outcome.as_str(), &after.credential), ("hit", &before.credential));

    let Update::Rejected(lines) =
        gateway.envoy.update_listener(&fixture.edit_filter(spoil)?).await?
    else {
        panic!("Envoy accepted a bad configuration");
    };
    let complaint = lines.join("\n");
    for problem in PROBLEMS {
        assert!(complaint.contains(problem), "{problem} is not in {complaint}");
    }
    assert_eq!(
        served_in(&gateway, "1").await?.outcome,
        "hit",
        "the old configuration still serves"
    );
    gateway.stop().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn an_update_that_drains_and_removes_credentials_works_at_once() -> Result<()> {
    let gateway = gateway_with(|fixture| Ok(fixture.with_listeners_from_file())).await?;
    assert_eq!(served_in(&gateway, "1").await?.credential, "anthropic-a");
    assert_eq!(served_in(&gateway, "2").await?.credential, "anthropic-b");

    let changed = gateway.fixture()?.with_listeners_from_file().edit_filter(|filter| {
        let credentials = filter["pools"][0]["credentials"].as_array_mut().unwrap();
        credentials[0]["state"] = json!("drain");
        credentials.remove(1);
    })?;
    assert_eq!(gateway.envoy.update_listener(&changed).await?, Update::Accepted);
    assert_eq!(
        served_in(&gateway, "1").await?.credential,
        "anthropic-a",
        "bound sessions stay while it drains"
    );
    let moved = served_in(&gateway, "2").await?;
    assert_eq!((moved.outcome.as_str(), moved.credential.as_str()), ("rebind", "anthropic-c"));
    assert_eq!(
        served_in(&gateway, "3").await?.credential,
        "anthropic-c",
        "no new session goes to a drained credential"
    );
    gateway.stop().await?;
    Ok(())
}
