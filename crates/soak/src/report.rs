//! What was done and what came of it, as Markdown and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;
use envoy_harness::Version;
use serde_json::{Value, json};

use crate::history::{Arrival, Did, End, History, Request};
use crate::oracle::Verdict;
use crate::run::{Plan, seconds};

/// One run.
pub(crate) struct Part {
    pub(crate) plan: Plan,
    pub(crate) history: History,
    pub(crate) verdict: Verdict,
}

type Counts = BTreeMap<String, u64>;

impl Part {
    fn name(&self) -> String {
        format!(
            "{} on {}, {}",
            self.plan.mode.as_str(),
            self.plan.workers,
            self.plan.strategy.as_str()
        )
    }

    fn counts(&self) -> [(&'static str, Counts); 8] {
        let history = &self.history;
        let by = |word: fn(&Request) -> String| count(history.requests.iter().map(word));
        let sum = |(name, count)| (name, count);
        [
            ("what was done", self.totals()),
            ("requests by where their session is named", by(|it| it.named_by.to_owned())),
            ("requests by protocol", by(|it| it.protocol.to_owned())),
            ("requests by what their client did", by(|it| it.manner.to_owned())),
            ("requests by how they ended", by(outcome)),
            ("requests by what the filter decided", by(decision)),
            ("attempts by what the provider did", count(history.arrivals.iter().map(did))),
            (
                "tolerances used",
                self.verdict.tolerated.iter().map(|(it, n)| sum((it.to_string(), *n))).collect(),
            ),
        ]
    }

    fn totals(&self) -> Counts {
        let history = &self.history;
        let mut sessions: Vec<_> = history.requests.iter().map(|it| it.session).collect();
        sessions.sort_unstable();
        sessions.dedup();
        let listeners = history.updates.iter().filter(|it| it.is_listener).count() as u64;
        let traps = history.updates.iter().filter(|it| it.is_trap).count() as u64;
        let largest = history.requests.iter().map(|it| it.body.length).max().unwrap_or_default();
        let bytes: u64 = history.requests.iter().map(|it| it.body.length).sum();
        [
            ("sessions", sessions.len() as u64),
            ("requests", history.requests.len() as u64),
            ("attempts that reached a provider", history.arrivals.len() as u64),
            ("updates of credentials", history.updates.len() as u64 - listeners - traps),
            ("replacements of the listener", listeners),
            ("traps of a VM", traps),
            ("closed ports", history.closed.len() as u64),
            ("largest request in KB", largest >> 10),
            ("all requests in MB", bytes >> 20),
        ]
        .map(|(name, count)| (name.to_owned(), count))
        .into()
    }
}

fn count(words: impl Iterator<Item = String>) -> Counts {
    let mut counts = Counts::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    counts
}

fn outcome(request: &Request) -> String {
    match &request.end {
        End::Answered(answer) if answer.is_left => format!("{}, left by its client", answer.status),
        End::Answered(answer) if !answer.is_whole => format!("{}, cut", answer.status),
        End::Answered(answer) => answer.status.to_string(),
        End::Broken(_) => "no response".to_owned(),
        End::Aborted(_) => "aborted before a response".to_owned(),
        End::Hung => "hung".to_owned(),
    }
}

fn decision(request: &Request) -> String {
    let word = match &request.end {
        End::Answered(answer) => answer.decision.split(' ').next(),
        _ => None,
    };
    let word = word.and_then(|word| word.strip_prefix("outcome="));
    word.unwrap_or("not known").to_owned()
}

fn did(arrival: &Arrival) -> String {
    match (arrival.fault, &arrival.did) {
        (Some(fault), _) => fault.to_owned(),
        (None, Did::Answered { .. }) => "served well".to_owned(),
        (None, Did::Left) => "left by Envoy".to_owned(),
        (None, Did::Waits) => "not finished".to_owned(),
        (None, Did::Cut { .. } | Did::Broke) => "cut by a closed port".to_owned(),
    }
}

/// The page.
pub(crate) fn page(command: &str, version: Version, parts: &[Part]) -> String {
    let mut page = format!("# Soak\n\n`{command}`, on Envoy {version}\n\n");
    let broken: usize = parts.iter().map(|part| part.verdict.violations.len()).sum();
    let _ = writeln!(page, "Violations: {broken}\n");
    let rows: Vec<(String, Vec<String>)> = rules(parts);
    table(&mut page, "rule", parts, &rows);
    let all: Vec<_> = parts.iter().map(Part::counts).collect();
    for (number, (title, _)) in all.first().into_iter().flatten().enumerate() {
        let counts: Vec<&Counts> =
            all.iter().filter_map(|counts| counts.get(number)).map(|(_, it)| it).collect();
        let mut names: Vec<&String> = counts.iter().flat_map(|counts| counts.keys()).collect();
        names.sort();
        names.dedup();
        let rows: Vec<_> = names
            .into_iter()
            .map(|name| {
                let cells = counts.iter().map(|counts| match counts.get(name) {
                    Some(count) => count.to_string(),
                    None => "–".to_owned(),
                });
                (name.clone(), cells.collect())
            })
            .collect();
        if !rows.is_empty() {
            table(&mut page, title, parts, &rows);
        }
    }
    table(&mut page, "memory in MB", parts, &memory(parts));
    for part in parts {
        for violation in &part.verdict.violations {
            let request = violation.request.map(|id| format!("request {id}, "));
            let _ = writeln!(
                page,
                "- **{}** ({}, {}seed {}): {}",
                violation.rule,
                part.name(),
                request.unwrap_or_default(),
                part.plan.seed,
                violation.story
            );
        }
    }
    page
}

fn rules(parts: &[Part]) -> Vec<(String, Vec<String>)> {
    let mut rules: Vec<_> = parts.iter().flat_map(|part| part.verdict.judged.keys()).collect();
    rules.sort();
    rules.dedup();
    let cell = |part: &Part, rule| {
        let broken = part.verdict.violations.iter().filter(|it| it.rule == rule).count();
        let judged = part.verdict.judged.get(&rule).copied().unwrap_or_default();
        format!("{broken} of {judged}")
    };
    let rows = rules.into_iter().map(|rule| {
        (rule.to_string(), parts.iter().map(|part| cell(part, *rule)).collect::<Vec<_>>())
    });
    rows.collect()
}

fn memory(parts: &[Part]) -> Vec<(String, Vec<String>)> {
    let row = |name: &str, bytes: fn(&History) -> u64| {
        let cells = parts.iter().map(|part| (bytes(&part.history) >> 20).to_string());
        (name.to_owned(), cells.collect())
    };
    vec![
        row("allocated after the warm-up", |it| it.ending.memory_before),
        row("allocated at the end", |it| it.ending.memory_after),
        row("resident after the warm-up", |it| it.ending.resident_before),
        row("resident at the end", |it| it.ending.resident_after),
    ]
}

fn table(page: &mut String, title: &str, parts: &[Part], rows: &[(String, Vec<String>)]) {
    let names: Vec<_> = parts.iter().map(Part::name).collect();
    let _ = writeln!(page, "| {title} | {} |", names.join(" | "));
    let _ = writeln!(page, "|---|{}", "---:|".repeat(parts.len()));
    for (name, cells) in rows {
        let _ = writeln!(page, "| {name} | {} |", cells.join(" | "));
    }
    page.push('\n');
}

/// The same for programs.
///
/// # Errors
/// If it cannot be written as JSON.
pub(crate) fn json(command: &str, parts: &[Part]) -> Result<String> {
    let parts: Vec<Value> = parts
        .iter()
        .map(|part| {
            let counts: BTreeMap<_, _> = part.counts().into_iter().collect();
            let ending = &part.history.ending;
            let violations: Vec<_> = part
                .verdict
                .violations
                .iter()
                .map(|it| {
                    json!({"rule": it.rule.to_string(), "request": it.request, "story": it.story})
                })
                .collect();
            let judged: BTreeMap<_, _> =
                part.verdict.judged.iter().map(|(rule, n)| (rule.to_string(), n)).collect();
            json!({
                "way": part.plan.mode.as_str(),
                "strategy": part.plan.strategy.as_str(),
                "workers": part.plan.workers,
                "seed": part.plan.seed,
                "seconds": part.plan.length.as_secs(),
                "violations": violations,
                "judged": judged,
                "counts": counts,
                "memory": {
                    "allocated": [ending.memory_before, ending.memory_after],
                    "resident": [ending.resident_before, ending.resident_after],
                },
                "last_request": part.history.requests.last().map(|it| seconds(it.ended)),
            })
        })
        .collect();
    Ok(serde_json::to_string_pretty(&json!({"command": command, "runs": parts}))? + "\n")
}
