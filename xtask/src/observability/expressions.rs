//! Every PromQL expression that is published: in the rules, the dashboard and the documents.

#![allow(clippy::indexing_slicing, reason = "what a JSON value lacks is null")]

use std::path::Path;

use anyhow::{Context, Result, ensure};
use envoy_harness::project_root;
use serde::Deserialize;
use serde_json::Value;

use super::text_of;

/// Documents with expressions that can be asked of an Envoy that routes.
const DOCUMENTS: [&str; 1] = ["docs/usage.md"];

/// Comparisons: at the beginning of a line they are the condition of an alert.
const COMPARISONS: [&str; 6] = ["==", "!=", ">=", "<=", ">", "<"];

/// What Grafana puts in for its variables.
const VARIABLES: [(&str, &str); 3] =
    [("$__rate_interval", "1m"), ("$__range", "5m"), ("$pool", ".*")];

/// An expression, and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expression {
    pub(super) origin: String,
    pub(super) text: String,
}

/// All of them.
///
/// # Errors
/// If a file is missing, or has none.
pub(super) fn all(folder: &Path) -> Result<Vec<Expression>> {
    let rules = of_rules(&text_of(&folder.join("rules.yml"))?)?;
    let dashboard = of_dashboard(&text_of(&folder.join("dashboard.json"))?)?;
    ensure!(!rules.is_empty() && !dashboard.is_empty(), "there are no expressions");
    let mut expressions = [rules, dashboard].concat();
    for name in DOCUMENTS {
        expressions.extend(of_document(name, &text_of(&project_root().join(name))?));
    }
    Ok(expressions)
}

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    record: Option<String>,
    alert: Option<String>,
    expr: String,
}

fn of_rules(text: &str) -> Result<Vec<Expression>> {
    let rules: Rules = serde_saphyr::from_str(text).context("in rules.yml")?;
    let rules = rules.groups.into_iter().flat_map(|group| group.rules);
    Ok(rules
        .map(|Rule { record, alert, expr }| Expression {
            origin: format!("rules.yml, {}", alert.or(record).unwrap_or_default()),
            text: unconditional(&expr),
        })
        .collect())
}

/// An alert without its condition returns what it compares: nobody waits for something to break.
fn unconditional(expression: &str) -> String {
    let lines = expression.lines().map(|line| {
        let condition = line.trim_start();
        let comparison = COMPARISONS.iter().find_map(|it| Some((it, condition.strip_prefix(it)?)));
        match comparison {
            Some((comparison, rest)) => format!("{comparison} bool{rest}"),
            None => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn of_dashboard(text: &str) -> Result<Vec<Expression>> {
    let dashboard: Value = serde_json::from_str(text).context("in dashboard.json")?;
    let panels = dashboard["panels"].as_array().context("the dashboard has no panels")?;
    let mut expressions = Vec::new();
    for panel in panels {
        let origin = format!("dashboard, {}", panel["title"].as_str().unwrap_or_default());
        for target in panel["targets"].as_array().into_iter().flatten() {
            let mut text = target["expr"].as_str().context("a target has no expr")?.to_owned();
            for (variable, value) in VARIABLES {
                text = text.replace(variable, value);
            }
            ensure!(!text.contains('$'), "{origin}: an unknown variable in {text}");
            expressions.push(Expression { origin: origin.clone(), text });
        }
    }
    Ok(expressions)
}

fn of_document(name: &str, text: &str) -> Vec<Expression> {
    let blocks = text.split("\n```").skip(1).step_by(2);
    let blocks = blocks.filter_map(|block| block.strip_prefix("promql\n"));
    blocks.map(|text| Expression { origin: name.to_owned(), text: text.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_returns_what_it_compares() {
        assert_eq!(unconditional("a\n  / b\n  < 0.5\n"), "a\n  / b\n< bool 0.5");
        assert_eq!(unconditional("sum(a)\n== 0"), "sum(a)\n== bool 0");
        assert_eq!(unconditional("a > 1"), "a > 1", "within a line it is part of the question");
    }

    #[test]
    fn the_published_expressions_are_found() {
        let folder = project_root().join(super::super::FOLDER);
        let all = all(&folder).unwrap();
        let has = |origin: &str| all.iter().any(|it| it.origin == origin);
        assert!(has("rules.yml, SessionAffinityVmReloaded") && has("docs/usage.md"));
        assert!(has("dashboard, Cached share by decision"));
        let alerts = all.iter().filter(|it| it.origin.contains(", SessionAffinity"));
        assert!(alerts.clone().count() >= 7);
        alerts.for_each(|alert| assert!(alert.text.contains(" bool "), "{alert:?}"));
    }
}
