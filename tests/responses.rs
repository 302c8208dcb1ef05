//! The table "What a response leads to" of ARCHITECTURE.md: every row is played through the core.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::time::Duration;

use serde_json::{Value, json};
use session_affinity::response::Failure;
use session_affinity::router::Decision;
use world::{Fate, SECOND, World, routed};

const MODEL: &str = "claude-opus-5";

/// A row of the table.
struct Row<'t> {
    kind: &'t str,
    example: &'t str,
    class: &'t str,
    scope: &'t str,
    served: &'t str,
    alone: &'t str,
    everywhere: &'t str,
    meanwhile: &'t str,
    next: &'t str,
    creation: &'t str,
}

fn rows(document: &str) -> Vec<Row<'_>> {
    let (_, section) = document.split_once("## What a response leads to\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let lines = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    lines
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [kind, example, class, scope, served, alone, everywhere, meanwhile, next, creation] =
                cells[..]
            else {
                panic!("{line}")
            };
            let example = example.trim_matches('`');
            Row { kind, example, class, scope, served, alone, everywhere, meanwhile, next, creation }
        })
        .collect()
}

/// The parts of an example: a status or a word; headers; a body.
struct Example<'t> {
    word: &'t str,
    headers: Vec<(&'t str, &'t str)>,
    body: &'t str,
    shares_an_endpoint: bool,
}

impl<'t> Example<'t> {
    fn of(text: &'t str) -> Self {
        let mut parts = text.split("; ");
        let word = parts.next().unwrap();
        let mut example = Self { word, headers: vec![], body: "", shares_an_endpoint: false };
        for part in parts {
            match part.split_once(": ") {
                _ if part.starts_with(['{', '<']) => example.body = part,
                Some(header) => example.headers.push(header),
                None => example.shares_an_endpoint = part == "shared",
            }
        }
        example
    }

    fn fate(&self) -> Fate<'_> {
        let failure = Failure::ALL.into_iter().find(|failure| failure.as_str() == self.word);
        match (failure, self.word) {
            (Some(failure), _) => Fate::Failed(failure),
            (None, "event") => Fate::Event(self.body),
            (None, status) => Fate::Says(status.parse().unwrap(), &self.headers, self.body),
        }
    }

    /// So many credentials, tried in the order of their ids.
    fn world(&self, count: u8) -> World {
        let ids = (b'a'..b'a' + count).map(|id| char::from(id).to_string());
        let credentials: Vec<Value> = ids
            .map(|id| {
                let cluster = if self.shares_an_endpoint { "shared" } else { &id };
                json!({"id": id, "cluster": cluster})
            })
            .collect();
        World::of(&json!({
            "routing": {"strategy": "fill-first"},
            "pools": [{"name": "p", "provider": "claude", "credentials": credentials}]
        }))
    }
}

fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        other => panic!("{other}"),
    };
    Duration::from_secs(number.parse::<u64>().unwrap() * seconds)
}

/// How long `a` is out for this model; `None` if it is not.
fn length(world: &World, model: &str) -> Option<Duration> {
    let blocks = world.blocks(model);
    let block = blocks.iter().find(|(id, _)| id == "a");
    block.and_then(|(_, block)| block.until()).map(|until| until.since(world.now))
}

/// Checks how long `a` is out after one failure, and after those of many sessions.
fn check(row: &Row<'_>, cell: &str, credentials: u8, fates: &[(&str, Fate<'_>)]) {
    let case = format!("{}: {} credentials, expected {cell}", row.kind, credentials);
    let example = Example::of(row.example);
    let mut world = example.world(credentials);
    world.play(&world.ask("0", MODEL), fates);
    if cell == "-" {
        assert_eq!(length(&world, MODEL), None, "{case}");
        return;
    }
    let (first, longest) = cell.split_once("..").unwrap_or((cell, cell));
    let first = Some(duration(first)).filter(|first| !first.is_zero());
    assert_eq!(length(&world, MODEL), first, "{case}: the first");
    for session in 1..20 {
        world.now += length(&world, MODEL).unwrap_or_default();
        world.play(&world.ask(&session.to_string(), MODEL), fates);
    }
    assert_eq!(length(&world, MODEL), Some(duration(longest)), "{case}: the longest");
}

/// Where a request goes by a cell: `a` always fails, and all others serve.
fn way(cell: &str) -> &'static str {
    match cell {
        "-" => "a",
        "another" => "a b",
        "same, another" => "a a b",
        other => panic!("{other}"),
    }
}

#[test]
fn every_response_leads_to_what_the_table_says() {
    let rows = rows(include_str!("../ARCHITECTURE.md"));
    assert!(rows.len() >= 25, "{}", rows.len());
    for row in &rows {
        let example = Example::of(row.example);
        let fate = example.fate();
        let kind = row.kind;

        let world = example.world(2);
        let mut plan = world.router.plan(routed(&world.ask("1", MODEL)), world.now);
        world.attempt(&mut plan);
        assert_eq!(world.end(&mut plan, fate).observed.as_str(), row.class, "{kind}");

        let world = example.world(2);
        let sent = world.play(&world.ask("2", MODEL), &[("a", fate)]);
        assert_eq!(sent.to, way(row.next), "{kind}");
        let scope = [MODEL, "claude-opus-4-1", "claude-haiku-4-5"]
            .map(|model| length(&world, model).is_some());
        let expected = match row.scope {
            "-" => [false, false, false],
            "model" => [true, false, false],
            "family" => [true, true, false],
            "credential" => [true, true, true],
            other => panic!("{other}"),
        };
        assert_eq!(scope, expected, "{kind}: what is out");

        // What happens to `a` while the other one waits for an announced end.
        let limit = [("retry-after", "9000000")];
        let limited = Fate::Says(429, &limit, "");
        world.play(&world.ask("3", MODEL), &[("b", limited), ("a", fate)]);
        if row.meanwhile != "-" {
            let decision = world.ask("4", MODEL);
            let meanwhile = match &decision {
                Decision::Reply(refusal) if refusal.reply.status == 429 => "refused",
                Decision::Route(route) if route.credential.id == "a" => "last",
                other => panic!("{kind}: {other}"),
            };
            assert_eq!(meanwhile, row.meanwhile, "{kind}");
        }

        check(row, row.served, 2, &[("a", fate)]);
        // No credential shares an endpoint alone.
        let alone = if example.shares_an_endpoint { 2 } else { 1 };
        check(row, row.alone, alone, &["a", "b"].map(|id| (id, fate)));
        check(row, row.everywhere, 3, &["a", "b", "c"].map(|id| (id, fate)));

        let world = example.world(2);
        let headers =
            [(":method", "POST"), (":path", "/v1/messages/batches"), ("x-session-id", "1")];
        let creation = world.decide(&headers, &json!({"model": MODEL}));
        assert_eq!(world.play(&creation, &[("a", fate)]).to, way(row.creation), "{kind}: creates");
    }
}

#[test]
fn the_longest_waits_of_the_table_are_the_configured_ones() {
    let world = Example::of("500").world(1);
    let cooldown = &world.router.config().cooldown;
    let defaults = [cooldown.transient, cooldown.max, cooldown.denied, cooldown.not_found];
    assert_eq!(defaults, ["1m", "30m", "30m", "12h"].map(duration));
    assert_eq!(cooldown.max_told, duration("7d"));
    assert_eq!(session_affinity::cooldown::FIRST, SECOND);
}
