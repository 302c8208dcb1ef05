//! A small demo on a real Envoy: it keeps its promises.
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
async fn affinity_keeps_sessions_together_and_spreads_them_and_saves_tokens() -> Result<()> {
    let size = Size { sessions: 20, turns: 3 };
    let comparison = compare(&envoy::find(None)?, size).await?;
    comparison.check()?;

    let accounts = Providers::demo_accounts();
    let all: BTreeSet<&str> = accounts.iter().map(|account| account.name.as_str()).collect();
    let used = comparison.with.turns().map(|turn| turn.credential.as_str());
    assert_eq!(used.collect::<BTreeSet<_>>(), all);

    // The same traffic, so the same prompts; only what is cached of them differs.
    let (with, without) = (sum(&comparison.with), sum(&comparison.without));
    assert_eq!(with.0, without.0);
    assert!(with.1 > without.1, "{with:?} {without:?}");

    assert_eq!(outcomes(&comparison.without), ["none"].into());
    assert!(outcomes(&comparison.with).is_subset(&["miss", "inherit", "hit"].into()));
    Ok(())
}

/// The tokens of all prompts, and how many of them were cached.
fn sum(run: &Run) -> (u64, u64) {
    let turns = run.turns().map(|turn| (turn.prompt_tokens, turn.cached_tokens));
    turns.fold((0, 0), |sum, turn| (sum.0 + turn.0, sum.1 + turn.1))
}

fn outcomes(run: &Run) -> BTreeSet<&str> {
    run.turns().map(|turn| turn.outcome.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Envoy: cargo xtask test"]
async fn clients_do_not_notice_that_a_credential_is_limited_and_their_sessions_return() -> Result<()>
{
    let envoy = envoy::find(None)?;
    if !limit::is_possible(&envoy) {
        return Ok(());
    }
    let limit = limit::play(&envoy, Size { sessions: 8, turns: 6 }).await?;
    limit.check()?;

    // Every 429 cost one attempt, and no other credential failed.
    assert_eq!(limit.failovers().count(), limit.refused);
    assert!(limit.failovers().all(|turn| turn.failed == [limit.credential.as_str()]));

    // The sessions whose home is the limited credential left it, and no other session moved.
    assert!(
        limit
            .sessions
            .iter()
            .all(|course| left_home(course) == (course.home() == Some(&limit.credential)))
    );
    Ok(())
}

fn left_home(course: &Course) -> bool {
    course.credentials().len() > 1
}
