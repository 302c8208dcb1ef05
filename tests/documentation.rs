//! What we publish works: the filter accepts every configuration in the documents and in the
//! shipped files, every link leads somewhere, and every command and test that is named exists.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use session_affinity::config::Config;
use session_affinity::metrics::Metric;
use session_affinity::outcome::{Failover, Outcome, TokenType};
use session_affinity::pins::KINDS;
use session_affinity::router::short;
use session_affinity::session::Sources;
use session_affinity::usage::Unread;

/// Words that mark translated prose, or a second word for one idea.
const BANNED: [&str; 14] = [
    "whom",
    "nobody",
    "told",
    "stands",
    "learnt",
    "so many",
    "as in life",
    "parted",
    "conversation",
    "conversations",
    "story",
    "stories",
    "dialogue",
    "frozen",
];

struct Document {
    /// Relative to the root of the project.
    name: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> Document {
    let text = fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    Document { name: name.to_owned(), text }
}

/// README and its neighbours, everything in `docs/`, and the pages beside data.
fn documents() -> Vec<Document> {
    let folders = ["", "docs", "tests/vectors", "fuzz"].map(|folder| root().join(folder));
    let pages = folders.iter().flat_map(|folder| files(folder, "md"));
    let names = pages.map(|page| page.strip_prefix(root()).unwrap().to_string_lossy().into_owned());
    names.map(|name| read(&name)).collect()
}

/// The files of a folder with this extension, without those of its folders.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.is_file() && path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

/// All Rust sources below a folder; none if it does not exist.
fn sources_below(folder: &Path) -> String {
    let Ok(entries) = fs::read_dir(folder) else {
        return String::new();
    };
    let mut text = String::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() && !path.ends_with("target") {
            text.push_str(&sources_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
    text
}

impl Document {
    /// The fenced blocks of a language.
    fn blocks<'t>(&'t self, language: &str) -> impl Iterator<Item = &'t str> {
        let fenced = self.text.split("\n```").skip(1).step_by(2);
        fenced.filter_map(move |block| block.strip_prefix(language)?.strip_prefix('\n'))
    }

    /// The text without fenced blocks.
    fn prose(&self) -> String {
        self.text.split("\n```").step_by(2).collect()
    }

    /// The spans of code in the prose.
    fn spans(&self) -> Vec<String> {
        let prose = self.prose();
        prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    /// The targets of the links.
    fn links(&self) -> Vec<String> {
        let prose = self.prose();
        let behind = prose.split("](").skip(1);
        behind.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
    }

    /// What links into the page may name, formed as GitHub forms it.
    fn anchors(&self) -> Vec<String> {
        let prose = self.prose();
        let headings = prose.lines().filter(|line| line.starts_with('#'));
        headings.map(|heading| anchor(heading.trim_start_matches('#').trim())).collect()
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

/// The configuration is accepted without a warning; its keys may come from the environment.
fn accept(origin: &str, json: &str) {
    let config = Config::parse_with(json.as_bytes(), &|_| Some("key".to_owned()))
        .unwrap_or_else(|problems| panic!("{origin}: {problems:?}\n{json}"));
    assert!(config.warnings.is_empty(), "{origin}: {:?}", config.warnings);
}

fn yaml(origin: &str, text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{origin}: {e}\n{text}"))
}

/// The configurations of the filter in a part of Envoy's.
fn filter_configurations(value: &Value) -> Vec<&Value> {
    let is_filter = value["root_id"].as_str().is_some_and(|id| id.starts_with("session_affinity"));
    if is_filter {
        return vec![&value["configuration"]["value"]];
    }
    match value {
        Value::Object(members) => members.values().flat_map(filter_configurations).collect(),
        Value::Array(elements) => elements.iter().flat_map(filter_configurations).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn every_configuration_in_a_document_is_accepted() {
    let mut accepted = 0;
    for document in documents() {
        for json in document.blocks("json") {
            accept(&document.name, json);
            accepted += 1;
        }
    }
    assert_eq!(accepted, 7);
}

#[test]
fn every_part_of_envoys_configuration_in_a_document_is_well_formed() {
    for document in documents() {
        for block in document.blocks("yaml") {
            let part = yaml(&document.name, block);
            let configurations = filter_configurations(&part);
            configurations.iter().for_each(|found| accept(&document.name, &found.to_string()));
        }
    }
}

#[test]
fn the_readme_shows_the_filter_with_two_credentials() {
    let readme = read("README.md");
    let part = yaml("README.md", readme.blocks("yaml").next().unwrap());
    let plugin = &part[0]["typed_config"]["config"];
    assert_eq!(part[0]["name"], "envoy.filters.http.wasm");
    assert_eq!(plugin["root_id"], "session_affinity");
    assert_eq!(plugin["allow_on_headers_stop_iteration"], true);
    let config = &plugin["configuration"]["value"];
    assert_eq!(config["pools"][0]["credentials"].as_array().unwrap().len(), 2);
}

#[test]
fn every_shipped_configuration_is_accepted() {
    let examples = files(&root().join("examples"), "yaml");
    for path in examples.into_iter().chain([root().join("envoy.yaml")]) {
        let name = path.display().to_string();
        if name.ends_with("mixed.yaml") {
            // An input of the generator.
            continue;
        }
        let document = yaml(&name, &fs::read_to_string(&path).unwrap());
        let configurations = filter_configurations(&document);
        assert!(!configurations.is_empty(), "{name}");
        configurations.iter().for_each(|found| accept(&name, &found.to_string()));
    }
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    for document in &documents {
        let folder = root().join(&document.name).parent().unwrap().to_owned();
        for link in document.links().iter().filter(|link| !link.contains("://")) {
            let origin = format!("{} links to {link}", document.name);
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { root().join(&document.name) } else { folder.join(file) };
            let target = target.canonicalize().unwrap_or_else(|e| panic!("{origin}: {e}"));
            if fragment.is_empty() {
                continue;
            }
            let page = documents.iter().find(|page| root().join(&page.name) == target);
            let anchors = page.unwrap_or_else(|| panic!("{origin}")).anchors();
            assert!(anchors.iter().any(|known| known == fragment), "{origin}: {anchors:?}");
        }
    }
}

#[test]
fn every_command_that_is_named_exists() {
    let tool = sources_below(&root().join("xtask/src"));
    for document in documents() {
        let named = document.text.split("cargo xtask ").skip(1);
        for rest in named.filter(|rest| rest.starts_with(|first: char| first.is_ascii_lowercase()))
        {
            let command: String =
                rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            let variant = camel_case(&command);
            let is_variant = |line: &str| {
                let after = line.trim_start().strip_prefix(&variant);
                after.is_some_and(|after| after.starts_with([' ', ',', '(']))
            };
            assert!(tool.lines().any(is_variant), "{}: cargo xtask {command}", document.name);
        }
    }
}

/// The name of the variant by which clap knows a command.
fn camel_case(command: &str) -> String {
    let words = command.split('-').filter_map(|word| {
        let (first, rest) = word.split_at_checked(1)?;
        Some(first.to_uppercase() + rest)
    });
    words.collect()
}

#[test]
fn every_test_that_is_named_exists() {
    let folders = ["src", "tests", "crates", "xtask", "fuzz"];
    let sources: String = folders.map(|folder| sources_below(&root().join(folder))).concat();
    for name in ["ARCHITECTURE.md", "SECURITY.md", "CONTRIBUTING.md"] {
        for span in read(name).spans().iter().filter(|span| is_sentence(span)) {
            assert!(sources.contains(&format!("fn {span}(")), "{name} names the test {span}");
        }
    }
}

#[test]
fn every_promise_names_tests_that_exist() {
    let sources = ["src", "tests", "crates"].map(|folder| sources_below(&root().join(folder)));
    let sources = sources.concat();
    let security = read("SECURITY.md").text;
    let promised = section(&security, "What is promised");
    let rows = promised.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows: Vec<_> = rows.filter(|row| *row != "promise | tests").collect();
    assert!(rows.len() >= 30, "{} promises", rows.len());
    for row in rows {
        let (_, tests) = row.rsplit_once(" | ").unwrap();
        let tests: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test holds: {row}");
        for test in tests {
            assert!(sources.contains(&format!("fn {test}(")), "SECURITY.md names the test {test}");
        }
    }
}

/// The part of a page under a heading, up to the next one of its level.
fn section<'t>(page: &'t str, heading: &str) -> &'t str {
    let rest = page.split_once(&format!("\n## {heading}\n")).unwrap().1;
    rest.split_once("\n## ").map_or(rest, |(section, _)| section)
}

/// The files below a folder that have unsafe code, relative to the root.
fn files_without_guard(folder: &Path) -> Vec<String> {
    let is_one = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.map(|line| format!("{line} ")).any(|line| line.contains(concat!("unsaf", "e ")))
    };
    let mut found: Vec<_> = files(folder, "rs").into_iter().filter(is_one).collect();
    let folders = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let folders = folders.filter(|path| path.is_dir() && !path.ends_with("target"));
    let below = folders.flat_map(|folder| files_without_guard(&folder));
    let own = found.drain(..).map(|path| path.strip_prefix(root()).unwrap().to_owned());
    own.map(|path| path.to_string_lossy().into_owned()).chain(below).collect()
}

#[test]
fn all_unsafe_code_is_listed_with_its_reason() {
    let mut found: Vec<_> = ["src", "tests", "crates", "xtask", "fuzz"]
        .map(|folder| files_without_guard(&root().join(folder)))
        .concat();
    found.sort();
    let security = read("SECURITY.md").text;
    let rows = section(&security, "Unsafe code").lines();
    let rows = rows.filter_map(|row| row.strip_prefix("| `")?.split_once("` | "));
    let mut listed: Vec<_> = rows.map(|(file, _)| file.to_owned()).collect();
    listed.sort();
    assert_eq!(found, listed);
}

/// Names of tests are sentences; nothing else in the documents has so many words in one.
fn is_sentence(span: &str) -> bool {
    span.matches('_').count() >= 5
        && span
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[test]
fn sources_and_outcomes_are_documented_where_they_belong() {
    let (sessions, operations) = (read("docs/sessions-and-bodies.md"), read("docs/operations.md"));
    for name in Sources::names() {
        assert!(sessions.text.contains(&format!("| `{name}`")), "the source {name}");
    }
    let outcomes = Outcome::ALL.map(|outcome| outcome.as_str().to_owned());
    let failovers = Failover::ALL.map(|failover| failover.to_string());
    for word in outcomes.iter().chain(&failovers) {
        assert!(operations.text.contains(&format!("| `{word}` |")), "the outcome {word}");
    }
}

#[test]
fn the_table_of_metrics_is_what_is_counted() {
    let page = read("docs/metrics.md").text;
    let rows = page.lines().filter(|line| line.starts_with("| `session_affinity_"));
    let rows: Vec<Vec<&str>> = rows
        .map(|row| row.split(" | ").next().into_iter().chain(row.split(" | ").nth(1)).collect())
        .collect();
    let known = Metric::ALL.map(|metric| {
        let labels: Vec<_> = metric.labels().iter().map(|label| format!("`{label}`")).collect();
        (format!("| `{}`", metric.name()), labels.join(", "))
    });
    let rows: Vec<_> = rows
        .iter()
        .map(|row| (row[0].to_owned(), row[1].trim_matches(['|', ' ']).to_owned()))
        .collect();
    assert_eq!(
        rows.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(),
        known.clone().map(|(name, _)| name)
    );
    for ((name, labels), (_, expected)) in rows.iter().zip(&known) {
        assert!(
            labels == expected || (expected.is_empty() && !labels.contains('`')),
            "{name}: {labels}"
        );
    }
}

#[test]
fn the_reasons_for_usage_that_is_not_known_are_documented() {
    let page = read("docs/usage.md").text;
    for word in
        Unread::ALL.map(Unread::as_str).into_iter().chain(TokenType::ALL.map(TokenType::as_str))
    {
        assert!(page.contains(&format!("| `{word}` |")), "{word}");
    }
}

#[test]
fn every_alert_is_documented() {
    let rules = read("deploy/observability/rules.yml").text;
    let alerts = rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: "));
    let page = read("docs/metrics.md").text;
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `SessionAffinity")).count();
    let alerts: Vec<_> = alerts.collect();
    assert_eq!(alerts.len(), rows);
    for alert in alerts {
        assert!(page.contains(&format!("| `{alert}` |")), "{alert}");
    }
}

#[test]
fn the_shipped_configurations_make_labels_of_every_label() {
    for path in
        ["envoy.yaml", "examples/keys.yaml", "examples/replicas.yaml", "examples/next-request.yaml"]
    {
        let text = read(path).text;
        for label in Metric::ALL.iter().flat_map(|metric| metric.labels()) {
            assert!(text.contains(&format!("{{tag_name: {label}, regex:")), "{path}: {label}");
        }
    }
    let annotation = read("docs/metrics.md").text;
    let tags =
        annotation.split_once("extraStatTags: ").unwrap().1.lines().next().unwrap().to_owned();
    for label in Metric::ALL.iter().flat_map(|metric| metric.labels()) {
        assert!(tags.split(',').any(|tag| tag == *label), "{label}");
    }
}

#[test]
fn the_table_of_kinds_of_state_is_the_one_that_is_followed() {
    let page = read("docs/server-side-state.md").text;
    let is_row =
        |line: &&str| line.ends_with("d |") || line.ends_with("h |") || line.ends_with("m |");
    let rows: Vec<_> = page.lines().filter(is_row).collect();
    let rows: Vec<(String, String)> = rows
        .iter()
        .map(|row| {
            let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            (cells[0].trim_matches('`').to_owned(), cells[4].to_owned())
        })
        .collect();
    let kinds: Vec<_> = KINDS.iter().map(|kind| (kind.name.to_owned(), short(kind.life))).collect();
    assert_eq!(rows, kinds);
}

#[test]
fn the_readme_is_read_in_five_minutes() {
    let readme = read("README.md").text;
    let (lines, words) = (readme.lines().count(), readme.split_whitespace().count());
    assert!(lines <= 150, "{lines} lines: move what only some readers need to docs/");
    assert!(words <= 1_250, "{words} words: move what only some readers need to docs/");
}

#[test]
fn documents_use_one_word_per_idea() {
    for document in documents() {
        let prose = document.prose();
        let outside_of_code: String = prose.split('`').step_by(2).collect();
        for line in outside_of_code.lines() {
            let words = line.split(|letter: char| !letter.is_alphanumeric());
            let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
            let line = format!(" {} ", words.join(" ").to_lowercase());
            for banned in BANNED {
                let found = line.contains(&format!(" {banned} "));
                assert!(!found, "{}: {banned:?} in {line:?}", document.name);
            }
        }
    }
}

#[test]
fn every_path_that_architecture_names_exists() {
    for span in read("ARCHITECTURE.md").spans() {
        let is_path = ["src/", "crates/", "tests/", "xtask/", "fuzz/", "docs/", "examples/"]
            .iter()
            .any(|folder| span.starts_with(folder));
        assert!(!is_path || root().join(&span).exists(), "ARCHITECTURE.md names {span}");
    }
}
