//! What is counted and logged goes to Envoy now and then, and not with every request.

use wasm_host::{Answer, Attempt, Response};

use super::messages::{claude_by_header, message};
use super::support::World;

const HITS: &str =
    "pool=.=anthropic;.;outcome=.=hit;.;source=.=claude;.;session_affinity_requests_total";

/// Ticks of a filter on the cluster in ten seconds; that in the listener has one a second.
const TICKS: usize = 100;

fn serve(_: &Attempt) -> Answer {
    Answer::Response(message())
}

fn play(world: &mut World, session: &str, answer: impl FnMut(&Attempt) -> Answer) {
    world.gateway.play(&claude_by_header(session, 512), answer).unwrap();
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn what_was_counted_is_handed_over_when_the_vm_ends() {
    let mut world = World::new(true, |_| {});
    (0..3).for_each(|_| play(&mut world, "1", serve));
    assert_eq!(world.gateway.vm().counter(HITS), 0);
    let vm = world.gateway.end().unwrap();
    assert_eq!(vm.counter(HITS), 2);
    let attempts = "pool=.=anthropic;.;credential=.=anthropic-a;.;class=.=success;.;\
                    session_affinity_attempts_total";
    assert_eq!(vm.counter(attempts), 3, "the filter on the cluster counts for itself");
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn a_vm_in_which_nothing_happens_calls_the_host_every_ten_seconds_at_most() {
    let mut world = World::new(true, |_| {});
    play(&mut world, "1", serve);
    // All is handed over, and how things are was looked at.
    (0..TICKS).for_each(|_| world.gateway.tick().unwrap());
    world.gateway.take_cost();
    let mut busy = 0;
    for _ in 0..TICKS {
        world.gateway.tick().unwrap();
        busy += usize::from(world.gateway.take_cost().call_count() > 0);
    }
    // The listener is ticked as often as the cluster here: every tenth of its ticks it looks.
    assert!((1..=TICKS / 10 + 1).contains(&busy), "{busy}");
}

#[test]
#[ignore = "needs the module: cargo xtask dist"]
fn a_flood_of_changes_writes_a_few_lines_a_second_and_says_how_many_are_missing() {
    let mut world = World::new(true, |_| {});
    for session in 0..60 {
        play(&mut world, &session.to_string(), |_| {
            Answer::Response(Response::new(503, [("content-type", "text/plain")], b"no"))
        });
    }
    let lines = |world: &World| world.gateway.vm().log().len();
    let written = lines(&world);
    // Each role of the filter has its own.
    assert!((20..=40).contains(&written), "{written}");
    (0..10).for_each(|_| world.gateway.tick().unwrap());
    let log = world.gateway.vm().log();
    assert!(log[written..].iter().any(|line| line.ends_with(" more changes in one second")));
    assert!(log.len() <= written + 2, "{log:#?}");
}
