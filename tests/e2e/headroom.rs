//! Limits that responses tell, and requests in flight, on a real Envoy.

use std::time::Duration;

use anyhow::Result;
use envoy_harness::gateway::Gateway;
use serde_json::json;
use simulated_providers::Fault;
use tokio::time::sleep;

use crate::load::{check_workers, send_over};
use crate::support::{body, count_by, gateway, message, post, send_in, served_in};

const USED: (&str, &str) = ("credential_limit_used_percent", "window");
const IN_FLIGHT: (&str, &str) = ("credential_requests_in_flight", "credential");

/// Which credential serves so many new sessions.
async fn starts(gateway: &Gateway, name: &str, count: usize) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for session in 0..count {
        all.push(served_in(gateway, &format!("{name}{session}")).await?.credential);
    }
    all.sort();
    Ok(all)
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_credential_that_nears_its_limit_keeps_its_sessions_and_gets_no_new_one() -> Result<()> {
    let gateway = gateway(1, |filter| {
        filter["routing"] = json!({"strategy": "headroom"});
        let credentials = filter["pools"].as_array_mut();
        for pool in credentials.into_iter().flatten().filter(|pool| pool["name"] == "anthropic") {
            pool["credentials"][1]["max_concurrent"] = json!(1);
        }
    })
    .await?;
    let warned = Fault::response("anthropic-session-warning");
    gateway.providers.fault("anthropic-a", warned, Some(1))?;
    assert_eq!(served_in(&gateway, "old").await?.credential, "anthropic-a");
    let others = ["anthropic-b", "anthropic-b", "anthropic-c", "anthropic-c"];
    assert_eq!(starts(&gateway, "spared", 4).await?, others);
    assert_eq!(served_in(&gateway, "old").await?.credential, "anthropic-a", "it is warm");

    // `b` takes one at once, and has it: the count is seen by all workers, and in Envoy's stats.
    let slow = Fault::SlowFirstByte(Duration::from_secs(25));
    gateway.providers.fault("anthropic-b", slow, Some(1))?;
    let before = gateway.providers.requests().len();
    let held = send_in(&gateway, "spared0");
    let meanwhile = async {
        while gateway.providers.requests().len() <= before {
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(starts(&gateway, "full", 3).await?, ["anthropic-c"; 3]);
        let is_seen = gateway.envoy.wait_for_stats("", |stats| {
            count_by(stats, IN_FLIGHT) == [("anthropic-b".to_owned(), 1)]
                && count_by(stats, USED) == [("5h".to_owned(), 94), ("7d".to_owned(), 41)]
        });
        is_seen.await.map(drop)
    };
    let (held, meanwhile) = tokio::join!(held, meanwhile);
    meanwhile?;
    assert_eq!(held?.status, 200);
    assert!(starts(&gateway, "free", 3).await?.contains(&"anthropic-b".to_owned()));
    let log = gateway.stop().await?.join("\n");
    let said = "sparing begins: pool=anthropic credential=anthropic-a used=94%";
    assert!(log.contains(said), "{log}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs Envoy: cargo xtask test"]
async fn a_hundred_sessions_that_start_at_once_spread_over_four_credentials() -> Result<()> {
    let gateway = gateway(2, |filter| {
        filter["routing"] = json!({"strategy": "headroom"});
        let pools = filter["pools"].as_array_mut().into_iter().flatten();
        for pool in pools.filter(|pool| pool["name"] == "anthropic") {
            let credentials = pool["credentials"].as_array_mut().unwrap();
            credentials.push(json!({"id": "anthropic-d", "cluster": "anthropic_c"}));
        }
    })
    .await?;
    let request = |session: u64| {
        let request = post("/v1/messages").header("x-session-id", session.to_string());
        Ok(request.body(body(&message("hello")))?)
    };
    let tally = send_over(100, gateway.envoy.address(), 0..100, request).await?;
    assert_eq!(tally.outcome("miss"), 100, "{tally:?}");
    let starts = tally.credentials();
    // No more than 1.3 times their share.
    assert!(starts.len() == 4 && starts.values().all(|&count| count <= 32), "{starts:?}");
    check_workers(&gateway.envoy, 2).await?;
    gateway.stop().await?;
    Ok(())
}
