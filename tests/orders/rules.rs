//! What has to hold when all requests have ended, whatever they were and in whatever order.

use std::time::Duration;

use session_affinity::cooldown::{Basis, Record};
use session_affinity::outcome::Outcome;
use session_affinity::router::Router;
use session_affinity::shared::{InMemory, SharedData};

use crate::requests::{LATER, NOW, Seen, Work, alone_on_a_copy, known};

/// What holds after every order.
pub(crate) fn check(router: &Router, shared: &InMemory, before: &[Seen], seen: &[Seen]) {
    let all = || before.iter().chain(seen);
    assert!(all().all(|seen| !seen.contended), "three workers do not use up all tries");
    for key in shared.keys() {
        let value = shared.get(&key).value;
        let entry = if key.contains("/binding/") { 64 } else { 40 };
        if key.contains("/binding/") || key.contains("/pin/") {
            assert_eq!((value[0], value.len() % entry), (2, 1), "{key}");
        }
    }
    check_bindings(router, shared, (before, seen));
    let pool = &router.config().pools[0];
    for credential in &pool.credentials {
        let value = shared.get(&credential.cooldown_key).value;
        let record = Record::decode(&value, credential.entry);
        assert!(value.is_empty() || record.encode(credential.entry) == value, "{}", credential.id);
        let told = before.iter().map(|it| (it, NOW)).chain(seen.iter().map(|it| (it, LATER)));
        let ends = told.flat_map(|(seen, at)| {
            let limits =
                seen.sent.iter().filter(|(id, status, _)| *id == credential.id && *status == 429);
            limits.filter_map(move |(.., wait)| Some(at + Duration::from_secs((*wait)?)))
        });
        if let Some(end) = ends.max() {
            let mut announced = record.iter().filter(|it| it.basis != Basis::Guessed);
            assert!(announced.any(|it| it.until >= end), "{}: {end:?} is lost", credential.id);
        }
        let under_way = router.headroom().in_flight(pool, credential, shared, LATER);
        let is_under_way = |it: &&Seen| it.first == Some(&*credential.id) && it.sent.is_empty();
        let expected = all().filter(is_under_way).count() as u32;
        assert!(under_way.is_none_or(|it| it == expected), "{}: {under_way:?}", credential.id);
    }
    for created in all().filter(|it| it.created.is_some()) {
        let id = created.created.unwrap();
        let seen = alone_on_a_copy(router, shared, &Work::Refer("another", id, &[]));
        let expected = [Outcome::Pinned, Outcome::Substitute, Outcome::ModelCooldown];
        assert!(expected.contains(&seen.outcome.unwrap()), "{id}: {seen:?}");
    }
}

/// A session is bound if and only if it was served, and to those that served it.
fn check_bindings(router: &Router, shared: &InMemory, (before, seen): (&[Seen], &[Seen])) {
    let pool = &router.config().pools[0];
    let name = |id| known(&pool.credential(id).unwrap().id);
    for Seen { session, key, .. } in seen.iter().filter(|seen| !seen.sent.is_empty()) {
        let all = before.iter().chain(seen);
        let served: Vec<_> =
            all.filter(|it| it.session == *session).filter_map(Seen::served).collect();
        let binding = key.and_then(|key| router.bindings().peek(shared, key, LATER));
        assert_eq!(
            binding.is_some_and(|it| it.is_confirmed()),
            !served.is_empty(),
            "session {session} was served at {served:?}, and is bound {binding:?}"
        );
        for bound in binding.iter().flat_map(|it| [Some(it.home), it.substitute]).flatten() {
            let id = name(bound.credential);
            assert!(bound.served.is_none() || served.contains(&id), "{session}: {id} {served:?}");
        }
    }
}
