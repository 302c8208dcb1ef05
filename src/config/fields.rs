//! Reading a JSON object field by field, with every problem collected under its path.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

/// Something that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `pools[0].credentials[2].priority`, or `configuration` for all of it.
    pub path: String,
    /// What was expected.
    pub message: String,
}

/// Everything that is wrong with a configuration, in the order in which it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    #[inline(never)]
    pub(super) fn add(&mut self, path: &str, message: impl AsRef<str>) {
        let path = if path.is_empty() { "configuration" } else { path };
        self.0.push(Problem { path: path.to_owned(), message: message.as_ref().to_owned() });
    }

    /// The number of problems.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The problems.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// The problems, one line each.
    pub fn lines(&self) -> Vec<String> {
        self.0.iter().map(Problem::to_string).collect()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, self.message)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.lines().join("\n"))
    }
}

impl std::error::Error for Problems {}

/// An object of the configuration. Fields are taken out one by one; what is left at the end is
/// unknown.
///
/// Keys are snake_case. The kebab-case spelling of the reference's configuration file is the same
/// key.
pub(super) struct Fields<'p> {
    path: String,
    fields: Map<String, Value>,
    is_object: bool,
    problems: &'p mut Problems,
}

impl<'p> Fields<'p> {
    /// Takes a value that must be an object. Of one that is not, every field is absent.
    #[inline(never)]
    pub(super) fn new(path: String, value: Value, problems: &'p mut Problems) -> Self {
        let mut fields = Map::new();
        let is_object = value.is_object();
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    let name = key.replace('-', "_");
                    if fields.insert(name.clone(), value).is_some() {
                        problems.add(&join(&path, &name), "given twice, with `-` and with `_`");
                    }
                }
            }
            other => problems.add(&path, format!("expected an object, found {}", found(&other))),
        }
        Self { path, fields, is_object, problems }
    }

    /// Reports a problem with a field; with the object itself if the name is empty, unless it is
    /// none at all.
    #[inline(never)]
    pub(super) fn problem(&mut self, name: &str, problem: impl AsRef<str>) {
        if name.is_empty() && !self.is_object {
            return;
        }
        self.problems.add(&join(&self.path, name), problem);
    }

    /// A string that is not empty. `None` if absent or wrong.
    #[inline(never)]
    pub(super) fn string(&mut self, name: &str) -> Option<String> {
        match self.fields.remove(name)? {
            Value::String(text) if !text.is_empty() => Some(text),
            Value::String(_) => self.wrong(name, "expected a string that is not empty"),
            other => self.wrong(name, format!("expected a string, found {}", found(&other))),
        }
    }

    /// As [`Self::string`], and its absence is a problem. A placeholder keeps the reading going.
    pub(super) fn required_string(&mut self, name: &str) -> String {
        self.require(name);
        self.string(name).unwrap_or_default()
    }

    /// A string of visible ASCII, so that it fits into a header, a log line and a filter state.
    #[inline(never)]
    pub(super) fn word(&mut self, name: &str) -> Option<String> {
        let text = self.string(name)?;
        if text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Some(text);
        }
        self.wrong(name, "expected at most 256 visible ASCII characters, without spaces")
    }

    /// As [`Self::word`], and its absence is a problem. A placeholder keeps the reading going.
    pub(super) fn required_word(&mut self, name: &str) -> String {
        self.require(name);
        self.word(name).unwrap_or_default()
    }

    /// The name of a header, in lower case.
    #[inline(never)]
    pub(super) fn header_name(&mut self, name: &str) -> Option<String> {
        let header = self.string(name)?.to_ascii_lowercase();
        if is_header_name(&header) {
            Some(header)
        } else {
            self.wrong(name, "expected the name of a request header")
        }
    }

    /// As [`Self::header_name`], and its absence is a problem. A placeholder keeps the reading
    /// going.
    pub(super) fn required_header_name(&mut self, name: &str) -> String {
        self.require(name);
        self.header_name(name).unwrap_or_default()
    }

    /// The text of a value that is a string or a number, as the reference's attributes are.
    #[inline(never)]
    pub(super) fn attribute(&mut self, name: &str) -> Option<String> {
        match self.fields.remove(name)? {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            other => {
                self.wrong(name, format!("expected a string or a number, found {}", found(&other)))
            }
        }
    }

    /// `true` or `false`.
    #[inline(never)]
    pub(super) fn boolean(&mut self, name: &str) -> Option<bool> {
        match self.fields.remove(name)? {
            Value::Bool(value) => Some(value),
            other => self.wrong(name, format!("expected true or false, found {}", found(&other))),
        }
    }

    /// One of these words.
    #[inline(never)]
    pub(super) fn one_of<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.string(name)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        self.wrong(name, format!("expected one of {}, found {text:?}", known.join(", ")))
    }

    /// A Go duration of at least a millisecond.
    #[inline(never)]
    pub(super) fn duration(&mut self, name: &str) -> Option<Duration> {
        let text = self.string(name)?;
        match crate::duration::parse(text.trim()) {
            Some(duration) if !duration.is_zero() => Some(duration),
            _ => self.wrong(
                name,
                format!("expected a duration such as 1h, 90s or 1h30m, found {text:?}"),
            ),
        }
    }

    /// The names of all fields.
    pub(super) fn names(&self) -> Vec<String> {
        self.fields.keys().cloned().collect()
    }

    /// A whole number. A `Struct` knows only doubles, and Envoy prints a large one as `1e+06`: that
    /// is a whole number too.
    #[inline(never)]
    pub(super) fn integer(&mut self, name: &str) -> Option<i64> {
        let value = self.fields.remove(name)?;
        let exact = value
            .as_f64()
            .filter(|number| number.fract() == 0.0 && number.abs() < 9e15)
            .map(|number| number as i64);
        match value.as_i64().or(exact) {
            Some(number) => Some(number),
            None => self.wrong(name, format!("expected an integer, found {}", found(&value))),
        }
    }

    /// A whole number within bounds, both included.
    #[inline(never)]
    pub(super) fn integer_within(&mut self, name: &str, least: i64, most: i64) -> Option<i64> {
        match self.integer(name)? {
            number if (least..=most).contains(&number) => Some(number),
            number => self.wrong(name, format!("expected {least} to {most}, found {number}")),
        }
    }

    /// A number within bounds, both included. Envoy reads its own configuration as YAML, where it
    /// takes what has a fraction for a text.
    #[inline(never)]
    pub(super) fn number_within(&mut self, name: &str, least: f64, most: f64) -> Option<f64> {
        let value = self.fields.remove(name)?;
        let number = match &value {
            Value::String(text) => text.parse().ok().as_ref().and_then(Value::as_f64),
            value => value.as_f64(),
        };
        match number {
            Some(number) if (least..=most).contains(&number) => Some(number),
            _ => self.wrong(name, format!("expected {least} to {most}, found {}", found(&value))),
        }
    }

    /// An object; an absent one is an empty one.
    pub(super) fn object(&mut self, name: &str) -> Fields<'_> {
        let value = self.fields.remove(name).unwrap_or_else(|| Value::Object(Map::new()));
        Fields::new(join(&self.path, name), value, self.problems)
    }

    /// One value or an array of them, each with its path; an absent one is none.
    #[inline(never)]
    pub(super) fn one_or_more(&mut self, name: &str) -> Vec<(String, Value)> {
        match self.fields.get(name) {
            None | Some(Value::Array(_)) => self.array(name),
            Some(_) => {
                let value = self.fields.remove(name).unwrap_or_default();
                vec![(join(&self.path, name), value)]
            }
        }
    }

    /// The elements of an array, each with its path; an absent one has none.
    #[inline(never)]
    pub(super) fn array(&mut self, name: &str) -> Vec<(String, Value)> {
        let path = join(&self.path, name);
        match self.fields.remove(name) {
            None => Vec::new(),
            Some(Value::Array(elements)) => elements
                .into_iter()
                .enumerate()
                .map(|(index, element)| (format!("{path}[{index}]"), element))
                .collect(),
            Some(other) => {
                self.problem(name, format!("expected an array, found {}", found(&other)));
                Vec::new()
            }
        }
    }

    /// An array of strings that are not empty.
    #[inline(never)]
    pub(super) fn strings(&mut self, name: &str) -> Vec<String> {
        let mut strings = Vec::new();
        for (path, element) in self.array(name) {
            match element {
                Value::String(text) if !text.is_empty() => strings.push(text),
                other => self.problems.add(
                    &path,
                    format!("expected a string that is not empty, found {}", found(&other)),
                ),
            }
        }
        strings
    }

    /// The problems, for reading what a field holds.
    pub(super) fn problems(&mut self) -> &mut Problems {
        self.problems
    }

    /// Ends the reading: every field that was not asked for is unknown.
    #[inline(never)]
    pub(super) fn finish(self) {
        for name in self.fields.keys() {
            self.problems.add(&join(&self.path, name), "unknown key");
        }
    }

    /// Reports a field that is absent.
    pub(super) fn require(&mut self, name: &str) {
        if self.is_object && !self.fields.contains_key(name) {
            self.problem(name, "required");
        }
    }

    /// Reports a problem in place of a value.
    #[inline(never)]
    pub(super) fn wrong<T>(&mut self, name: &str, problem: impl AsRef<str>) -> Option<T> {
        self.problem(name, problem);
        None
    }
}

/// The path of a field; that of its object if the name is empty.
fn join(path: &str, name: &str) -> String {
    match (path, name) {
        ("", name) => name.to_owned(),
        (path, "") => path.to_owned(),
        (path, name) => format!("{path}.{name}"),
    }
}

/// Whether a name is a header's that a filter may set: a token of RFC 9110, and no pseudo header.
fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// What was found, without the text of strings: one in the wrong place may be a secret.
fn found(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
