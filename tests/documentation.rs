//! What we publish works: every configuration in the README, in `envoy.yaml` and in `examples/` is
//! one that the filter accepts.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;

use anyhow::{Context, Result};
use envoy_harness::project_root;
use envoy_harness::{Fixture, Mode};
use session_affinity::config::Config;
use session_affinity::outcome::Outcome;
use session_affinity::session::Sources;

fn readme() -> Result<String> {
    fs::read_to_string(project_root().join("README.md")).context("README.md")
}

/// The fenced blocks of a language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let parts = text.split("\n```");
    parts.filter_map(|part| part.strip_prefix(language)?.strip_prefix('\n')).collect()
}

fn accept(json: &str) -> Config {
    Config::parse(json.as_bytes())
        .unwrap_or_else(|problems| panic!("{json}\n{:#?}", problems.lines()))
}

#[test]
fn every_configuration_of_the_readme_is_accepted() -> Result<()> {
    let readme = readme()?;
    let configurations = blocks(&readme, "json");
    assert_eq!(configurations.len(), 2);
    configurations.into_iter().for_each(|json| assert!(accept(json).warnings.is_empty()));
    Ok(())
}

#[test]
fn every_configuration_that_is_shipped_is_accepted() -> Result<()> {
    for mode in Mode::ALL {
        let mut json = String::new();
        Fixture::shipped(mode)?.edit_filter(|filter| json = filter.to_string())?;
        let config = Config::parse_with(json.as_bytes(), &|_| Some("key".to_owned()));
        let config = config
            .unwrap_or_else(|problems| panic!("{}\n{:#?}", mode.shipped_file(), problems.lines()));
        assert!(config.warnings.is_empty());
        let credentials: Vec<_> = config.pools.iter().map(|pool| pool.credentials.len()).collect();
        assert_eq!(credentials, if mode == Mode::Replicas { vec![3] } else { vec![3, 2, 2] });
    }
    Ok(())
}

#[test]
fn the_readme_tells_every_source_and_every_outcome() -> Result<()> {
    let readme = readme()?;
    for name in Sources::names() {
        assert!(readme.contains(&format!("| `{name}`")), "the source {name}");
    }
    for outcome in Outcome::ALL {
        assert!(
            readme.contains(&format!("| `{}` |", outcome.as_str())),
            "the outcome {}",
            outcome.as_str()
        );
    }
    Ok(())
}
