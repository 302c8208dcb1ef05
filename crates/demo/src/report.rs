//! What the demo tells people: the way of each conversation, the balance over the credentials, the
//! tokens that came from caches, with affinity and without side by side; then what became of
//! conversations when a credential was limited.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{Cell, Color, Table};

use super::comparison::Comparison;
use super::limit::{self, Limit};
use super::replay::{Run, Track, Turn, Work};
use super::table::{align_right, grouped, table};

/// The whole report. Colours are for a terminal only.
pub fn render(comparison: &Comparison, limit: Option<&Limit>, terminal: bool) -> String {
    [
        "CONVERSATIONS: which credential served each turn\n".to_owned(),
        conversations(comparison, terminal).trim_fmt(),
        "\nCREDENTIALS: what each had to do, with affinity / without\n".to_owned(),
        balance(comparison, terminal).trim_fmt(),
        "\nCACHES: prompt tokens that the providers need not read anew\n".to_owned(),
        caches(comparison, terminal).trim_fmt(),
        uncached(comparison),
        limit.map_or_else(limit::report::absent, |limit| limit::report::render(limit, terminal)),
        closing(comparison),
    ]
    .join("\n")
}

fn conversations(comparison: &Comparison, terminal: bool) -> Table {
    let mut table = table(
        ["conversation", "API", "known by", "decisions", "with affinity", "without"],
        terminal,
    );
    for (with, without) in
        comparison.with.conversations.iter().zip(&comparison.without.conversations)
    {
        let source = with.turns.last().and_then(|turn| turn.source.as_deref());
        table.add_row([
            Cell::new(&with.title),
            Cell::new(with.api.as_str()),
            Cell::new(source.map_or("-", place)),
            Cell::new(outcomes(with)),
            letters(with),
            letters(without),
        ]);
    }
    table
}

/// Where a client puts what the filter knows its conversation by.
fn place(source: &str) -> &str {
    match source {
        "claude" | "user" => "metadata.user_id",
        "header" => "X-Session-ID",
        "amp" => "X-Amp-Thread-Id",
        "codex" => "session-id",
        "conv" => "conversation_id",
        "msg" => "first messages",
        other => other,
    }
}

/// Such as `miss inherit 4×hit`.
fn outcomes(track: &Track) -> String {
    let same = track.turns.chunk_by(|one, other| one.outcome == other.outcome);
    let words = same.filter_map(|turns| match turns {
        [turn] => Some(turn.outcome.clone()),
        turns => Some(format!("{}×{}", turns.len(), turns.first()?.outcome)),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The last letters of the names, which is all in which the credentials of one provider differ.
fn letters(track: &Track) -> Cell {
    let letters: Vec<&str> = track.turns.iter().map(Turn::letter).collect();
    let color = if track.credentials().len() == 1 { Color::Green } else { Color::Yellow };
    Cell::new(letters.join(" ")).fg(color)
}

fn balance(comparison: &Comparison, terminal: bool) -> Table {
    let mut table =
        table(["credential", "conversations", "requests", "prompt tokens", "from cache"], terminal);
    let both = [&comparison.with, &comparison.without];
    let names: BTreeSet<&str> =
        both.iter().flat_map(|run| run.turns()).map(|turn| turn.credential.as_str()).collect();
    for name in names {
        let served = |track: &&Track| track.credentials().contains(name);
        let conversations =
            both.map(|run| run.conversations.iter().filter(served).count().to_string());
        let work = both.map(|run| Work::of(run.turns().filter(|turn| turn.credential == name)));
        table.add_row([
            name.to_owned(),
            pair(conversations, 2),
            pair(work.map(|work| work.requests.to_string()), 3),
            pair(work.map(|work| grouped(work.prompt_tokens)), 9),
            pair(work.map(|work| work.cached_share()), 4),
        ]);
    }
    align_right(&mut table, 1..5);
    table
}

fn caches(comparison: &Comparison, terminal: bool) -> Table {
    let mut table =
        table(["provider", "prompt tokens", "with affinity", "", "without", ""], terminal);
    let mut add = |name: &str, with: Work, without: Work| {
        table.add_row([
            Cell::new(name),
            Cell::new(grouped(with.prompt_tokens)),
            Cell::new(bar(with)).fg(Color::Green),
            Cell::new(with.cached_share()),
            Cell::new(bar(without)).fg(Color::Yellow),
            Cell::new(without.cached_share()),
        ]);
    };
    let (with, mut without) = (by_provider(&comparison.with), by_provider(&comparison.without));
    for (name, with) in with {
        add(name, with, without.remove(name).unwrap_or_default());
    }
    add("all", Work::of(comparison.with.turns()), Work::of(comparison.without.turns()));
    align_right(&mut table, [1, 3, 5]);
    table
}

/// What the numbers mean.
fn uncached(comparison: &Comparison) -> String {
    let (with, without) = (Work::of(comparison.with.turns()), Work::of(comparison.without.turns()));
    let factor = without.uncached_tokens() as f64 / with.uncached_tokens().max(1) as f64;
    format!(
        "\nPrompt tokens not in a cache: {} with affinity, {} without, {factor:.1} times as many.",
        grouped(with.uncached_tokens()),
        grouped(without.uncached_tokens()),
    )
}

/// What they are worth.
fn closing(comparison: &Comparison) -> String {
    format!(
        "\nReal: Envoy {}, the filter, HTTP. The requests have the wire formats of real clients, made-up\n\
         texts and one model for each provider; with affinity and without, the same bytes are sent in the\n\
         same order.\n\
         Simulated, after the providers' documentation: the models, rate limits, and a prompt cache for each\n\
         credential, as if each belonged to an organization of its own. Four bytes are a token. It all\n\
         happens within seconds, so no cache expires. What conversations share, such as system prompts, is\n\
         cached on every credential after its first use there, with affinity or without.\n\
         What is simulated and what is not: crates/simulated-providers/src/lib.rs.",
        comparison.envoy,
    )
}

impl Work {
    fn uncached_tokens(self) -> u64 {
        self.prompt_tokens - self.cached_tokens
    }
}

fn by_provider(run: &Run) -> BTreeMap<&str, Work> {
    let names: BTreeSet<&str> = run.turns().map(Turn::provider).collect();
    names
        .into_iter()
        .map(|name| (name, Work::of(run.turns().filter(|turn| turn.provider() == name))))
        .collect()
}

/// A share as a picture.
fn bar(work: Work) -> String {
    const LENGTH: usize = 20;
    let filled = (work.cached_ratio() * LENGTH as f64).round() as usize;
    "█".repeat(filled) + &"░".repeat(LENGTH.saturating_sub(filled))
}

/// Two values so that those of all rows stand below each other.
fn pair([with, without]: [String; 2], width: usize) -> String {
    format!("{with:>width$} / {without:>width$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Api;
    use crate::table::WIDTH;

    fn turn(credential: &str, outcome: &str, prompt_tokens: u64, cached_tokens: u64) -> Turn {
        let source = (outcome != "none").then(|| "msg".to_owned());
        let (credential, outcome, failed) = (credential.into(), outcome.into(), Vec::new());
        Turn { credential, failed, outcome, source, prompt_tokens, cached_tokens }
    }

    fn comparison() -> Comparison {
        let run = |turns: [Vec<Turn>; 2]| {
            let names = [("Codex #1", Api::Responses), ("Claude Code 2.1 #1", Api::Messages)];
            let track = |((title, api), turns): ((&str, Api), Vec<Turn>)| Track {
                title: title.into(),
                api,
                turns,
            };
            Run { conversations: names.into_iter().zip(turns).map(track).collect() }
        };
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
        }
    }

    fn render(comparison: Comparison) -> String {
        super::render(&comparison, None, false)
    }

    #[test]
    fn with_and_without_stand_side_by_side() {
        let report = render(comparison());
        let has = |words: &[&str]| {
            let same = |line: &str| {
                line.split_whitespace().eq(words.iter().flat_map(|word| word.split(' ')))
            };
            assert!(report.lines().any(same), "{words:?} in\n{report}");
        };
        has(&[
            "Codex #1",
            "responses",
            "first messages",
            "miss inherit 2×hit",
            "a a a a",
            "a b a b",
        ]);
        has(&["Claude Code 2.1 #1", "messages", "first messages", "miss", "b", "a"]);
        has(&["openai-a", "1 / 1", "4 / 2", "4,100,000 / 2,000,000", "73 % / 45 %"]);
        has(&["openai-b", "0 / 1", "0 / 2", "0 / 2,100,000", "0 % / 48 %"]);
        has(&["openai", "4,100,000", "███████████████░░░░░ 73 %", "█████████░░░░░░░░░░░ 46 %"]);
        assert!(
            report.contains(
                "not in a cache: 1,101,000 with affinity, 2,201,000 without, 2.0 times as many."
            ),
            "{report}"
        );
    }

    #[test]
    fn a_long_conversation_stays_within_the_width() {
        let mut comparison = comparison();
        for run in [&mut comparison.with, &mut comparison.without] {
            let turns = &mut run.conversations[0].turns;
            *turns = (0..40).map(|_| turns[0].clone()).collect();
        }
        for line in render(comparison).lines() {
            assert!(line.chars().count() <= usize::from(WIDTH), "{line}");
        }
    }

    #[test]
    fn a_conversation_that_moves_is_named() {
        let mut comparison = comparison();
        assert!(comparison.check().is_ok());
        comparison.with.conversations[0].turns[2].credential = "openai-b".into();
        assert_eq!(
            comparison.check().unwrap_err().to_string(),
            "not on one credential, although affinity was on: Codex #1"
        );
    }
}
