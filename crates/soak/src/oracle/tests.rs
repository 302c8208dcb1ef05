//! Bad histories, one for every rule, and good ones that look bad.

mod state;

use super::*;
use crate::history::*;

const SETTING: Setting =
    Setting { fails_over: true, shares_port: false, has_keys: true, spares: false, envoy: NEW };
const NEW: Abilities = Abilities { retries_held: true, resets_with_error: true };
const A: Name = "anthropic-a";
const B: Name = "anthropic-b";
const C: Name = "anthropic-c";
const D: Name = "anthropic-d";

/// A request of a second, and its answer by the first arrival.
fn request(id: u64, began: u64) -> Request {
    Request {
        id,
        session: 1,
        pool: "anthropic",
        model: "m".to_owned(),
        named_by: "header",
        protocol: "HTTP/1.1",
        manner: "plain",
        body: Digest::of(b"question"),
        is_slow_upload: false,
        may_be_refused: false,
        refers_to: None,
        began: began * SECOND,
        ended: (began + 1) * SECOND,
        end: End::Answered(answer(200, 1)),
    }
}

fn answer(status: u16, arrival: u32) -> Answer {
    Answer {
        status,
        arrival: (arrival > 0).then_some(arrival),
        decision: "outcome=hit".to_owned(),
        body: Digest::of(b"answer"),
        is_whole: true,
        ..Answer::default()
    }
}

fn did(status: u16) -> Did {
    let body = Digest::of(b"answer");
    Did::Answered { status, retry_after: None, body, is_early: false, is_error_event: false }
}

fn told(seconds: u64) -> Did {
    let body = Digest::of(b"answer");
    let retry_after = Some(seconds);
    Did::Answered { status: 429, retry_after, body, is_early: false, is_error_event: false }
}

fn arrival(request: u64, number: u32, credential: Name, at: u64, did: Did) -> Arrival {
    Arrival {
        request: Some(request),
        number,
        port: Some(credential),
        key: Some(credential),
        leaks: vec![],
        model: "m".to_owned(),
        at: at * SECOND + u64::from(number) * 1000,
        is_reused: false,
        body: Some(Digest::of(b"question")),
        fault: None,
        lacks_state: false,
        used: None,
        did,
        done: at * SECOND + u64::from(number) * 1000 + 500,
    }
}

/// Requests with these arrivals, and counters that fit.
fn history(requests: Vec<Request>, arrivals: Vec<Arrival>) -> History {
    let ending = Ending {
        counted_requests: requests.len() as u64,
        counted_successes: requests
            .iter()
            .filter(|it| matches!(&it.end, End::Answered(answer) if answer.status < 400))
            .count() as u64,
        ..Ending::default()
    };
    History { requests, arrivals, ending, ..History::default() }
}

/// One request that is served well.
fn well() -> History {
    history(vec![request(1, 1)], vec![arrival(1, 1, A, 1, did(200))])
}

/// One request that ends with an error after these attempts.
fn fails(status: u16, attempts: &[(Name, Did)]) -> History {
    let mut request = request(1, 1);
    request.end = End::Answered(answer(status, attempts.len() as u32));
    let arrivals = attempts.iter().zip(1..);
    let arrivals = arrivals.map(|((name, did), number)| arrival(1, number, name, 1, did.clone()));
    history(vec![request], arrivals.collect())
}

fn broken(history: &History, setting: Setting) -> Vec<Rule> {
    let mut rules: Vec<_> =
        judge(history, setting).violations.iter().map(|violation| violation.rule).collect();
    rules.dedup();
    rules
}

#[track_caller]
fn check(history: &History, expected: &[Rule]) {
    assert_eq!(broken(history, SETTING), expected);
}

/// A change of one credential, in force from this second on.
fn update(at: u64, name: Name, state: State) -> Update {
    Update {
        began: at * SECOND,
        settled: at * SECOND,
        states: [(name, state)].into(),
        changes: vec![name],
        ..Update::default()
    }
}

#[test]
fn a_good_history_breaks_no_rule() {
    check(&well(), &[]);
    let verdict = judge(&well(), SETTING);
    assert!(verdict.tolerated.is_empty());
    assert!(verdict.judged.len() > 8);
}

#[test]
fn the_wrong_key_is_found() {
    let mut bad = well();
    bad.arrivals[0].key = Some(B);
    check(&bad, &[Rule::Key]);
    bad.arrivals[0].key = None;
    check(&bad, &[Rule::Key]);
    bad.updates.push(update(1, A, State::Draining));
    check(&bad, &[Rule::Key]);
    assert_eq!(broken(&bad, Setting { has_keys: false, ..SETTING }), []);
}

#[test]
fn what_leaks_upstream_is_found() {
    let mut bad = well();
    bad.arrivals[0].leaks = vec!["x-session-affinity-cluster".to_owned()];
    check(&bad, &[Rule::Internal]);
    let mut bad = well();
    let mut stray = arrival(1, 1, A, 1, did(200));
    stray.request = None;
    bad.arrivals.push(stray);
    check(&bad, &[Rule::Internal]);
}

#[test]
fn an_error_that_no_provider_caused_is_found() {
    let mut bad = well();
    bad.requests[0].end = End::Answered(answer(503, 0));
    bad.ending.counted_successes = 0;
    check(&bad, &[Rule::Cause]);
    bad.requests[0].end = End::Broken("reset".to_owned());
    check(&bad, &[Rule::Cause]);
    // Half a response that the provider had written whole.
    bad.requests[0].end = End::Answered(Answer { is_whole: false, ..answer(200, 1) });
    check(&bad, &[Rule::Cause]);
}

#[test]
fn an_error_while_another_credential_was_ready_is_found() {
    check(&fails(500, &[(A, did(500)), (B, did(500))]), &[Rule::Avoidable]);
    check(&fails(500, &[(A, did(500)), (B, did(500)), (C, did(500))]), &[]);
    let next_request = Setting { fails_over: false, ..SETTING };
    assert_eq!(broken(&fails(500, &[(A, did(500))]), next_request), []);
    // What the provider calls the client's fault is passed on.
    check(&fails(400, &[(A, did(400))]), &[]);
}

#[test]
fn a_refusal_while_a_credential_has_announced_nothing_is_found() {
    let refused = |limited: &[Name]| {
        let mut requests = vec![request(1, 5)];
        requests[0].end = End::Answered(answer(429, 0));
        let mut arrivals = Vec::new();
        for (name, id) in limited.iter().zip(2..) {
            let mut earlier = request(id, 2);
            earlier.session = id;
            earlier.end = End::Aborted("waiting");
            requests.push(earlier);
            arrivals.push(arrival(id, 1, name, 2, told(9)));
        }
        history(requests, arrivals)
    };
    check(&refused(&[A, B, C]), &[Rule::Refusal]);
    check(&refused(&[A, B, C, D]), &[]);
}

#[test]
fn a_refusal_in_place_of_a_dead_key_while_nobody_has_announced_anything_is_found() {
    let mut refused = request(1, 5);
    refused.end = End::Answered(answer(429, 0));
    let mut dead = history(vec![refused], vec![arrival(1, 1, A, 5, did(401))]);
    check(&dead, &[Rule::Refusal]);
    let mut earlier = request(2, 2);
    earlier.session = 2;
    earlier.end = End::Aborted("waiting");
    dead.requests.push(earlier);
    dead.arrivals.push(arrival(2, 1, B, 2, told(9)));
    check(&dead, &[]);
}

#[test]
fn a_request_that_hangs_is_found() {
    let mut bad = well();
    bad.requests[0].end = End::Hung;
    check(&bad, &[Rule::Hang]);
}

#[test]
fn a_move_without_a_reason_is_found() {
    let moves = |between: Did| {
        let mut other = request(9, 2);
        other.session = 2;
        let arrivals = vec![
            arrival(1, 1, A, 1, did(200)),
            arrival(9, 1, A, 2, between),
            arrival(2, 1, B, 4, did(200)),
        ];
        let mut history = history(vec![request(1, 1), request(2, 4)], arrivals);
        other.end = End::Aborted("waiting");
        history.requests.push(other);
        history
    };
    check(&moves(did(200)), &[Rule::Move]);
    check(&moves(did(503)), &[]);
    let mut updated = moves(did(200));
    updated.updates.push(update(3, A, State::Disabled));
    check(&updated, &[]);
}

#[test]
fn what_a_client_did_not_wait_for_is_learned_some_time_later() {
    let left = |end: End| {
        let mut other = request(9, 2);
        (other.session, other.end) = (2, end);
        let mut next = request(3, 4);
        (next.session, next.end) = (3, End::Answered(answer(200, 1)));
        let mut last = request(2, 6);
        last.ended += SECOND;
        let arrivals = vec![
            arrival(1, 1, A, 1, did(200)),
            arrival(9, 1, A, 2, did(503)),
            arrival(3, 1, A, 4, did(200)),
            arrival(2, 1, B, 6, did(200)),
        ];
        history(vec![request(1, 1), other, next, last], arrivals)
    };
    // Who was served after an answer that had arrived has ended what that began.
    check(&left(End::Answered(answer(503, 1))), &[Rule::Avoidable, Rule::Move]);
    check(&left(End::Aborted("waiting")), &[]);
}

#[test]
fn a_session_that_came_home_may_not_leave_again() {
    let arrivals = vec![
        arrival(1, 1, A, 1, did(503)),
        arrival(1, 2, B, 1, did(200)),
        // Long after, and A could have served.
        arrival(2, 1, B, 100, did(200)),
        arrival(3, 1, A, 102, did(200)),
    ];
    let mut first = request(1, 1);
    first.end = End::Answered(answer(200, 2));
    let all = history(vec![first, request(2, 100), request(3, 102)], arrivals);
    check(&all, &[Rule::Move]);
}

#[test]
fn a_request_into_a_told_cooldown_is_found() {
    let sent = |seconds: u64, at: u64| {
        let mut first = request(1, 1);
        first.end = End::Answered(answer(200, 2));
        let arrivals = vec![
            arrival(1, 1, A, 1, told(seconds)),
            arrival(1, 2, B, 1, did(200)),
            arrival(2, 1, A, at, did(200)),
        ];
        let mut second = request(2, at);
        second.session = 2;
        history(vec![first, second], arrivals)
    };
    check(&sent(4, 3), &[Rule::Told]);
    check(&sent(4, 6), &[]);
    check(&sent(14, 8), &[]);
    assert_eq!(judge(&sent(14, 8), SETTING).tolerated[&Tolerance::Probe], 1);
}

#[test]
fn a_limit_whose_client_leaves_is_learned_a_little_later() {
    let sent = |is_left: bool, at: u64| {
        let mut first = request(1, 1);
        first.end = End::Answered(Answer { is_left, ..answer(429, 1) });
        first.ended = SECOND + 3000;
        let mut second = request(2, at);
        second.session = 2;
        let arrivals = vec![arrival(1, 1, A, 1, told(9)), arrival(2, 1, A, at, did(200))];
        broken(&history(vec![first, second], arrivals), SETTING).contains(&Rule::Told)
    };
    assert!(sent(false, 2) && sent(true, 4));
    assert!(!sent(true, 2));
}

#[test]
fn a_limit_of_a_credential_that_goes_may_be_learned_by_nobody() {
    let mut all = history(vec![request(1, 1), request(2, 6)], vec![]);
    all.arrivals = vec![
        arrival(1, 1, A, 1, told(14)),
        arrival(1, 2, B, 1, did(200)),
        arrival(2, 1, A, 5, did(200)),
    ];
    all.requests[0].end = End::Answered(answer(200, 2));
    all.requests[1].session = 2;
    all.requests[1].began = 5 * SECOND;
    check(&all, &[Rule::Told]);
    let mut back = update(2, A, State::Absent);
    back.states.clear();
    all.updates = vec![update(1, A, State::Absent), back];
    check(&all, &[]);
}

#[test]
fn a_probe_with_content_ends_a_limit_even_if_it_is_cut() {
    let probed = |ended: Did| {
        let mut requests = vec![request(1, 1), request(2, 7), request(3, 9)];
        (requests[1].session, requests[2].session) = (2, 3);
        requests[0].end = End::Answered(answer(429, 1));
        requests[1].end = End::Aborted("in the response");
        let arrivals = vec![
            arrival(1, 1, A, 1, told(14)),
            arrival(2, 1, A, 7, ended),
            arrival(3, 1, A, 9, did(200)),
        ];
        let rules = broken(&history(requests, arrivals), Setting { fails_over: false, ..SETTING });
        rules.contains(&Rule::Told)
    };
    assert!(probed(Did::Broke));
    assert!(!probed(Did::Cut { has_content: true }));
}

#[test]
fn several_limits_of_a_credential_are_probed_as_one() {
    let probed = |at: &[u64]| {
        let mut requests = vec![request(1, 1), request(2, 4)];
        let mut arrivals = vec![arrival(1, 1, A, 1, told(14)), arrival(2, 1, A, 4, told(14))];
        for (at, id) in at.iter().zip(3..) {
            requests.push(request(id, *at));
            arrivals.push(arrival(id, 1, A, *at, told(14)));
        }
        for (request, number) in requests.iter_mut().zip(1..) {
            (request.session, request.end) = (number, End::Answered(answer(429, 1)));
        }
        requests[1].ended = 4 * SECOND + SECOND / 2;
        // Nobody waited for the first one.
        requests[0].end = End::Aborted("waiting");
        let rules = broken(&history(requests, arrivals), Setting { fails_over: false, ..SETTING });
        rules.contains(&Rule::Told)
    };
    assert!(!probed(&[6]));
    assert!(!probed(&[6, 11]));
    assert!(probed(&[5]));
    assert!(probed(&[6, 8]));
}

#[test]
fn what_is_repeated_on_a_broken_connection_was_decided_before() {
    let repeats = |second: Name| {
        let mut slow = request(2, 1);
        (slow.session, slow.ended) = (2, 5 * SECOND);
        slow.end = End::Answered(answer(200, 2));
        let mut limited = request(1, 2);
        limited.end = End::Answered(answer(200, 2));
        let mut first = arrival(2, 1, second, 1, Did::Broke);
        (first.is_reused, first.done) = (true, 4 * SECOND);
        let arrivals = vec![
            first,
            arrival(1, 1, A, 2, told(9)),
            arrival(1, 2, B, 2, did(200)),
            arrival(2, 2, A, 4, did(200)),
        ];
        history(vec![limited, slow], arrivals)
    };
    check(&repeats(A), &[]);
    check(&repeats(C), &[Rule::Told]);
}

#[test]
fn a_request_to_a_disabled_credential_is_found() {
    for (state, expected) in [
        (State::Disabled, &[Rule::Disabled][..]),
        (State::Absent, &[Rule::Disabled]),
        (State::Draining, &[Rule::Disabled]),
    ] {
        let mut later = well();
        later.requests[0] = request(1, 9);
        later.arrivals[0] = arrival(1, 1, A, 9, did(200));
        later.updates.push(update(2, A, state));
        check(&later, expected);
        later.updates[0].settled = 8 * SECOND;
        check(&later, &[]);
        assert_eq!(judge(&later, SETTING).tolerated[&Tolerance::UpdateRace], 1);
    }
}

#[test]
fn a_draining_credential_keeps_its_sessions() {
    let arrivals = vec![arrival(1, 1, A, 1, did(200)), arrival(2, 1, A, 9, did(200))];
    let mut all = history(vec![request(1, 1), request(2, 9)], arrivals);
    all.updates.push(update(4, A, State::Draining));
    check(&all, &[]);
}

#[test]
fn a_request_that_is_sent_twice_is_found() {
    let served_twice = |is_reused| {
        let mut all = fails(200, &[(A, Did::Broke), (A, did(200))]);
        all.arrivals[0].is_reused = is_reused;
        all
    };
    check(&served_twice(false), &[Rule::Repeat]);
    check(&served_twice(true), &[]);
    assert_eq!(judge(&served_twice(true), SETTING).tolerated[&Tolerance::Stale], 1);
    let mut unused = served_twice(false);
    let decision = "outcome=hit then=anthropic-a(stale,transient)".to_owned();
    unused.requests[0].end = End::Answered(Answer { decision, ..answer(200, 2) });
    check(&unused, &[]);
    assert_eq!(judge(&unused, SETTING).tolerated[&Tolerance::Unused], 1);
    // A client that left did not hear it, and the log did.
    unused.requests[0].end = End::Aborted("waiting");
    check(&unused, &[Rule::Repeat]);
    let line = "then=anthropic-a(stale,transient) flags=DR".to_owned();
    unused.ending.access_log.insert(1, line);
    check(&unused, &[]);
    // Its credential was being removed: nobody there knew that it had been asked.
    let mut removed = served_twice(false);
    removed.updates = vec![update(1, A, State::Absent)];
    check(&removed, &[]);
    let four = [(A, did(500)), (B, did(500)), (C, did(500)), (D, did(500))];
    check(&fails(500, &four), &[Rule::Repeat]);
}

#[test]
fn what_is_repeated_after_the_first_byte_is_found() {
    let mut bad = fails(200, &[(A, Did::Cut { has_content: true }), (B, did(200))]);
    bad.requests[0].end = End::Answered(Answer { is_whole: false, ..answer(200, 1) });
    check(&bad, &[Rule::FirstByte]);
}

#[test]
fn bodies_that_change_are_found() {
    let mut bad = well();
    bad.arrivals[0].body = Some(Digest::of(b"questioN"));
    check(&bad, &[Rule::Body]);
    let mut bad = well();
    bad.requests[0].end = End::Answered(Answer { body: Digest::of(b"answeR"), ..answer(200, 1) });
    check(&bad, &[Rule::Body]);
    let mut bad = well();
    bad.arrivals[0].did = Did::Cut { has_content: true };
    check(&bad, &[Rule::Body]);
}

#[test]
fn counters_that_differ_are_found() {
    for counted in [0, 2] {
        let mut bad = well();
        bad.ending.counted_requests = counted;
        check(&bad, &[Rule::Counters]);
        let mut bad = well();
        bad.ending.counted_successes = counted;
        check(&bad, &[Rule::Counters]);
    }
}

#[test]
fn memory_that_grows_and_what_is_left_are_found() {
    let mut bad = well();
    bad.ending.memory_before = 100 << 20;
    bad.ending.memory_after = 200 << 20;
    check(&bad, &[Rule::Memory]);
    bad.ending.memory_after = 120 << 20;
    check(&bad, &[]);
    bad.ending.left = vec![("cluster.a.upstream_rq_active".to_owned(), 1)];
    check(&bad, &[Rule::Left]);
    bad.ending.left.clear();
    bad.ending.complaints = vec!["[error][wasm] it broke".to_owned()];
    check(&bad, &[Rule::Log]);
}

#[test]
fn every_tolerance_is_counted() {
    let used = |edit: &dyn Fn(&mut History)| {
        let mut all = well();
        all.requests[0].end = End::Answered(answer(503, 0));
        all.ending.counted_successes = 0;
        edit(&mut all);
        let verdict = judge(&all, SETTING);
        assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
        verdict.tolerated.into_keys().collect::<Vec<_>>()
    };
    let listener =
        Update { began: SECOND, settled: SECOND, is_listener: true, ..Update::default() };
    let trap = Update { is_trap: true, is_listener: false, ..listener.clone() };
    assert_eq!(used(&|it| it.updates = vec![listener.clone()]), [Tolerance::ListenerReplaced]);
    assert_eq!(used(&|it| it.updates = vec![trap.clone()]), [Tolerance::Trap]);
    let closed = Closed { credential: A, pool: "anthropic", from: SECOND, to: SECOND };
    let port = used(&|it| {
        it.closed = vec![closed.clone()];
        it.arrivals.clear();
        let decision = "credential=anthropic-a then=anthropic-b(connect,transient) \
                        then=anthropic-c(connect,transient)";
        let decision = decision.to_owned();
        it.requests[0].end = End::Answered(Answer { decision, ..answer(503, 0) });
    });
    assert_eq!(port, [Tolerance::PortClosed]);
    let hostile = used(&|it| {
        it.arrivals.clear();
        it.requests[0].may_be_refused = true;
        it.requests[0].end = End::Answered(answer(400, 0));
    });
    assert_eq!(hostile, [Tolerance::Hostile]);
    let early = used(&|it| {
        it.requests[0].end = End::Broken("broken pipe".to_owned());
        it.arrivals[0].did = Did::Answered {
            status: 503,
            retry_after: None,
            body: Digest::default(),
            is_early: true,
            is_error_event: false,
        };
    });
    assert_eq!(early, [Tolerance::EarlyAnswer]);
}

#[test]
fn every_rule_and_every_tolerance_is_documented() {
    let page = include_str!("../../../../docs/soak.md");
    let rules = Rule::ALL.into_iter();
    let rules = rules.map(|it| if it.is_of_order() { format!("*{it}*") } else { it.to_string() });
    for word in rules.chain(Tolerance::ALL.map(|tolerance| tolerance.to_string())) {
        assert!(page.contains(&format!("| {word} |")), "{word}");
    }
}
