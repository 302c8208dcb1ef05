//! Bad histories of state, limits and WebSockets, and what an old Envoy is forgiven.

use super::*;

/// What this gateway has not seen, and A has.
const ELSEWHERE: Option<Kept> = Some(Kept::Elsewhere { owner: A, session: 1 });

const OLD: Abilities = Abilities { retries_held: false, resets_with_error: false };

/// Two requests of a session: the second refers to the answer of the first, and goes to `asked`.
fn follows(asked: &[Name], status: u16) -> History {
    let mut second = request(2, 4);
    second.refers_to = Some(Kept::Here { request: 1, attempt: 1 });
    second.end = End::Answered(answer(status, asked.len() as u32));
    let mut arrivals = vec![arrival(1, 1, A, 1, did(200))];
    for (name, number) in asked.iter().zip(1..) {
        let is_owner = *name == A;
        let mut next = arrival(2, number, name, 4, did(if is_owner { 200 } else { 400 }));
        next.lacks_state = !is_owner;
        arrivals.push(next);
    }
    let mut first = request(1, 1);
    first.end = End::Answered(Answer { is_kept: true, ..answer(200, 1) });
    history(vec![first, second], arrivals)
}

#[test]
fn a_request_that_is_sent_where_its_state_is_not_is_found() {
    check(&follows(&[A], 200), &[]);
    assert_eq!(judge(&follows(&[A], 200), SETTING).judged[&Rule::Pin], 1);
    check(&follows(&[B, A], 200), &[Rule::Pin]);
    // The owner said no, and somebody else was asked.
    let mut moved = follows(&[A, B], 400);
    moved.arrivals[1].did = did(500);
    check(&moved, &[Rule::Pin]);
    // Another gateway has seen who has it, so it is looked for.
    let mut unread = follows(&[B, A], 200);
    unread.requests[1].refers_to = ELSEWHERE;
    check(&unread, &[]);
    // The owner is away.
    let mut away = follows(&[B, C, D], 400);
    away.updates.push(update(1, A, State::Disabled));
    away.requests[1].began += SECOND;
    check(&away, &[]);
}

#[test]
fn state_that_is_given_up_before_its_owner_was_asked_is_found() {
    let mut unread = follows(&[B], 400);
    unread.requests[1].refers_to = ELSEWHERE;
    check(&unread, &[Rule::Avoidable]);
    assert_eq!(broken(&unread, Setting { fails_over: false, ..SETTING }), []);
    // Three that do not have it are enough.
    let mut searched = follows(&[B, C, D], 400);
    searched.requests[1].refers_to = ELSEWHERE;
    check(&searched, &[]);
    // The client gets the first answer, and no other.
    let gets = |number| End::Answered(answer(400, number));
    searched.requests[1].end = gets(1);
    check(&searched, &[]);
    searched.requests[1].end = gets(2);
    check(&searched, &[Rule::FirstByte]);
}

#[test]
fn a_refusal_while_the_owner_of_the_state_has_announced_nothing_is_found() {
    let refused = |limited: Name| {
        let mut all = follows(&[], 429);
        let mut other = request(3, 3);
        other.session = 3;
        other.end = End::Aborted("waiting");
        all.requests.push(other);
        all.arrivals.push(arrival(3, 1, limited, 3, told(9)));
        all
    };
    check(&refused(A), &[]);
    check(&refused(B), &[Rule::Refusal]);
}

#[test]
fn a_refusal_because_all_credentials_near_their_limits_is_found() {
    let spares = Setting { spares: true, ..SETTING };
    let near = |used: &[(Name, u8)], end: End| {
        let mut requests = vec![request(1, 9)];
        requests[0].end = end;
        let mut arrivals = Vec::new();
        for ((name, used), id) in used.iter().zip(2..) {
            let mut other = request(id, 2);
            other.session = id;
            requests.push(other);
            arrivals.push(Arrival { used: Some(*used), ..arrival(id, 1, name, 2, did(200)) });
        }
        history(requests, arrivals)
    };
    let all = [(A, 90), (B, 95), (C, 100), (D, 99)];
    let refused = near(&all, End::Answered(answer(429, 0)));
    assert_eq!(broken(&refused, spares), [Rule::Refusal, Rule::Spare]);
    let mut served = near(&all, End::Answered(answer(200, 1)));
    served.arrivals.push(arrival(1, 1, A, 9, did(200)));
    assert_eq!(broken(&served, spares), []);
    assert_eq!(judge(&served, spares).judged[&Rule::Spare], 1);
    // One has room, so it is no matter of sparing.
    let room = near(&[(A, 90), (B, 95), (C, 100), (D, 80)], End::Answered(answer(429, 0)));
    assert_eq!(broken(&room, spares), [Rule::Refusal]);
}

#[test]
fn what_passes_on_a_websocket_is_judged_as_bodies_are() {
    let socket = |asked: &[(Name, Did)], is_whole| {
        let mut all = fails(101, asked);
        all.requests[0].end = End::Answered(Answer { is_whole, ..answer(101, asked.len() as u32) });
        // Whether the filter counts one that was cut as served, the client cannot know.
        all.ending.counted_successes = u64::from(is_whole);
        all
    };
    check(&socket(&[(A, did(101))], true), &[]);
    check(&socket(&[(A, did(429)), (B, did(101))], true), &[]);
    let cut = Did::Cut { has_content: true };
    check(&socket(&[(A, cut.clone())], false), &[]);
    // The provider has cut it, and the client saw it closed.
    check(&socket(&[(A, cut)], true), &[Rule::Body]);
    // The provider has closed it, and the client saw it cut.
    check(&socket(&[(A, did(101))], false), &[Rule::Cause]);
    // Another provider got the messages once more.
    let mut again = socket(&[(A, did(101)), (B, did(101))], true);
    again.requests[0].end = End::Answered(answer(101, 1));
    check(&again, &[Rule::FirstByte]);
    let mut lost = socket(&[(A, did(101))], true);
    lost.arrivals[0].body = Some(Digest::of(b"half of it"));
    check(&lost, &[Rule::Body]);
}

#[test]
fn an_old_envoy_is_forgiven_what_it_cannot_do_and_nothing_else() {
    let old = Setting { envoy: OLD, ..SETTING };
    // It passes on what is only known from the body.
    let mut elsewhere = follows(&[B], 400);
    elsewhere.requests[1].refers_to = ELSEWHERE;
    check(&elsewhere, &[Rule::Avoidable]);
    assert_eq!(broken(&elsewhere, old), []);
    let attempts = [(A, did(500)), (B, did(500))];
    assert_eq!(broken(&fails(500, &attempts), old), [Rule::Avoidable]);
    // Over HTTP/2 it does not say that a response broke off.
    let cut = |protocol| {
        let mut all = well();
        all.requests[0].protocol = protocol;
        all.arrivals[0].did = Did::Cut { has_content: true };
        all
    };
    check(&cut(HTTP2), &[Rule::Body]);
    assert_eq!(broken(&cut(HTTP2), old), []);
    assert_eq!(judge(&cut(HTTP2), old).tolerated[&Tolerance::OldEnvoy], 1);
    assert_eq!(broken(&cut("HTTP/1.1"), old), [Rule::Body]);
}

#[test]
fn state_is_not_looked_for_before_anything_was_kept() {
    let mut early = follows(&[B], 400);
    early.requests[1].refers_to = ELSEWHERE;
    check(&early, &[Rule::Avoidable]);
    early.requests[0].end = End::Answered(answer(200, 1));
    check(&early, &[]);
    assert_eq!(judge(&early, SETTING).tolerated[&Tolerance::Unread], 1);
}

#[test]
fn state_that_was_found_nowhere_is_not_looked_for_again() {
    let mut again = follows(&[B], 400);
    again.requests[1].refers_to = ELSEWHERE;
    let (mut third, mut asked) = (again.requests[1].clone(), again.arrivals[1].clone());
    (third.id, third.began, third.ended) = (3, 5 * SECOND, 6 * SECOND);
    (asked.request, asked.at) = (Some(3), 5 * SECOND);
    // The first time three were asked.
    for (name, number) in [(C, 2), (D, 3)] {
        let mut more = again.arrivals[1].clone();
        (more.port, more.key, more.number) = (Some(name), Some(name), number);
        again.arrivals.push(more);
    }
    again.requests[1].end = End::Answered(answer(400, 3));
    again.requests.push(third);
    again.arrivals.push(asked);
    again.ending.counted_requests += 1;
    let verdict = judge(&again, SETTING);
    assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
    assert_eq!(verdict.tolerated[&Tolerance::Nowhere], 1);
}
