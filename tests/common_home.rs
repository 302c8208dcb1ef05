//! The strategy `consistent`: Envoys that share nothing agree where a session is served.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::time::Duration;

use serde_json::{Value, json};
use session_affinity::config::Availability;
use session_affinity::cooldown::{Override, Wish};
use session_affinity::outcome::Outcome;
use session_affinity::response::Failure;
use world::{Fate, HOUR, MINUTE, SECOND, World, is, routed, said};

const LIMIT: Fate<'_> = Fate::Says(429, &[("retry-after", "60")], "");

/// Another credential may serve it, and nothing is wrong with this one.
const ELSEWHERE: Fate<'_> = Fate::Says(418, &[], "");

const NOT_HERE: Fate<'_> =
    Fate::Says(400, &[], r#"{"error":{"code":"previous_response_not_found","message":"x"}}"#);

const UNREADABLE: Fate<'_> =
    Fate::Says(400, &[], r#"{"error":{"code":"invalid_encrypted_content","message":"x"}}"#);

/// Five credentials, and these sections; `credentials` changes those that it names.
fn config(sections: &Value) -> Value {
    let ids = ["a", "b", "c", "d", "e"];
    let mut config = json!({
        "routing": {"strategy": "consistent"},
        "cooldown": {"statuses": {"418": "elsewhere"}},
        "failover": {"max_attempts": 5},
        "pools": [{"name": "p", "provider": "claude", "credentials": ids.map(|id| {
            json!({"id": id, "cluster": id})
        })}]
    });
    for (name, section) in sections.as_object().unwrap() {
        match name.as_str() {
            "credentials" => {
                for (id, fields) in section.as_object().unwrap() {
                    let at = ids.iter().position(|it| it == id).unwrap();
                    let credential = config["pools"][0]["credentials"][at].as_object_mut().unwrap();
                    credential.extend(fields.as_object().unwrap().clone());
                }
            }
            _ => {
                let known = config[name].as_object().cloned().unwrap_or_default();
                let new = section.as_object().unwrap().clone();
                config[name] = Value::Object(known.into_iter().chain(new).collect());
            }
        }
    }
    config
}

fn envoy(sections: &Value) -> World {
    World::of(&config(sections))
}

impl World {
    /// Sends a turn: the credentials that it was sent to, in order.
    fn turn(&self, session: &str, fates: &[(&str, Fate<'_>)]) -> String {
        self.play(&self.ask(session, "m"), fates).to
    }

    /// The credential that is asked first, and nothing comes of it.
    fn first(&self, session: &str) -> String {
        said(&self.ask(session, "m")).0
    }

    /// Blocks a credential by an answer to another session, of which it is the home.
    fn block(&self, id: &str, fate: Fate<'_>) {
        let other = session_at(&config(&json!({})), id);
        assert_eq!(self.turn(&other, &[(id, fate)]).split(' ').next(), Some(id));
    }

    fn operate(&self, id: &str, availability: Option<Availability>) {
        let overridden = availability.map(|availability| Override {
            availability,
            until: self.now + Duration::from_hours(1),
        });
        let credentials = &self.router.config().pools[0].credentials;
        let credential = credentials.iter().find(|it| it.id == id).unwrap();
        let wish = Wish::Override(overridden);
        let done = self.router.cooldowns().operate(&self.shared, credential, wish, self.now);
        assert!(done.written);
    }
}

/// The order in which a new session goes through the credentials.
fn order(config: &Value, session: &str) -> Vec<String> {
    let world = World::of(config);
    let decision = world.ask(session, "m");
    let plan = world.router.plan(routed(&decision), world.now);
    let pool = world.router.pool_of(&plan).unwrap();
    let all = plan.next.iter().chain(&plan.rest);
    all.map(|id| pool.credential(*id).unwrap().id.clone()).collect()
}

/// A session whose home is this credential.
fn session_at(config: &Value, home: &str) -> String {
    let mut sessions = (0..).map(|number| format!("at {home} {number}"));
    sessions.find(|session| order(config, session)[0] == home).unwrap()
}

#[test]
fn envoys_agree_on_the_home_again_whatever_one_of_them_saw() {
    let sections = json!({});
    let order = order(&config(&sections), "1");
    let (home, second) = (order[0].as_str(), order[1].as_str());
    let failures = [
        LIMIT,
        Fate::Status(503),
        Fate::Status(529),
        Fate::Status(401),
        Fate::Failed(Failure::Connect),
        Fate::Failed(Failure::Timeout),
        ELSEWHERE,
    ];
    for returns in ["while-warm", "always"] {
        for failure in failures {
            for turns_before in [0, 1] {
                for turns_away in [0, 1, 3] {
                    let case = format!("{returns} {failure:?} {turns_before} {turns_away}");
                    let mut saw = envoy(&json!({"failover": {"return": returns}}));
                    for _ in 0..turns_before {
                        assert_eq!(saw.turn("1", &[]), home, "{case}");
                    }
                    let met = saw.turn("1", &[(home, failure)]);
                    assert!(met.ends_with(second), "{case}: {met}");
                    for _ in 0..turns_away {
                        saw.now += 100 * Duration::from_millis(1);
                        assert_eq!(saw.turn("1", &[]), second, "{case}");
                    }
                    // A minute of a limit, of a refused key, or of what the session remembers; and
                    // so long that its prompt is cold at home.
                    for later in [61 * SECOND, 6 * MINUTE] {
                        saw.now += later;
                        assert_eq!(saw.turn("1", &[]), home, "{case} {later:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_session_that_begins_while_its_home_is_out_comes_home_like_all_others() {
    let order = order(&config(&json!({})), "1");
    for fate in [LIMIT, Fate::Status(401)] {
        let mut world = envoy(&json!({}));
        world.block(&order[0], fate);
        let decision = world.ask("1", "m");
        assert_eq!(said(&decision), is(&order[1], Outcome::Miss));
        world.play(&decision, &[]);
        assert_eq!(said(&world.ask("1", "m")), is(&order[1], Outcome::Substitute));
        world.now += 61 * SECOND;
        let decision = world.ask("1", "m");
        assert_eq!(said(&decision), is(&order[0], Outcome::Return));
        world.play(&decision, &[]);
        assert_eq!(said(&world.ask("1", "m")), is(&order[0], Outcome::Hit));
    }
}

/// What an Envoy tries within the request that meets the failure is what another one chooses that
/// knew of it before.
#[test]
fn the_order_of_the_others_is_the_same_for_who_fails_over_and_for_who_knew() {
    for credentials in [
        json!({}),
        json!({"a": {"priority": 1}, "b": {"priority": 1}}),
        json!({"a": {"weight": 5}, "b": {"weight": 3}, "c": {"weight": 0}}),
        json!({"a": {"parent": "x"}, "b": {"parent": "x"}, "c": {"parent": "y"}, "d": {"parent": "x"}}),
        json!({"a": {"group": "x"}, "b": {"group": "x"}, "c": {"group": "y"}}),
        json!({"d": {"state": "drain"}}),
    ] {
        let sections = json!({"credentials": credentials});
        for number in 0..40 {
            let session = number.to_string();
            let order = order(&config(&sections), &session);
            for fate in [LIMIT, Fate::Status(503)] {
                let case = format!("{sections} {session} {fate:?}");
                let fates: Vec<_> = order.iter().take(2).map(|id| (id.as_str(), fate)).collect();
                let fails_over = envoy(&sections);
                let went = fails_over.turn(&session, &fates[..1]);
                let other = session_at(&config(&sections), &order[0]);
                let knew = envoy(&sections);
                assert!(knew.turn(&other, &fates[..1]).starts_with(&order[0]), "{case}");
                let stands_in = knew.turn(&session, &[]);
                assert_eq!(went, format!("{} {stands_in}", order[0]), "{case}");
                assert_eq!(fails_over.turn(&session, &[]), stands_in, "{case}: at the next turn");
                if !case.contains("group") {
                    let both = envoy(&sections);
                    let went = both.turn(&session, &fates);
                    let last = went.rsplit(' ').next().unwrap();
                    assert_eq!(both.turn(&session, &[]), last, "{case}: {went}");
                }
            }
        }
    }
}

/// What refuses one session and serves all others must not cost it an attempt at every turn, and
/// must not be left for good: other Envoys go there.
#[test]
fn who_refuses_one_session_is_asked_again_rarely_and_then_keeps_it() {
    let order = order(&config(&json!({})), "1");
    let names: Vec<&str> = order.iter().map(String::as_str).collect();
    let lacks_model = Fate::Says(403, &[], r#"{"error":{"code":"model_not_allowed"}}"#);
    for (refusing, fate, most, why) in [
        (&names[..1], ELSEWHERE, 5, "4xx that only this session gets"),
        (&names[..1], Fate::Status(500), 8, "a prompt that breaks it"),
        (&names[..1], UNREADABLE, 5, "written by another credential"),
        (&names[..1], lacks_model, 5, "a model that it lacks"),
        (&names[..2], ELSEWHERE, 10, "the next one refuses it as well"),
    ] {
        let mut world = envoy(&json!({}));
        let fates: Vec<_> = refusing.iter().map(|id| (*id, fate)).collect();
        let (mut refused, served_by) = (0, names[refusing.len()]);
        for turn in 0..120 {
            let to = world.turn("1", &fates);
            assert!(to.ends_with(served_by), "{why}: {to}");
            refused += to.split(' ').count() - 1;
            if turn == 1 && !matches!(fate, Fate::Status(500)) {
                assert_eq!(to, served_by, "{why}: not at the next turn");
            }
            world.now += 30 * SECOND;
        }
        assert!((2..=most).contains(&refused), "{why}: {refused} in an hour");
        world.now += 61 * MINUTE;
        for _ in 0..2 {
            assert_eq!(world.turn("1", &[]), names[0], "{why}: it serves again");
        }
    }
}

#[test]
fn state_that_is_not_at_home_is_not_looked_for_there_at_every_turn() {
    let order = order(&config(&json!({"pins": {"max": 0}})), "1");
    let (home, second) = (order[0].as_str(), order[1].as_str());
    let headers = [(":method", "POST"), (":path", "/v1/responses"), ("x-session-id", "1")];
    let pins = envoy(&json!({}));
    let body = json!({"model": "m", "previous_response_id": "resp_1"});
    let turn = |world: &World| world.play(&world.decide(&headers, &body), &[(home, NOT_HERE)]).to;
    assert_eq!(turn(&pins), format!("{home} {second}"));
    assert_eq!(turn(&pins), second, "it is known who has it");
    assert_eq!(pins.turn("1", &[]), second, "and the session is not asked about again at once");
}

#[test]
fn the_words_of_operators_count_on_the_envoy_that_heard_them() {
    let order = order(&config(&json!({})), "1");
    let mut world = envoy(&json!({}));
    world.turn("1", &[]);
    world.operate(&order[0], Some(Availability::Drain));
    assert_eq!(said(&world.ask("1", "m")), is(&order[0], Outcome::Hit), "a known session stays");
    let fresh = envoy(&json!({}));
    fresh.operate(&order[0], Some(Availability::Drain));
    assert_eq!(
        said(&fresh.ask("1", "m")),
        is(&order[1], Outcome::Miss),
        "a new one goes elsewhere"
    );
    fresh.turn("1", &[]);
    assert_eq!(said(&fresh.ask("1", "m")), is(&order[1], Outcome::Hit));
    fresh.operate(&order[0], None);
    assert_eq!(said(&fresh.ask("1", "m")), is(&order[0], Outcome::Rebind), "with all others");

    world.operate(&order[0], Some(Availability::Disabled));
    assert_eq!(said(&world.ask("1", "m")), is(&order[1], Outcome::Rebind));
    world.now += Duration::from_mins(1);
    assert_eq!(world.turn("1", &[]), order[1]);
    for id in &order {
        world.operate(id, Some(Availability::Disabled));
    }
    assert_eq!(world.first("1"), "503");
}

#[test]
fn a_changed_configuration_is_a_fact_that_all_envoys_see() {
    let order = order(&config(&json!({})), "1");
    let home = order[0].as_str();
    for (fields, known, unknown, why) in [
        (json!({"state": "drain"}), 0, 1, "a home that drains keeps whom it served"),
        (json!({"weight": 0}), 0, 1, "and so does one that takes no new session"),
        (json!({"state": "disabled"}), 1, 1, "a disabled one keeps nobody"),
        (json!({"priority": -1}), 1, 1, "one of a lower priority is no home"),
    ] {
        let sections = json!({"credentials": {home: fields}});
        let world = envoy(&json!({}));
        world.turn("1", &[]);
        let mut world = world.reconfigured(&config(&sections));
        assert_eq!(world.turn("1", &[]), order[known], "{why}");
        assert_eq!(envoy(&sections).turn("1", &[]), order[unknown], "{why}");
        world.now += 6 * MINUTE;
        assert_eq!(world.turn("1", &[]), order[unknown], "{why}: until it is cold");
        let world = world.reconfigured(&config(&json!({})));
        assert_eq!(world.turn("1", &[]), home, "{why}: and it is the home again");
    }
}

#[test]
fn a_table_of_another_strategy_or_of_an_older_version_is_no_obstacle() {
    let order = order(&config(&json!({})), "1");
    for strategy in ["round-robin", "fill-first"] {
        let world = envoy(&json!({"routing": {"strategy": strategy}}));
        let before = world.turn("1", &[]);
        let world = world.reconfigured(&config(&json!({})));
        let expected = if before == order[0] { Outcome::Hit } else { Outcome::Rebind };
        assert_eq!(said(&world.ask("1", "m")), is(&order[0], expected), "{strategy}");
        world.turn("1", &[]);
        assert_eq!(said(&world.ask("1", "m")), is(&order[0], Outcome::Hit), "{strategy}");
    }
}

/// Where something else is wanted than agreement, a home is what it was.
#[test]
fn homes_are_not_common_where_something_else_is_wanted() {
    let order = order(&config(&json!({})), "1");
    for (sections, expected, why) in [
        (json!({"session": {"strict": true}}), 1, "what exists is only where it was served"),
        (json!({"failover": {"return": "never"}}), 1, "the operator wants no return"),
        (json!({}), 0, ""),
    ] {
        let mut world = envoy(&sections);
        assert_eq!(world.turn("1", &[(&order[0], LIMIT)]), format!("{} {}", order[0], order[1]));
        world.now += 2 * MINUTE;
        assert_eq!(world.turn("1", &[]), order[expected], "{why}");
    }
    let profile = json!({"profile": "reference"});
    let mut reference = config(&json!({"routing": {"session_affinity": true}}));
    reference.as_object_mut().unwrap().extend(profile.as_object().unwrap().clone());
    let mut world = World::of(&reference);
    let to = world.turn("1", &[(&order[0], LIMIT)]);
    world.now += HOUR;
    assert_eq!(world.first("1"), to.rsplit(' ').next().unwrap(), "the reference binds for good");
}

#[test]
fn a_home_that_cuts_off_streams_is_left_for_an_hour() {
    let order = order(&config(&json!({})), "1");
    let mut world = envoy(&json!({}));
    for _ in 0..2 {
        let sent = world.play(&world.ask("1", "m"), &[]);
        assert_eq!(sent.to, order[0]);
        world.router.observe_cut(&sent.plan, &world.shared, world.now);
        world.now += 5 * SECOND;
    }
    for _ in 0..30 {
        assert_eq!(world.turn("1", &[]), order[1]);
        world.now += 119 * SECOND;
    }
    world.now += MINUTE;
    assert_eq!(world.turn("1", &[]), order[0]);
}

#[test]
fn an_error_that_the_client_got_sends_its_session_elsewhere_for_a_minute() {
    let order = order(&config(&json!({})), "1");
    let mut world = envoy(&json!({"failover": {"max_attempts": 1}}));
    assert_eq!(world.turn("1", &[(&order[0], ELSEWHERE)]), order[0]);
    for _ in 0..2 {
        assert_eq!(world.turn("1", &[]), order[1]);
        world.now += 29 * SECOND;
    }
    world.now += 2 * SECOND;
    assert_eq!(world.turn("1", &[]), order[0]);
}

#[test]
fn sealed_state_stays_in_the_group_of_a_home_that_served() {
    let order = order(&config(&json!({})), "1");
    let (home, sibling) = (order[0].as_str(), order[3].as_str());
    let sections = json!({
        "failover": {"ciphertext": "same_group"},
        "credentials": {home: {"group": "x"}, sibling: {"group": "x"}},
    });
    let headers = [(":method", "POST"), (":path", "/v1/responses"), ("x-session-id", "1")];
    let input = json!([{"type": "reasoning", "encrypted_content": "x"}]);
    let body = json!({"model": "m", "input": input});
    let world = envoy(&sections);
    let send = |fates: &[(&str, Fate<'_>)]| world.play(&world.decide(&headers, &body), fates).to;
    assert_eq!(send(&[]), home);
    assert_eq!(send(&[(home, Fate::Status(503))]), format!("{home} {sibling}"));
}

/// The same sessions at two Envoys, each of which sees half of the turns, and all of the failures
/// that it meets itself.
#[test]
fn two_envoys_serve_the_turns_of_a_session_at_one_credential_but_for_one_failed_attempt_each() {
    let order = order(&config(&json!({})), "1");
    let mut envoys = [envoy(&json!({})), envoy(&json!({}))];
    let mut failed = [0, 0];
    for turn in 0..60_usize {
        let is_out = (10..30).contains(&turn);
        let fates = [(order[0].as_str(), LIMIT)];
        // Not in turn, so that neither sees every other one.
        let at = turn * turn / 3 % 2;
        let to = envoys[at].turn("1", if is_out { &fates } else { &[] });
        failed[at] += to.split(' ').count() - 1;
        let expected = if is_out { &order[1] } else { &order[0] };
        if !(30..=36).contains(&turn) {
            assert_eq!(to.rsplit(' ').next().unwrap(), expected, "turn {turn}");
        }
        for envoy in &mut envoys {
            envoy.now += 10 * SECOND;
        }
    }
    // The outage lasted longer than the limit that was announced: three and a half of its minutes.
    assert!(failed.iter().all(|failed| (1..=4).contains(failed)), "{failed:?}");
}
