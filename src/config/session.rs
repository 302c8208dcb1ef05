//! The section `session`: where clients name their sessions, and what keeps those of different
//! tenants apart.

use std::borrow::Cow;

use regex::bytes::RegexBuilder;
use serde_json::Value;

use super::Profile;
use super::fields::{Fields, Problems};
use crate::body::Paths;
use crate::session::{Rules, ScopePart, ScopeSource, Source, SourceLocation, Sources, Subagents};

/// The deepest path that may be asked for.
const DEEPEST_PATH: usize = 16;

/// Bytes that a compiled expression may take.
const LARGEST_EXPRESSION: usize = 1 << 20;

/// The section `session`.
#[derive(Debug)]
pub struct SessionConfig {
    /// The most bindings that are kept; the least recently used of a row gives way. 16 to
    /// 16,777,216, default 65,536.
    pub max_bindings: u32,
    /// Where sessions are named.
    pub sources: Sources,
    /// What is mixed into the key of bindings, so that tenants share none.
    pub scope: Vec<ScopePart>,
    /// Whether sessions have no substitute, in pools that do not say otherwise.
    pub strict: bool,
}

impl SessionConfig {
    pub(super) fn read(mut fields: Fields<'_>, profile: Profile, paths: &mut Paths) -> Self {
        let max_bindings =
            fields.integer_within("max_bindings", 16, 1 << 24).unwrap_or(65_536) as u32;
        let rules = match profile {
            Profile::Recommended => Rules::Recommended,
            Profile::Reference => Rules::Reference,
        };
        let given = fields.array("sources");
        let sources = match (given.is_empty(), profile) {
            (true, Profile::Recommended) => Sources::recommended(paths),
            (true, Profile::Reference) => Sources::reference(paths),
            (false, _) => {
                let list = given
                    .into_iter()
                    .flat_map(|(path, value)| read_source(&path, value, fields.problems(), paths))
                    .collect();
                Sources::new(list, rules, paths)
            }
        };
        let words = [("parent", Subagents::Parent), ("own", Subagents::Own)];
        let subagents = fields.one_of("subagents", &words);
        if profile == Profile::Reference && subagents.is_some() {
            fields.problem("subagents", "the profile reference does not know sub-agents");
        }
        let sources = sources.with_subagents(subagents.unwrap_or_default());
        let parts = fields.array("scope");
        let scope = parts
            .into_iter()
            .filter_map(|(path, value)| read_scope(path, value, fields.problems()))
            .collect();
        let strict = fields.boolean("strict").unwrap_or(false);
        fields.finish();
        Self { max_bindings, sources, scope, strict }
    }
}

/// A source is the name of a built-in one, or an object that says where to look.
fn read_source(
    path: &str,
    value: Value,
    problems: &mut Problems,
    paths: &mut Paths,
) -> Vec<Source> {
    let Value::String(name) = value else {
        return read_custom_source(path, value, problems, paths).into_iter().collect();
    };
    Sources::named(&name, paths).unwrap_or_else(|| {
        let names: Vec<_> = Sources::names().collect();
        problems
            .add(path, format!("{name:?} is none of the built-in sources {}", names.join(", ")));
        Vec::new()
    })
}

fn read_custom_source(
    path: &str,
    value: Value,
    problems: &mut Problems,
    paths: &mut Paths,
) -> Option<Source> {
    let mut fields = Fields::new(path.to_owned(), value, problems);
    let header = fields.header_name("header");
    let body = fields.string("body");
    let name = fields.word("name").or_else(|| header.clone()).or_else(|| body.clone());
    let json = fields.string("json").map(|path| fields.path("json", &path)).unwrap_or_default();
    let pattern = fields.string("pattern").and_then(|pattern| {
        let expression =
            RegexBuilder::new(&pattern).unicode(false).size_limit(LARGEST_EXPRESSION).build();
        match expression {
            Ok(expression) if expression.captures_len() == 2 => Some(expression),
            Ok(_) => fields.wrong("pattern", "expected an expression with exactly one group"),
            Err(error) => fields.wrong("pattern", format!("not a regular expression: {error}")),
        }
    });
    let place = match (header, body) {
        (Some(header), None) => Some(SourceLocation::Header(Cow::Owned(header))),
        (None, Some(body)) => Some(SourceLocation::Body(
            paths.add(fields.path("body", &body).iter().map(String::as_str)),
        )),
        _ => fields.wrong("", "expected either `header` or `body`"),
    };
    fields.finish();
    Some(Source { json, pattern, ..Source::new(name?, place?) })
}

fn read_scope(path: String, value: Value, problems: &mut Problems) -> Option<ScopePart> {
    let mut fields = Fields::new(path, value, problems);
    let header = fields.header_name("header");
    let property = fields.strings("property");
    let required = fields.boolean("required").unwrap_or(false);
    let source = match (header, property.is_empty()) {
        (Some(header), true) => Some(ScopeSource::Header(header)),
        (None, false) => Some(ScopeSource::Property(property)),
        _ => fields.wrong("", "expected either `header` or `property` (an array of strings)"),
    };
    fields.finish();
    Some(ScopePart { source: source?, required })
}

impl Fields<'_> {
    /// Splits a path at its dots. A dot that belongs to a name is written `\.`.
    fn path(&mut self, field: &str, path: &str) -> Vec<String> {
        let mut names = vec![String::new()];
        let mut characters = path.chars();
        while let Some(character) = characters.next() {
            match (character, names.last_mut()) {
                ('.', _) => names.push(String::new()),
                ('\\', Some(name)) => name.extend(characters.next()),
                (_, Some(name)) => name.push(character),
                (_, None) => {}
            }
        }
        if names.iter().any(String::is_empty) || names.len() > DEEPEST_PATH {
            self.problem(field, format!("expected 1 to {DEEPEST_PATH} names, separated by dots"));
        }
        names
    }
}
