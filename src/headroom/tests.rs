//! The tables of the module: what providers tell, and what follows for new sessions.

use super::*;
use crate::config::Config;
use crate::shared::InMemory;

const OPUS: &str = "claude-opus-4-6";
const SONNET: &str = "claude-sonnet-5-5";

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + seconds)
}

fn config(routing: &str, credentials: &str) -> Config {
    let json = format!(
        r#"{{"routing": {routing}, "pools": [{{"name": "p", "credentials": [{credentials}]}}]}}"#
    );
    Config::parse(json.as_bytes()).unwrap()
}

fn four(routing: &str) -> Config {
    let four = ["a", "b", "c", "d"].map(|id| format!(r#"{{"id": "{id}", "cluster": "{id}"}}"#));
    config(routing, &four.join(", "))
}

fn headroom(config: &Config) -> Headroom<'_> {
    Headroom { routing: &config.routing, seed: Seed::STABLE }
}

fn of(headers: &[(&str, &str)]) -> Headers {
    headers.iter().copied().collect()
}

/// What is used of the tightest window, in thousandths, and in how many seconds it is whole again.
fn told(headers: &[(&str, &str)], model: &str) -> Option<(u16, u64)> {
    let config = four("{}");
    let (headroom, shared) = (headroom(&config), InMemory::default());
    let pool = &config.pools[0];
    let credential = &pool.credentials[0];
    assert!(headroom.learn(credential, &of(headers), model, &shared, at(0)));
    let limits = headroom.limits(credential, Some(model), &shared, at(0));
    (limits.reset != Timestamp::MAX).then(|| (limits.used, limits.reset.since(at(0)).as_secs()))
}

#[test]
fn what_providers_tell_is_read_in_their_units() {
    let in_an_hour = "1800003600";
    for (what, headers, expected) in [
        (
            "a subscription to Claude",
            vec![
                ("anthropic-ratelimit-unified-status", "allowed_warning"),
                ("anthropic-ratelimit-unified-5h-utilization", "0.42"),
                ("anthropic-ratelimit-unified-5h-reset", in_an_hour),
                ("anthropic-ratelimit-unified-7d-utilization", "0.83"),
                ("anthropic-ratelimit-unified-7d-reset", "1800086400"),
            ],
            Some((830, 86_400)),
        ),
        (
            "a family of another model",
            vec![
                ("anthropic-ratelimit-unified-7d_sonnet-utilization", "0.99"),
                ("anthropic-ratelimit-unified-5h-utilization", "0.1"),
                ("anthropic-ratelimit-unified-5h-reset", in_an_hour),
            ],
            Some((100, 3600)),
        ),
        (
            "the family of the model",
            vec![
                ("anthropic-ratelimit-unified-7d_opus-utilization", "0.97"),
                ("anthropic-ratelimit-unified-7d_opus-reset", in_an_hour),
                ("anthropic-ratelimit-unified-5h-utilization", "0.1"),
            ],
            Some((970, 3600)),
        ),
        (
            "a window that rejects, without a share",
            vec![
                ("anthropic-ratelimit-unified-5h-status", "rejected"),
                ("anthropic-ratelimit-unified-5h-reset", in_an_hour),
            ],
            Some((1000, 3600)),
        ),
        (
            "Codex",
            vec![
                ("x-codex-primary-used-percent", "17.5"),
                ("x-codex-primary-window-minutes", "300"),
                ("x-codex-primary-reset-at", in_an_hour),
                ("x-codex-secondary-used-percent", "3"),
            ],
            Some((175, 3600)),
        ),
        (
            "OpenAI's API, to Codex",
            vec![
                ("x-codex-turn-state", "x"),
                ("x-ratelimit-limit-requests", "10"),
                ("x-ratelimit-remaining-requests", "1"),
            ],
            Some((900, 60)),
        ),
        (
            "an older Codex",
            vec![
                ("x-codex-primary-used-percent", "50"),
                ("x-codex-primary-reset-after-seconds", "90"),
            ],
            Some((500, 90)),
        ),
        (
            "Anthropic's API",
            vec![
                ("anthropic-ratelimit-requests-limit", "50"),
                ("anthropic-ratelimit-requests-remaining", "49"),
                ("anthropic-ratelimit-requests-reset", "2027-01-15T08:00:02Z"),
                ("anthropic-ratelimit-input-tokens-limit", "40000"),
                ("anthropic-ratelimit-input-tokens-remaining", "10000"),
                ("anthropic-ratelimit-input-tokens-reset", "2027-01-15T08:00:45Z"),
            ],
            Some((750, 45)),
        ),
        (
            "OpenAI",
            vec![
                ("x-ratelimit-limit-requests", "10000"),
                ("x-ratelimit-remaining-requests", "9999"),
                ("x-ratelimit-reset-requests", "6ms"),
                ("x-ratelimit-limit-tokens", "200000"),
                ("x-ratelimit-remaining-tokens", "50000"),
                ("x-ratelimit-reset-tokens", "6m0s"),
            ],
            Some((750, 360)),
        ),
        (
            "Azure: seconds",
            vec![
                ("x-ratelimit-limit-tokens", "1000"),
                ("x-ratelimit-remaining-tokens", "400"),
                ("x-ratelimit-reset-tokens", "12"),
            ],
            Some((600, 12)),
        ),
        (
            "Azure's Responses, which say nothing",
            vec![
                ("x-ratelimit-limit-tokens", "-1"),
                ("x-ratelimit-remaining-tokens", "-1"),
                ("x-ratelimit-reset-tokens", "0"),
            ],
            None,
        ),
        (
            "Groq: requests of a day",
            vec![
                ("x-ratelimit-limit-requests", "14400"),
                ("x-ratelimit-remaining-requests", "1440"),
                ("x-ratelimit-reset-requests", "2h59m59.56s"),
            ],
            Some((900, 10_799)),
        ),
        (
            "Mistral: no ends, and a plan without allowance",
            vec![
                ("x-ratelimit-limit-req-minute", "0"),
                ("x-ratelimit-remaining-req-minute", "0"),
                ("x-ratelimit-limit-tokens-month", "1000000"),
                ("x-ratelimit-remaining-tokens-month", "900000"),
            ],
            Some((1000, 60)),
        ),
        (
            "xAI: no ends",
            vec![("x-ratelimit-limit-requests", "480"), ("x-ratelimit-remaining-requests", "120")],
            Some((750, 60)),
        ),
        (
            "OpenRouter: milliseconds since the epoch",
            vec![
                ("x-ratelimit-limit", "20"),
                ("x-ratelimit-remaining", "1"),
                ("x-ratelimit-reset", "1800000030000"),
            ],
            Some((950, 30)),
        ),
        (
            "an end that is past",
            vec![
                ("x-codex-primary-used-percent", "99"),
                ("x-codex-primary-reset-at", "1700000000"),
            ],
            None,
        ),
        ("no number", vec![("x-codex-primary-used-percent", "NaN")], None),
        (
            "a share beyond the whole",
            vec![("x-codex-primary-used-percent", "250")],
            Some((1000, 86_400)),
        ),
        ("nothing", vec![("content-type", "application/json")], None),
        (
            "an account that pays beyond its plan: its windows count",
            vec![
                ("anthropic-ratelimit-unified-status", "rejected"),
                ("anthropic-ratelimit-unified-7d-status", "rejected"),
                ("anthropic-ratelimit-unified-7d-utilization", "1.02"),
                ("anthropic-ratelimit-unified-7d-reset", in_an_hour),
                ("anthropic-ratelimit-unified-overage-in-use", "true"),
                ("anthropic-ratelimit-unified-overage-status", "allowed"),
                ("anthropic-ratelimit-unified-overage-utilization", "0.1"),
                ("anthropic-ratelimit-unified-overage-reset", "1802000000"),
            ],
            Some((1000, 3600)),
        ),
        (
            "a plan with room, beyond which nothing more may be spent",
            vec![
                ("anthropic-ratelimit-unified-status", "allowed"),
                ("anthropic-ratelimit-unified-5h-utilization", "0.2"),
                ("anthropic-ratelimit-unified-5h-reset", in_an_hour),
                ("anthropic-ratelimit-unified-overage-status", "rejected"),
                ("anthropic-ratelimit-unified-overage-disabled-reason", "org_level_disabled"),
                ("anthropic-ratelimit-unified-overage-utilization", "1.0"),
            ],
            Some((200, 3600)),
        ),
        (
            "a plan without windows, of which all is spending",
            vec![
                ("anthropic-ratelimit-unified-status", "allowed"),
                ("anthropic-ratelimit-unified-reset", "1802000000"),
                ("anthropic-ratelimit-unified-representative-claim", "overage"),
                ("anthropic-ratelimit-unified-overage-status", "allowed"),
                ("anthropic-ratelimit-unified-overage-utilization", "0.82"),
                ("anthropic-ratelimit-unified-overage-reset", "1802000000"),
            ],
            Some((820, 2_000_000)),
        ),
        (
            "a refusal of one family, beside spending that nobody has allowed",
            vec![
                ("anthropic-ratelimit-unified-status", "rejected"),
                ("anthropic-ratelimit-unified-5h-status", "allowed"),
                ("anthropic-ratelimit-unified-7d_oi-status", "rejected"),
                ("anthropic-ratelimit-unified-overage-status", "rejected"),
            ],
            None,
        ),
        (
            "a workspace of Anthropic's API",
            vec![
                ("anthropic-ratelimit-input-tokens-limit", "400000"),
                ("anthropic-ratelimit-input-tokens-remaining", "390000"),
                ("anthropic-ratelimit-input-tokens-reset", "2027-01-15T08:00:02Z"),
                ("anthropic-ratelimit-tokens-limit", "50000"),
                ("anthropic-ratelimit-tokens-remaining", "5000"),
                ("anthropic-ratelimit-tokens-reset", "2027-01-15T08:00:30Z"),
            ],
            Some((900, 30)),
        ),
        (
            "Codex with a limit of another model",
            vec![
                ("x-codex-active-limit", "premium"),
                ("x-codex-primary-used-percent", "4"),
                ("x-codex-primary-reset-at", in_an_hour),
                ("x-codex-bengalfox-secondary-used-percent", "85"),
            ],
            Some((40, 3600)),
        ),
        (
            "less than nothing",
            vec![
                ("anthropic-ratelimit-unified-5h-utilization", "-0.5"),
                ("anthropic-ratelimit-unified-5h-reset", in_an_hour),
            ],
            Some((0, 3600)),
        ),
        (
            "no number, beside one",
            vec![
                ("anthropic-ratelimit-unified-5h-utilization", "NaN"),
                ("anthropic-ratelimit-unified-7d-utilization", "inf"),
                ("anthropic-ratelimit-unified-7d_opus-utilization", " 0.3 "),
            ],
            Some((300, 86_400)),
        ),
        (
            "a header that is repeated: the first counts",
            vec![
                ("x-codex-primary-used-percent", "10"),
                ("x-codex-primary-used-percent", "90"),
                ("x-codex-primary-reset-at", in_an_hour),
                ("x-codex-primary-reset-at", "1700000000"),
            ],
            Some((100, 3600)),
        ),
        (
            "more is left than there is",
            vec![
                ("x-ratelimit-limit-tokens", "1000"),
                ("x-ratelimit-remaining-tokens", "1200"),
                ("x-ratelimit-reset-tokens", "0s"),
                ("x-ratelimit-limit-requests", "10"),
                ("x-ratelimit-remaining-requests", "12"),
            ],
            Some((0, 60)),
        ),
        (
            "a limit, or what is left, alone",
            vec![("x-ratelimit-limit-tokens", "1000"), ("x-ratelimit-remaining-requests", "0")],
            None,
        ),
        (
            "a limit with its policy, as proxies write it",
            vec![
                ("x-ratelimit-limit", "100, 100;w=60"),
                ("x-ratelimit-remaining", "20"),
                ("x-ratelimit-reset", "40"),
            ],
            Some((800, 40)),
        ),
        (
            "a slot of Codex that is empty",
            vec![
                ("x-codex-primary-used-percent", "9"),
                ("x-codex-primary-window-minutes", "10080"),
                ("x-codex-primary-reset-at", in_an_hour),
                ("x-codex-secondary-used-percent", "0"),
                ("x-codex-secondary-window-minutes", "0"),
                ("x-codex-secondary-reset-at", ""),
                ("x-codex-secondary-reset-after-seconds", "0"),
            ],
            Some((90, 3600)),
        ),
    ] {
        assert_eq!(told(&headers, OPUS), expected, "{what}");
    }
}

#[test]
fn windows_of_one_model_say_nothing_of_another() {
    let config = four("{}");
    let (headroom, shared) = (headroom(&config), InMemory::default());
    let pool = &config.pools[0];
    let credential = &pool.credentials[0];
    let headers = of(&[("x-ratelimit-limit-tokens", "10"), ("x-ratelimit-remaining-tokens", "1")]);
    headroom.learn(credential, &headers, "gpt-5.4", &shared, at(0));
    let used = |model| headroom.limits(credential, model, &shared, at(0)).used;
    assert_eq!((used(Some("gpt-5.4")), used(Some("gpt-5.4-mini")), used(None)), (900, 0, 900));
}

#[test]
fn what_recorded_refusals_prove_is_used_up() {
    // When the vectors were recorded.
    const NOON: Timestamp = Timestamp::from_secs(1_795_262_400);
    let mut used_up = 0;
    for line in include_str!("../../tests/vectors/signals.jsonl").lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let members = row["headers"].as_object().into_iter().flatten();
        let headers = members.map(|(name, value)| (name.clone(), text(value))).collect();
        let (model, expected) = (text(&row["model"]), &row["expected"]);
        let config = four("{}");
        let (headroom, shared) = (headroom(&config), InMemory::default());
        let credential = &config.pools[0].credentials[0];
        headroom.learn(credential, &headers, &model, &shared, NOON);
        let limits = headroom.limits(credential, Some(&model), &shared, NOON);
        let windows = headroom.record(credential, &shared).tightest(NOON);
        for (name, percent, reset) in windows {
            assert!(percent <= 100 && reset <= NOON + LONGEST, "{name}: {line}");
        }
        if limits.reset < Timestamp::MAX
            && (&expected["class"], &expected["evidence"])
                == (&"rate_limit".into(), &"proof".into())
        {
            used_up += 1;
            assert_eq!(limits.used, 1000, "{line}");
        }
    }
    assert!(used_up >= 9, "{used_up}");
}

#[test]
fn whatever_stands_in_headers_a_window_is_a_share_and_ends_within_a_month() {
    let unified = |end: &str| format!("anthropic-ratelimit-unified-5h-{end}");
    let of_tokens = |what: &str| format!("x-ratelimit-{what}-tokens");
    let names = [
        [unified("utilization"), unified("status"), unified("reset")],
        ["limit", "remaining", "reset"].map(of_tokens),
        ["used-percent", "window-minutes", "reset-at"].map(|end| format!("x-codex-primary-{end}")),
    ];
    let values = [
        "",
        "0",
        "-1",
        "1.5",
        "100",
        "1e308",
        "NaN",
        "inf",
        "1, 2",
        "5;w=60",
        "rejected",
        "18446744073709551616",
        "1800000001",
        "9e99s",
        "9999-12-31T23:59:59Z",
    ];
    for names in &names {
        for one in values {
            for other in values {
                for third in values {
                    let headers = names.iter().map(String::as_str).zip([one, other, third]);
                    let models = Models::of(OPUS, Seed::STABLE);
                    for window in windows::told(&headers.collect(), &models, at(0)) {
                        let told = format!("{names:?} {one:?} {other:?} {third:?}: {window:?}");
                        assert!(window.used <= 1000 && window.reset <= at(0) + LONGEST, "{told}");
                        assert!(window.pace(at(0)) <= windows::FASTEST, "{told}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_spent_beyond_a_plan_hides_none_of_its_windows_and_is_hidden_by_them() {
    let config = four("{}");
    let (headroom, shared) = (headroom(&config), InMemory::default());
    let credential = &config.pools[0].credentials[0];
    let used = |model, now| headroom.limits(credential, Some(model), &shared, now).used;
    let learn = |headers: &[(&str, &str)], now| {
        headroom.learn(credential, &of(headers), OPUS, &shared, now);
    };
    // As a request in fast mode is answered, or one that is paid: no window is told.
    let paid = [
        ("anthropic-ratelimit-unified-overage-in-use", "true"),
        ("anthropic-ratelimit-unified-overage-utilization", "0.95"),
        ("anthropic-ratelimit-unified-overage-reset", "1802000000"),
    ];
    let plan = |share| {
        [
            ("anthropic-ratelimit-unified-5h-utilization", share),
            ("anthropic-ratelimit-unified-5h-reset", "1800003600"),
        ]
    };
    learn(&plan("0.3"), at(0));
    learn(&paid, at(10));
    assert_eq!((used(OPUS, at(10)), used(SONNET, at(10))), (300, 300), "the plan has room");
    learn(&plan("1.0"), at(20));
    learn(&paid, at(30));
    assert_eq!(used(OPUS, at(30)), 1000, "it is used up until it is whole again");
    learn(&paid, at(3600));
    assert_eq!(used(OPUS, at(3600)), 950, "nothing else is known");
    learn(&[("anthropic-ratelimit-unified-5h-utilization", "0.1")], at(3610));
    assert_eq!(used(OPUS, at(3610)), 100);
}

#[test]
fn a_model_of_codex_with_its_own_limit_has_the_accounts_as_well() {
    let config = four("{}");
    let (headroom, shared) = (headroom(&config), InMemory::default());
    let credential = &config.pools[0].credentials[0];
    let told = |accounts, models| {
        let headers = of(&[
            ("x-codex-primary-used-percent", accounts),
            ("x-codex-bengalfox-primary-used-percent", "0"),
            ("x-codex-bengalfox-secondary-used-percent", models),
        ]);
        // Whichever model was asked.
        headroom.learn(credential, &headers, "gpt-5.4", &shared, at(0));
        let used = |model| headroom.limits(credential, Some(model), &shared, at(0)).used;
        (used("gpt-5.4"), used("gpt-5.3-codex-spark"))
    };
    assert_eq!(told("4", "85"), (40, 850));
    // Its clients need the account's limit to compact.
    assert_eq!(told("90", "20"), (900, 900));
}

#[test]
fn rows_that_are_known_by_their_number_have_it() {
    let names: Vec<_> = windows::names().collect();
    assert_eq!(names[..5], ["5h", "7d", "7d_opus", "7d_sonnet", "7d_oi"]);
    let headers = of(&[("anthropic-ratelimit-unified-overage-utilization", "0.5")]);
    let told = windows::told(&headers, &Models::of(OPUS, Seed::STABLE), at(0));
    assert_eq!(told[0].name(), Some("overage"));
    let mut both = told.clone();
    both.push(Window { row: 4, ..told[0] });
    windows::drop_overage(&mut both);
    assert_eq!(both.iter().map(Window::name).collect::<Vec<_>>(), [Some("7d_oi")]);
}

#[test]
fn a_subscription_is_used_until_its_window_ends_and_a_bucket_fills_on_the_way() {
    let config = four("{}");
    let (headroom, shared) = (headroom(&config), InMemory::default());
    let pool = &config.pools[0];
    let [plan, bucket] = [&pool.credentials[0], &pool.credentials[1]];
    let headers =
        [("x-codex-primary-used-percent", "80"), ("x-codex-primary-reset-at", "1800000100")];
    headroom.learn(plan, &of(&headers), "m", &shared, at(0));
    let headers = [
        ("x-ratelimit-limit-tokens", "100"),
        ("x-ratelimit-remaining-tokens", "20"),
        ("x-ratelimit-reset-tokens", "100s"),
    ];
    headroom.learn(bucket, &of(&headers), "m", &shared, at(0));
    for (seconds, of_plan, of_bucket) in
        [(0, 800, 800), (50, 800, 400), (99, 800, 8), (100, 0, 0), (1_000_000, 0, 0)]
    {
        let used = |it| headroom.limits(it, Some("m"), &shared, at(seconds)).used;
        assert_eq!((used(plan), used(bucket)), (of_plan, of_bucket), "after {seconds} s");
    }
    let long_ago = Timestamp::from_secs(1_700_000_000);
    let used = |it| headroom.limits(it, Some("m"), &shared, long_ago).used;
    assert_eq!((used(plan), used(bucket)), (0, 0), "the clock was set back");
}

#[test]
fn what_is_told_again_and_again_is_written_every_few_seconds() {
    let config = four("{}");
    let (headroom, shared) = (headroom(&config), InMemory::default());
    let credential = &config.pools[0].credentials[0];
    let mut writes = 0;
    let mut before = Stored::default().cas;
    for tenth in 0..100 {
        let now = Timestamp::from_millis(at(0).as_millis() + tenth * 100);
        let percent = format!("{}", 10.0 + tenth as f64 / 100.0);
        let headers = [("x-codex-primary-used-percent", percent.as_str())];
        headroom.learn(credential, &of(&headers), "m", &shared, now);
        let cas = shared.get(&credential.load_key).cas;
        writes += u32::from(cas != before);
        before = cas;
    }
    assert_eq!(writes, 4, "in ten seconds");
    let headers = [("x-codex-primary-used-percent", "95")];
    headroom.learn(credential, &of(&headers), "m", &shared, at(10));
    assert_ne!(shared.get(&credential.load_key).cas, before, "what differs is written at once");
}

#[test]
fn a_flood_of_models_evicts_no_window_of_the_whole_credential() {
    let config = four("{}");
    let (headroom, shared) = (headroom(&config), InMemory::default());
    let pool = &config.pools[0];
    let credential = &pool.credentials[0];
    let headers =
        [("x-codex-primary-used-percent", "70"), ("x-codex-primary-reset-at", "1800090000")];
    headroom.learn(credential, &of(&headers), "m", &shared, at(0));
    for model in 0..500 {
        let headers = [("x-ratelimit-limit-tokens", "9"), ("x-ratelimit-remaining-tokens", "9")];
        headroom.learn(credential, &of(&headers), &format!("m{model}"), &shared, at(1));
    }
    assert_eq!(headroom.limits(credential, Some("m"), &shared, at(2)).used, 700);
    assert!(shared.get(&credential.load_key).value.len() < 500);
}

#[test]
fn what_does_not_decode_is_empty_and_of_another_entry_only_sessions_count() {
    let mut record = LoadRecord::default();
    record.carry(None, at(0));
    record.learn_ceiling(3, at(0));
    let headers = of(&[("x-codex-primary-used-percent", "70")]);
    record.keep(windows::told(&headers, &Models::of("m", Seed::STABLE), at(0)), at(0));
    let good = record.encode(5);
    assert_eq!(LoadRecord::decode(&good, 5), record);
    for bad in [&good[..good.len() - 1], &[], &[9; 99]] {
        assert_eq!(LoadRecord::decode(bad, 5), LoadRecord::default(), "{bad:?}");
    }
    let mut sessions = LoadRecord::default();
    sessions.carry(None, at(0));
    assert_eq!(LoadRecord::decode(&good, 6), sessions);
}

/// Which of four credentials get so many new sessions, where so much of their limits is used (in
/// percent; none: not known), and they end after so many seconds.
fn spread(routing: &str, used: [Option<(u32, u64)>; 4], starts: u32) -> [u32; 4] {
    let config = four(routing);
    let (headroom, shared) = (headroom(&config), InMemory::default());
    let pool = &config.pools[0];
    for (credential, used) in pool.credentials.iter().zip(used) {
        let Some((percent, seconds)) = used else { continue };
        let (percent, reset) = (percent.to_string(), (1_800_000_000 + seconds).to_string());
        let headers = [
            ("x-codex-primary-used-percent", percent.as_str()),
            ("x-codex-primary-reset-at", reset.as_str()),
        ];
        headroom.learn(credential, &of(&headers), "m", &shared, at(0));
    }
    let all: Vec<_> = pool.credentials.iter().collect();
    let mut counts = [0; 4];
    for _ in 0..starts {
        let picked = headroom.pick(&all, pool, (b"", "m"), &shared, at(1));
        let place = all
            .iter()
            .position(|it| Some(it.id.as_str()) == picked.result.map(|it| it.id.as_str()));
        counts[place.unwrap()] += 1;
    }
    counts
}

#[test]
fn new_sessions_go_where_there_is_room() {
    const HOUR: u64 = 3600;
    let plain = r#"{"strategy": "headroom"}"#;
    for (what, routing, used, starts, expected) in [
        ("nothing is known", plain, [None; 4], 100, [25, 25, 25, 25]),
        (
            "the one with the most room is first",
            plain,
            [Some((50, HOUR)), Some((60, HOUR)), Some((40, HOUR)), Some((70, HOUR))],
            1,
            [0, 0, 1, 0],
        ),
        (
            "in proportion to the room",
            plain,
            [Some((80, HOUR)), Some((60, HOUR)), Some((40, HOUR)), Some((20, HOUR))],
            100,
            [10, 20, 30, 40],
        ),
        (
            "of equals the one whose window ends first",
            plain,
            [Some((50, 4 * HOUR)), Some((50, 2 * HOUR)), Some((50, HOUR)), Some((50, 3 * HOUR))],
            2,
            [0, 1, 1, 0],
        ),
        (
            "less than a step apart is equal",
            plain,
            [Some((51, 4 * HOUR)), Some((54, HOUR)), Some((52, 2 * HOUR)), Some((53, 3 * HOUR))],
            1,
            [0, 1, 0, 0],
        ),
        (
            "from nine tenths on one is spared",
            plain,
            [Some((90, HOUR)), Some((89, HOUR)), Some((95, HOUR)), Some((100, HOUR))],
            100,
            [0, 100, 0, 0],
        ),
        (
            "if all are to be spared, the room decides again",
            plain,
            [Some((90, HOUR)), Some((90, HOUR)), Some((100, HOUR)), Some((100, HOUR))],
            100,
            [50, 50, 0, 0],
        ),
        ("if none has any, they spread", plain, [Some((100, HOUR)); 4], 100, [25; 4]),
        (
            "the threshold is configured",
            r#"{"strategy": "headroom", "spare_at": 0.5}"#,
            [Some((50, HOUR)), Some((49, HOUR)), None, Some((51, HOUR))],
            90,
            [0, 32, 58, 0],
        ),
    ] {
        assert_eq!(spread(routing, used, starts), expected, "{what}");
    }
}

/// No response says when a window ends.
const UNTOLD: u64 = u64::MAX;

/// The pace of an account to Claude of which so much is used, in percent, with so many minutes left:
/// of five hours, and of a week. And whether it is spared.
fn paced(five_hours: Option<(u32, u64)>, week: Option<(u32, u64)>) -> (u32, bool) {
    let config = four(r#"{"spare_at": 0.9}"#);
    let (headroom, shared) = (headroom(&config), InMemory::default());
    let pool = &config.pools[0];
    let credential = &pool.credentials[0];
    let mut headers = Vec::new();
    for (name, window) in [("5h", five_hours), ("7d", week)] {
        let Some((percent, minutes)) = window else { continue };
        let name = |of| format!("anthropic-ratelimit-unified-{name}-{of}");
        let share = f64::from(percent) / 100.0;
        headers.push((name("utilization"), share.to_string()));
        if minutes != UNTOLD {
            headers.push((name("reset"), (1_800_000_000 + 60 * minutes).to_string()));
        }
    }
    let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    headroom.learn(credential, &headers, SONNET, &shared, at(0));
    let limits = headroom.limits(credential, Some(SONNET), &shared, at(0));
    (limits.pace, headroom.spares(&limits))
}

#[test]
fn what_is_left_is_weighed_by_the_time_that_it_has_to_last() {
    const DAY: u64 = 24 * 60;
    for (what, five_hours, week, expected) in [
        ("nothing is known", None, None, (1000, false)),
        ("used evenly so far", Some((50, 150)), None, (1000, false)),
        ("half is left for the last hour", Some((50, 60)), None, (2500, false)),
        ("of several the slowest counts", Some((50, 60)), Some((80, 7 * DAY / 2)), (400, false)),
        ("a window about to end is no magnet", Some((1, 1)), None, (4000, false)),
        ("what nears its limit is spared", Some((92, 240)), None, (100, true)),
        ("and what would be void as well", Some((92, 12)), None, (2000, true)),
        ("of which nothing is left is spared", Some((100, 1)), None, (0, true)),
        ("an end that is too far", None, Some((50, 30 * DAY)), (500, false)),
        ("ends that nobody says", Some((30, UNTOLD)), Some((85, UNTOLD)), (150, false)),
    ] {
        assert_eq!(paced(five_hours, week), expected, "{what}");
    }
}

#[test]
fn codex_says_how_long_its_windows_are() {
    for (minutes, expected) in [
        ("300", 2500),
        ("60", 500),
        ("0", 500),
        ("-5", 500),
        ("NaN", 500),
        ("1e300", 4000),
        ("x", 500),
    ] {
        let config = four("{}");
        let (headroom, shared) = (headroom(&config), InMemory::default());
        let pool = &config.pools[0];
        let headers = of(&[
            ("x-codex-primary-used-percent", "50"),
            ("x-codex-primary-reset-after-seconds", "3600"),
            ("x-codex-primary-window-minutes", minutes),
        ]);
        headroom.learn(&pool.credentials[0], &headers, "m", &shared, at(0));
        let limits = headroom.limits(&pool.credentials[0], Some("m"), &shared, at(0));
        assert_eq!(limits.pace, expected, "{minutes}");
    }
}

#[test]
fn a_small_account_gets_its_part_beside_a_large_one() {
    let config = config(
        r#"{"strategy": "headroom"}"#,
        r#"{"id": "max", "cluster": "a", "weight": 20}, {"id": "pro", "cluster": "b"}"#,
    );
    let (headroom, shared) = (headroom(&config), InMemory::default());
    let pool = &config.pools[0];
    let all: Vec<_> = pool.credentials.iter().collect();
    let mut picks =
        (0..42).map(|_| headroom.pick(&all, pool, (b"", "m"), &shared, at(0)).result.unwrap());
    let first = picks.position(|it| it.id == "pro");
    assert_eq!((first, picks.filter(|it| it.id == "pro").count()), (Some(5), 1));
}

#[test]
fn weights_multiply_the_room() {
    let config = config(
        r#"{"strategy": "headroom"}"#,
        r#"{"id": "max", "cluster": "a", "weight": 20}, {"id": "pro", "cluster": "b", "weight": 5}"#,
    );
    let (headroom, shared) = (headroom(&config), InMemory::default());
    let pool = &config.pools[0];
    let all: Vec<_> = pool.credentials.iter().collect();
    let picks =
        (0..100).map(|_| headroom.pick(&all, pool, (b"", "m"), &shared, at(0)).result.unwrap());
    assert_eq!(picks.filter(|it| it.id == "max").count(), 80);
}

#[test]
fn a_session_counts_as_one_while_it_goes_on_and_fades_when_it_ends() {
    let mut record = LoadRecord::default();
    record.carry(None, at(0));
    let close = |carried: f64, expected: f64| (carried - expected).abs() < 0.01;
    assert!(close(record.carried(at(0)), 1.0));
    assert!(close(record.carried(at(300)), 0.368));
    for turn in 1..=50 {
        record.carry(Some(Duration::from_secs(40)), at(40 * turn));
        assert!(close(record.carried(at(40 * turn)), 1.0), "turn {turn}");
    }
    assert!(record.carried(at(40 * 50 + 3600)) < 0.01);
    assert!(close(record.carried(at(40 * 50 - 30)), 1.0), "another clock is behind");
}

#[test]
fn a_hundred_parallel_starts_spread_over_four_credentials() {
    // Each start has read before any other writes: all but one of four lose the compare-and-swap.
    struct Racing(InMemory, std::cell::Cell<u32>);
    impl SharedData for Racing {
        fn get(&self, key: &str) -> Stored {
            self.0.get(key)
        }
        fn set(
            &self,
            key: &str,
            value: &[u8],
            cas: shared::Cas,
        ) -> Result<(), shared::CasMismatch> {
            self.1.set(self.1.get() + 1);
            if self.1.get().is_multiple_of(4) {
                self.0.set(key, value, cas)
            } else {
                Err(shared::CasMismatch)
            }
        }
    }
    let config = four(r#"{"strategy": "headroom"}"#);
    let (headroom, shared) = (headroom(&config), Racing(InMemory::default(), 0.into()));
    let pool = &config.pools[0];
    let all: Vec<_> = pool.credentials.iter().collect();
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..100 {
        let picked = headroom.pick(&all, pool, (b"", "m"), &shared, at(0));
        assert!(picked.written);
        *counts.entry(picked.result.unwrap().id.clone()).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [25, 25, 25, 25]);
}

/// A pool of so many credentials with these weights in turn.
fn many(count: usize, weights: &[u32]) -> Config {
    let credentials: Vec<_> = (0..count)
        .map(|number| {
            let weight = weights[number % weights.len()];
            format!(r#"{{"id": "c{number:04}", "cluster": "c", "weight": {weight}}}"#)
        })
        .collect();
    config(r#"{"strategy": "headroom"}"#, &credentials.join(", "))
}

/// How many of so many sessions that start at once each credential of a pool gets, in order.
fn starts(config: &Config, shared: &impl SharedData, count: usize) -> Vec<u32> {
    let (headroom, pool) = (headroom(config), &config.pools[0]);
    let all: Vec<_> = pool.credentials.iter().collect();
    let mut counts = vec![0; all.len()];
    for session in 0..count {
        let session = session.to_string();
        let picked = headroom.pick(&all, pool, (session.as_bytes(), "m"), shared, at(1));
        let id = &picked.result.unwrap().id;
        counts[all.iter().position(|it| it.id == *id).unwrap()] += 1;
    }
    counts
}

#[test]
fn parallel_starts_spread_over_a_few_and_over_hundreds() {
    for (credentials, sessions) in [(4, 100), (16, 160), (17, 170), (40, 400), (200, 2_000)] {
        let counts = starts(&many(credentials, &[1]), &InMemory::default(), sessions);
        let share = sessions as f64 / credentials as f64;
        let most = f64::from(*counts.iter().max().unwrap());
        assert!(most <= 1.3 * share, "{credentials}: {counts:?}");
        let least = f64::from(*counts.iter().min().unwrap());
        assert!(
            most - least <= 1.0 + f64::from(u8::from(credentials > sample::MOST)),
            "{counts:?}"
        );
    }
    let counts = starts(&many(200, &[1]), &InMemory::default(), 100);
    assert_eq!(counts.iter().max(), Some(&1), "a hundred sessions have a credential each");
}

#[test]
fn of_hundreds_of_credentials_a_heavy_one_gets_its_part() {
    // One in a hundred has as much as all others.
    let weights: Vec<_> = (0..100).map(|number| if number == 7 { 99 } else { 1 }).collect();
    let counts = starts(&many(200, &weights), &InMemory::default(), 1_000);
    let heavy = counts[7] + counts[107];
    assert!((400..=560).contains(&heavy), "{heavy}");
    assert!(counts[7].abs_diff(counts[107]) < 30, "{counts:?}");
    let light = (0..200).filter(|number| number % 100 != 7).map(|number| counts[number]).max();
    assert!(light <= Some(5), "{counts:?}");
}

#[test]
fn a_session_compares_a_few_of_many_and_all_where_these_have_no_room() {
    /// Counts what is read.
    struct Counting(InMemory, std::cell::Cell<usize>);
    impl SharedData for Counting {
        fn get(&self, key: &str) -> Stored {
            self.1.set(self.1.get() + 1);
            self.0.get(key)
        }
        fn set(
            &self,
            key: &str,
            value: &[u8],
            cas: shared::Cas,
        ) -> Result<(), shared::CasMismatch> {
            self.0.set(key, value, cas)
        }
    }
    let config = many(1_000, &[1]);
    let shared = Counting(InMemory::default(), 0.into());
    starts(&config, &shared, 1);
    assert_eq!(shared.1.take(), 2 * sample::MOST);
    // The same session, state and time: the same choice.
    let twice = [0, 1].map(|_| starts(&config, &InMemory::default(), 20));
    assert_eq!(twice[0], twice[1]);
    // All but one are to be spared or full: it gets every session.
    let (headroom, pool) = (headroom(&config), &config.pools[0]);
    let mut flights = Flights::new(1);
    for (at_, credential) in pool.credentials.iter().enumerate().filter(|(at_, _)| *at_ != 517) {
        if at_.is_multiple_of(2) {
            let headers = of(&[("x-codex-primary-used-percent", "95")]);
            headroom.learn(credential, &headers, "m", &shared, at(0));
        } else {
            headroom.learn_ceiling(credential, 1, &shared, at(0));
            flights.begin(&credential.flights_key, &shared, at(0));
        }
    }
    assert_eq!(starts(&config, &shared, 50)[517], 50);
}

#[test]
fn a_sample_has_everybody_as_often_as_its_weight_says() {
    let config = many(100, &[1, 3]);
    let all: Vec<_> = config.pools[0].credentials.iter().collect();
    let mut drawn = vec![0_u32; all.len()];
    for number in 0..5_000_u32 {
        let draw = Seed::STABLE.hash(&[&number.to_le_bytes()]);
        let few = sample::of(&all, draw);
        assert!((8..=sample::MOST).contains(&few.len()), "{}", few.len());
        assert!(few.is_sorted_by_key(|it| &it.id), "by id, as they were");
        for credential in few {
            drawn[all.iter().position(|it| it.id == credential.id).unwrap()] += 1;
        }
    }
    // Sixteen of two hundred parts: 8 % of the draws have one of weight 1, 24 % one of weight 3.
    for (number, &count) in drawn.iter().enumerate() {
        let expected = if number % 2 == 0 { 400 } else { 1_200 };
        assert!(count.abs_diff(expected) < 120, "{number}: {count}");
    }
    let one = sample::of(&all[..1], Seed::STABLE.hash(&[b"x"]));
    assert_eq!(one.len(), 1);
}

#[test]
fn a_ceiling_is_learnt_grows_and_is_forgotten() {
    let mut record = LoadRecord::default();
    assert_eq!(record.ceiling(at(0)), None);
    record.learn_ceiling(3, at(0));
    for (seconds, expected) in
        [(0, Some(2)), (59, Some(2)), (60, Some(3)), (599, Some(11)), (600, None)]
    {
        assert_eq!(record.ceiling(at(seconds)), expected, "after {seconds} s");
    }
    record.learn_ceiling(0, at(0));
    assert_eq!(record.ceiling(at(0)), Some(1), "it takes one");
}

#[test]
fn a_credential_that_takes_no_more_at_once_gets_no_new_session_with_any_strategy() {
    let credentials =
        r#"{"id": "a", "cluster": "a", "max_concurrent": 2}, {"id": "b", "cluster": "b"}"#;
    for strategy in ["round-robin", "fill-first", "consistent", "headroom"] {
        let config = config(&format!(r#"{{"strategy": "{strategy}"}}"#), credentials);
        let (headroom, shared) = (headroom(&config), InMemory::default());
        let pool = &config.pools[0];
        let all: Vec<_> = pool.credentials.iter().collect();
        let mut flights = Flights::new(1);
        let room = |now| headroom.with_room(all.clone(), pool, "m", &shared, now).len();
        assert!(headroom.counts_flights(pool));
        let first = flights.begin(&all[0].flights_key, &shared, at(0));
        assert_eq!(room(at(0)), 2);
        flights.begin(&all[0].flights_key, &shared, at(0));
        assert_eq!(room(at(0)), 1);
        flights.end(first, &shared, at(1));
        assert_eq!(room(at(1)), 2);
    }
}

#[test]
fn sparing_is_said_once_when_it_begins_and_once_when_it_ends() {
    let config = four(r#"{"spare_at": 0.9}"#);
    let (headroom, shared) = (headroom(&config), InMemory::default());
    let pool = &config.pools[0];
    let credential = &pool.credentials[0];
    let said =
        |now| headroom.note_sparing(credential, &shared, now).map(|(it, limits)| (it, limits.used));
    assert_eq!(said(at(0)), None);
    let headers = [
        ("anthropic-ratelimit-unified-5h-utilization", "0.93"),
        ("anthropic-ratelimit-unified-5h-reset", "1800003600"),
    ];
    headroom.learn(credential, &of(&headers), SONNET, &shared, at(1));
    assert_eq!([said(at(2)), said(at(3))], [Some((true, 930)), None]);
    assert_eq!([said(at(3600)), said(at(3601))], [Some((false, 0)), None], "its window has ended");
}

#[test]
fn a_ceiling_is_not_learnt_to_be_higher_by_a_refusal() {
    let mut record = LoadRecord::default();
    record.learn_ceiling(3, at(0));
    record.learn_ceiling(20, at(30));
    assert_eq!(record.ceiling(at(30)), Some(2));
    record.learn_ceiling(20, at(90));
    assert_eq!(record.ceiling(at(90)), Some(3), "it had grown by then");
}

#[test]
fn what_was_written_before_the_clock_was_set_back_counts_nothing() {
    let mut record = LoadRecord::default();
    record.carry(None, at(3600));
    record.learn_ceiling(3, at(3600));
    let models = |model: &str| Models::of(model, Seed::STABLE);
    let headers = of(&[("x-ratelimit-limit-tokens", "9"), ("x-ratelimit-remaining-tokens", "0")]);
    for model in 0..WINDOWS {
        let told = windows::told(&headers, &models(&format!("m{model}")), at(3600));
        record.keep(told, at(3600));
    }
    assert_eq!((record.carried(at(0)), record.ceiling(at(0))), (0.0, None));
    assert_eq!(record.windows(at(0)).count(), 0);
    assert!(record.keep(windows::told(&headers, &models("new"), at(0)), at(0)));
    assert_eq!(record.windows(at(0)).count(), 1, "it has a place");
}

#[test]
fn who_is_new_or_whole_again_gets_its_part_of_a_burst_and_not_all_of_it() {
    let config = four(r#"{"strategy": "headroom"}"#);
    let (headroom, shared) = (headroom(&config), InMemory::default());
    let pool = &config.pools[0];
    let all: Vec<_> = pool.credentials.iter().collect();
    let start = |from: &[&Credential], now| {
        let picked = headroom.pick(from, pool, (b"", "m"), &shared, now);
        picked.result.unwrap().id.clone()
    };
    // Three have a hundred sessions each, which go on; the fourth has none.
    (0..300).for_each(|_| drop(start(&all[..3], at(0))));
    let carried = [0, 1, 2].map(|of| headroom.record(all[of], &shared).carried(at(600)));
    assert!(carried.iter().all(|it| (13.0..15.0).contains(it)), "{carried:?}");
    for _ in 0..86 {
        for credential in &all[..3] {
            headroom.carry(credential, Duration::from_secs(100_000), &shared, at(600));
        }
    }
    let burst = (0..90).filter(|_| start(&all, at(600)) == "d").count();
    assert!((50..90).contains(&burst), "{burst}");
}

#[test]
fn buckets_of_a_minute_are_not_said_to_be_spared() {
    let config = four(r#"{"spare_at": 0.9}"#);
    let (headroom, shared) = (headroom(&config), InMemory::default());
    let pool = &config.pools[0];
    let credential = &pool.credentials[0];
    let headers = of(&[("x-ratelimit-limit-tokens", "100"), ("x-ratelimit-remaining-tokens", "1")]);
    headroom.learn(credential, &headers, "m", &shared, at(0));
    assert!(headroom.spares(&headroom.limits(credential, Some("m"), &shared, at(0))));
    assert!(headroom.note_sparing(credential, &shared, at(0)).is_none());
}
