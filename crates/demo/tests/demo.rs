//! The demo, small, on a real Envoy: what it promises people is asserted here.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use anyhow::Result;
use demo::limit::Course;
use demo::replay::Run;
use demo::{Size, compare, limit};
use envoy_harness as envoy;
use simulated_providers::Providers;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Envoy: cargo xtask test"]
async fn affinity_keeps_conversations_together_and_spreads_them_and_saves_tokens() -> Result<()> {
    let size = Size { conversations: 20, turns: 3 };
    let comparison = compare(&envoy::find(None)?, size).await?;
    comparison.check()?;

    let accounts = Providers::demo_accounts();
    let all: BTreeSet<&str> = accounts.iter().map(|account| account.name.as_str()).collect();
    let used = |run: &Run| run.turns().map(|turn| turn.credential.clone()).collect::<BTreeSet<_>>();
    assert_eq!(used(&comparison.with).iter().map(String::as_str).collect::<BTreeSet<_>>(), all);

    // The same traffic, so the same prompts; only what is cached of them differs.
    let sum = |run: &Run| {
        let turns = run.turns().map(|turn| (turn.prompt_tokens, turn.cached_tokens));
        turns.fold((0, 0), |sum, turn| (sum.0 + turn.0, sum.1 + turn.1))
    };
    let (with, without) = (sum(&comparison.with), sum(&comparison.without));
    assert_eq!(with.0, without.0);
    assert!(with.1 > without.1, "{with:?} {without:?}");

    let outcomes =
        |run: &Run| run.turns().map(|turn| turn.outcome.clone()).collect::<BTreeSet<_>>();
    assert_eq!(outcomes(&comparison.without), ["none".to_owned()].into());
    assert!(
        outcomes(&comparison.with).is_subset(&["miss", "inherit", "hit"].map(str::to_owned).into())
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Envoy: cargo xtask test"]
async fn clients_do_not_notice_that_a_credential_is_limited_and_their_sessions_come_home()
-> Result<()> {
    let envoy = envoy::find(None)?;
    if !limit::is_possible(&envoy) {
        return Ok(());
    }
    let limit = limit::play(&envoy, Size { conversations: 8, turns: 6 }).await?;
    limit.check()?;

    // Every 429 cost one attempt, and nobody else failed.
    assert_eq!(limit.failovers().count(), limit.refused);
    assert!(limit.failovers().all(|turn| turn.failed == [limit.credential.as_str()]));

    // Whoever lives on the limited credential left, and nobody else did.
    let left = |course: &Course| course.credentials().len() > 1;
    assert!(
        limit
            .conversations
            .iter()
            .all(|course| left(course) == (course.home() == Some(&limit.credential)))
    );
    Ok(())
}
