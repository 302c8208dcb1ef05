//! The report of the demo: the credentials of each session, the load of each credential and the
//! tokens from caches, with affinity and without side by side; then what happened to sessions when
//! a credential was limited.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{Cell, Color, Table};

use super::comparison::Comparison;
use super::limit::{self, Limit};
use super::replay::{Run, Totals, Track, Turn};
use super::table::{align_right, grouped, table};

/// The whole report. Colours are for a terminal only.
pub fn render(comparison: &Comparison, limit: Option<&Limit>, terminal: bool) -> String {
    [
        "SESSIONS: the credential of each turn\n".to_owned(),
        sessions(comparison, terminal).trim_fmt(),
        "\nCREDENTIALS: the load of each, with affinity / without\n".to_owned(),
        balance(comparison, terminal).trim_fmt(),
        "\nCACHES: prompt tokens that the providers had cached\n".to_owned(),
        caches(comparison, terminal).trim_fmt(),
        uncached(comparison),
        "\nMEASURED: prompt tokens by decision, as the filter counts them\n".to_owned(),
        measured(comparison, terminal).trim_fmt(),
        limit.map_or_else(limit::report::absent, |limit| limit::report::render(limit, terminal)),
        closing(comparison),
    ]
    .join("\n")
}

fn sessions(comparison: &Comparison, terminal: bool) -> Table {
    let mut table = table(["session", "known by", "outcomes", "affinity", "without"], terminal);
    for (with, without) in comparison.with.sessions.iter().zip(&comparison.without.sessions) {
        let source = with.turns.last().and_then(|turn| turn.source.as_deref());
        table.add_row([
            Cell::new(&with.title),
            Cell::new(source.map_or("-", shown_source)),
            Cell::new(outcomes(with)),
            letters(with),
            letters(without),
        ]);
    }
    table
}

/// Where the client puts what the filter knows the session by.
fn shown_source(source: &str) -> &str {
    match source {
        "claude" | "user" => "user_id",
        "header" => "X-Session-ID",
        "amp" => "X-Amp-Thread-Id",
        "codex" => "session-id",
        "conv" => "conversation_id",
        "msg" => "first messages",
        other => other,
    }
}

/// The outcomes of all turns, such as `miss inherit 4×hit`.
fn outcomes(track: &Track) -> String {
    let same = track.turns.chunk_by(|one, other| one.outcome == other.outcome);
    let words = same.filter_map(|turns| match turns {
        [turn] => Some(turn.outcome.clone()),
        turns => Some(format!("{}×{}", turns.len(), turns.first()?.outcome)),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The last letters of the names, in which alone the credentials of one provider differ.
fn letters(track: &Track) -> Cell {
    let letters: Vec<&str> = track.turns.iter().map(Turn::letter).collect();
    let color = if track.credentials().len() == 1 { Color::Green } else { Color::Yellow };
    Cell::new(letters.concat()).fg(color)
}

fn balance(comparison: &Comparison, terminal: bool) -> Table {
    let mut table =
        table(["credential", "sessions", "requests", "prompt tokens", "from cache"], terminal);
    let both = [&comparison.with, &comparison.without];
    let names: BTreeSet<&str> =
        both.iter().flat_map(|run| run.turns()).map(|turn| turn.credential.as_str()).collect();
    for name in names {
        let sessions = both.map(|run| sessions_on(name, run).to_string());
        let totals = both.map(|run| Totals::of(run.turns().filter(|turn| turn.credential == name)));
        table.add_row([
            name.to_owned(),
            pair(sessions, 2),
            pair(totals.map(|totals| totals.requests.to_string()), 3),
            pair(totals.map(|totals| grouped(totals.prompt_tokens)), 9),
            pair(totals.map(|totals| totals.cached_share()), 4),
        ]);
    }
    align_right(&mut table, 1..5);
    table
}

/// How many sessions a credential served.
fn sessions_on(credential: &str, run: &Run) -> usize {
    run.sessions.iter().filter(|track| track.credentials().contains(credential)).count()
}

fn caches(comparison: &Comparison, terminal: bool) -> Table {
    let mut table =
        table(["provider", "prompt tokens", "with affinity", "", "without", ""], terminal);
    let (with, mut without) = (by_provider(&comparison.with), by_provider(&comparison.without));
    for (name, with) in with {
        table.add_row(cached(name, with, without.remove(name).unwrap_or_default()));
    }
    let all = [&comparison.with, &comparison.without].map(|run| Totals::of(run.turns()));
    let [with, without] = all;
    table.add_row(cached("all", with, without));
    align_right(&mut table, [1, 3, 5]);
    table
}

/// A row of the table of caches.
fn cached(name: &str, with: Totals, without: Totals) -> [Cell; 6] {
    [
        Cell::new(name),
        Cell::new(grouped(with.prompt_tokens)),
        Cell::new(bar(with)).fg(Color::Green),
        Cell::new(with.cached_share()),
        Cell::new(bar(without)).fg(Color::Yellow),
        Cell::new(without.cached_share()),
    ]
}

/// The tokens that had to be computed.
fn uncached(comparison: &Comparison) -> String {
    let (with, without) =
        (Totals::of(comparison.with.turns()), Totals::of(comparison.without.turns()));
    let factor = without.uncached_tokens() as f64 / with.uncached_tokens().max(1) as f64;
    format!(
        "\nPrompt tokens not in a cache: {} with affinity,\n{} without, {factor:.1} times as many.",
        grouped(with.uncached_tokens()),
        grouped(without.uncached_tokens()),
    )
}

/// What a decision is worth: the share of its prompts that the provider had in its cache.
fn measured(comparison: &Comparison, terminal: bool) -> Table {
    let mut table = table(["affinity", "decision", "prompt tokens", "from cache", ""], terminal);
    for (affinity, counted) in ["with", "without"].into_iter().zip(&comparison.measured) {
        for (outcome, prompts) in counted {
            let totals = Totals {
                prompt_tokens: prompts.tokens,
                cached_tokens: prompts.cached,
                ..Totals::default()
            };
            table.add_row([
                affinity.to_owned(),
                outcome.clone(),
                grouped(prompts.tokens),
                grouped(prompts.cached),
                totals.cached_share(),
            ]);
        }
    }
    align_right(&mut table, 2..5);
    table
}

/// What is real and what is simulated.
fn closing(comparison: &Comparison) -> String {
    format!(
        "
Real: Envoy {}, the filter, HTTP. The requests have the wire formats of real
clients, made-up texts and one model for each provider; with affinity and
without, the same bytes are sent in the same order.
Simulated, after the documentation of the providers: the models, rate limits,
and a prompt cache for each credential, as if each belonged to an organization
of its own. Four bytes are a token. All of it happens within seconds, so no
cache expires. What sessions share, such as system prompts, is cached on every
credential after its first use there, with affinity or without.
What is simulated and what is not: crates/simulated-providers/src/lib.rs.

cargo xtask run serves the same set-up until Ctrl-C; the operator's page is
then at http://127.0.0.1:9902/.",
        comparison.envoy,
    )
}

impl Totals {
    fn uncached_tokens(self) -> u64 {
        self.prompt_tokens - self.cached_tokens
    }
}

fn by_provider(run: &Run) -> BTreeMap<&str, Totals> {
    let names: BTreeSet<&str> = run.turns().map(Turn::provider).collect();
    names
        .into_iter()
        .map(|name| (name, Totals::of(run.turns().filter(|turn| turn.provider() == name))))
        .collect()
}

/// The cached share as a bar.
fn bar(work: Totals) -> String {
    const LENGTH: usize = 18;
    let filled = (work.cached_ratio() * LENGTH as f64).round() as usize;
    "█".repeat(filled) + &"░".repeat(LENGTH.saturating_sub(filled))
}

/// Two values, aligned with those of the other rows.
fn pair([with, without]: [String; 2], width: usize) -> String {
    format!("{with:>width$} / {without:>width$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Api;
    use crate::measured::Prompts;
    use crate::table::WIDTH;

    fn turn(credential: &str, outcome: &str, prompt_tokens: u64, cached_tokens: u64) -> Turn {
        let source = (outcome != "none").then(|| "msg".to_owned());
        let (credential, outcome, failed) = (credential.into(), outcome.into(), Vec::new());
        Turn { credential, failed, outcome, source, prompt_tokens, cached_tokens }
    }

    fn run([codex, claude]: [Vec<Turn>; 2]) -> Run {
        let (title, other) = ("Codex #1".into(), "Claude Code 2.1 #1".into());
        Run {
            sessions: vec![
                Track { title, api: Api::Responses, turns: codex },
                Track { title: other, api: Api::Messages, turns: claude },
            ],
        }
    }

    fn counted((outcome, tokens, cached): (&str, u64, u64)) -> (String, Prompts) {
        (outcome.to_owned(), Prompts { tokens, cached })
    }

    fn comparison() -> Comparison {
        Comparison {
            envoy: "1.40.0".parse().unwrap(),
            with: run([
                vec![
                    turn("openai-a", "miss", 900_000, 0),
                    turn("openai-a", "inherit", 1_000_000, 900_000),
                    turn("openai-a", "hit", 1_100_000, 1_000_000),
                    turn("openai-a", "hit", 1_100_000, 1_100_000),
                ],
                vec![turn("anthropic-b", "miss", 1000, 0)],
            ]),
            without: run([
                vec![
                    turn("openai-a", "none", 900_000, 0),
                    turn("openai-b", "none", 1_000_000, 0),
                    turn("openai-a", "none", 1_100_000, 900_000),
                    turn("openai-b", "none", 1_100_000, 1_000_000),
                ],
                vec![turn("anthropic-a", "none", 1000, 0)],
            ]),
            measured: [
                [("hit", 2_200_000, 2_100_000), ("miss", 901_000, 0)].map(counted).into(),
                [("none", 4_101_000, 1_900_000)].map(counted).into(),
            ],
        }
    }

    fn render(comparison: Comparison) -> String {
        super::render(&comparison, None, false)
    }

    #[test]
    fn with_and_without_are_side_by_side() {
        let report = render(comparison());
        let rows: Vec<Vec<&str>> =
            report.lines().map(|line| line.split_whitespace().collect()).collect();
        for row in [
            "Codex #1 first messages miss inherit 2×hit aaaa abab",
            "Claude Code 2.1 #1 first messages miss b a",
            "openai-a 1 / 1 4 / 2 4,100,000 / 2,000,000 73 % / 45 %",
            "openai-b 0 / 1 0 / 2 0 / 2,100,000 0 % / 48 %",
            "with hit 2,200,000 2,100,000 95 %",
            "without none 4,101,000 1,900,000 46 %",
            "openai 4,100,000 █████████████░░░░░ 73 % ████████░░░░░░░░░░ 46 %",
        ] {
            let words: Vec<_> = row.split(' ').collect();
            assert!(rows.contains(&words), "{row:?} in\n{report}");
        }
        let sentence =
            "not in a cache: 1,101,000 with affinity,\n2,201,000 without, 2.0 times as many.";
        assert!(report.contains(sentence), "{report}");
    }

    #[test]
    fn a_long_session_fits_the_width() {
        let mut comparison = comparison();
        for run in [&mut comparison.with, &mut comparison.without] {
            let turns = &mut run.sessions[0].turns;
            *turns = (0..40).map(|_| turns[0].clone()).collect();
        }
        for line in render(comparison).lines() {
            assert!(line.chars().count() <= usize::from(WIDTH), "{line}");
        }
    }

    #[test]
    fn a_session_that_moves_is_named() {
        let mut comparison = comparison();
        assert!(comparison.check().is_ok());
        comparison.with.sessions[0].turns[2].credential = "openai-b".into();
        assert_eq!(
            comparison.check().unwrap_err().to_string(),
            "not on one credential in spite of affinity: Codex #1"
        );
    }
}
