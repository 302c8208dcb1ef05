//! A row of a provider's table, and how it is found.

use super::report::{Content, Report};
use super::{Class, Evidence, Reading, Scope, tables};
use crate::api::Api;
use crate::request::Headers;

/// What a response has to carry, and what it means then.
#[derive(Debug)]
pub struct Row {
    sign: Sign,
    /// The statuses that count; none means all. An event of a stream has no status; what it says in
    /// its fields counts nevertheless.
    statuses: &'static [u16],
    /// The only API in which the row counts.
    api: Option<Api>,
    /// How the message has to begin, in lower case.
    begins: &'static str,
    /// What the message has to contain, in lower case.
    has: &'static [&'static str],
    class: Class,
    scope: Scope,
    evidence: Evidence,
    implies_the_model: bool,
}

/// What a row is recognised by. The order is the order of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Code(&'static str),
    Type(&'static str),
    Header(&'static str, &'static str),
    Html,
    Phrase(&'static str),
    Status(&'static str),
}

/// A row that is recognised by the provider's code.
pub(super) const fn code(code: &'static str, class: Class) -> Row {
    Row::new(Sign::Code(code), class)
}

/// A row that is recognised by the kind of error, of which there are a handful.
pub(super) const fn kind(kind: &'static str, class: Class) -> Row {
    Row::new(Sign::Type(kind), class)
}

/// A row that is recognised by the beginning of a header's value.
pub(super) const fn header(name: &'static str, begins: &'static str, class: Class) -> Row {
    Row::new(Sign::Header(name, begins), class)
}

/// A row that is recognised by a page in place of an API's response.
pub(super) const fn html(class: Class) -> Row {
    Row::new(Sign::Html, class)
}

/// A row that is recognised by prose alone; the word is for logs.
pub(super) const fn phrase(word: &'static str, class: Class) -> Row {
    Row::new(Sign::Phrase(word), class)
}

/// A row that is recognised by the status and the API alone; the word is for logs.
pub(super) const fn status(word: &'static str, class: Class) -> Row {
    Row::new(Sign::Status(word), class)
}

impl Row {
    const fn new(sign: Sign, class: Class) -> Self {
        let scope = class.usual_scope();
        Self {
            sign,
            statuses: &[],
            api: None,
            begins: "",
            has: &[],
            class,
            scope,
            evidence: Evidence::Suspicion,
            implies_the_model: false,
        }
    }

    /// Only for these statuses.
    pub(super) const fn on(mut self, statuses: &'static [u16]) -> Self {
        self.statuses = statuses;
        self
    }

    /// Only in this API.
    pub(super) const fn of(mut self, api: Api) -> Self {
        self.api = Some(api);
        self
    }

    /// Only if the message begins so.
    pub(super) const fn begins(mut self, text: &'static str) -> Self {
        self.begins = text;
        self
    }

    /// Only if the message contains all of these.
    pub(super) const fn has(mut self, texts: &'static [&'static str]) -> Self {
        self.has = texts;
        self
    }

    /// It proves what it says.
    pub(super) const fn proof(mut self) -> Self {
        self.evidence = Evidence::Proof;
        self
    }

    /// It covers every model of the credential.
    pub(super) const fn whole(mut self) -> Self {
        self.scope = Scope::Credential;
        self
    }

    /// It can mean no other model than the one that was routed, though it may not name it: a code
    /// about the path, or words about the key or the plan that lacks the model.
    pub(super) const fn implied(mut self) -> Self {
        self.implies_the_model = true;
        self
    }

    pub(super) fn implies_the_model(&self) -> bool {
        self.implies_the_model
    }

    /// Whether a code or a type says it, not prose alone.
    pub(super) fn is_structured(&self) -> bool {
        matches!(self.sign, Sign::Code(_) | Sign::Type(_))
    }

    /// What the row says; the wait stands in the response.
    pub(super) fn reading(&self) -> Reading {
        let is_code = matches!(self.sign, Sign::Code(_));
        let is_lasting =
            matches!(self.class, Class::Denied | Class::NotFound | Class::NotSupported);
        Reading {
            class: self.class,
            scope: self.scope,
            wait: None,
            evidence: self.evidence,
            code: self.word(),
            long: is_code && is_lasting,
            retry_is_useless: false,
        }
    }

    fn word(&self) -> &'static str {
        match self.sign {
            Sign::Code(word) | Sign::Type(word) | Sign::Phrase(word) | Sign::Status(word) => word,
            Sign::Header(name, _) => name,
            Sign::Html => "html",
        }
    }

    fn counts(&self, status: u16, report: &Report<'_>, api: Api) -> bool {
        let is_prose_that_quotes = !matches!(self.sign, Sign::Code(_)) && report.quotes_the_request;
        let is_event =
            status == 0 && matches!(self.sign, Sign::Code(_) | Sign::Type(_) | Sign::Phrase(_));
        let has_text = !self.begins.is_empty() || !self.has.is_empty();
        (self.statuses.is_empty() || self.statuses.contains(&status) || is_event)
            && self.api.is_none_or(|only| only == api)
            && !(has_text && is_prose_that_quotes)
            && report.message.starts_with(self.begins.as_bytes())
            && self.has.iter().all(|text| report.says(text))
    }
}

/// The row for an error: codes before types before headers before phrases before the status; within
/// each the first one.
pub(super) fn find(
    status: u16,
    headers: &Headers,
    report: &Report<'_>,
    api: Api,
) -> Option<&'static Row> {
    for code in &report.codes {
        let row = first(|row| {
            matches!(row.sign, Sign::Code(word) if is_word(word, code))
                && row.counts(status, report, api)
        });
        if row.is_some() {
            return row;
        }
    }
    for kind in &report.types {
        let row = first(|row| {
            matches!(row.sign, Sign::Type(word) if is_word(word, kind))
                && row.counts(status, report, api)
        });
        if row.is_some() {
            return row;
        }
    }
    first(|row| {
        let is_there = match row.sign {
            Sign::Header(name, begins) => begins_with(headers.text(name), begins),
            Sign::Html => report.content == Content::Html,
            _ => false,
        };
        is_there && row.counts(status, report, api)
    })
    .or_else(|| {
        first(|row| {
            // Where the provider has codes, its prose is for people. One that is not known yet may
            // still be a reason to ask another credential.
            let is_read = !report.has_own_code || !row.class.cools_down();
            matches!(row.sign, Sign::Phrase(_)) && is_read && row.counts(status, report, api)
        })
    })
    .or_else(|| first(|row| matches!(row.sign, Sign::Status(_)) && row.counts(status, report, api)))
}

fn first(counts: impl Fn(&Row) -> bool) -> Option<&'static Row> {
    tables::ALL.iter().flat_map(|(_, rows)| rows.iter()).find(|row| counts(row))
}

/// Whether a provider's word is the one of the row; a row's word may end with `*`.
fn is_word(word: &str, found: &[u8]) -> bool {
    match word.strip_suffix('*') {
        Some(beginning) => found.starts_with(beginning.as_bytes()),
        None => found == word.as_bytes(),
    }
}

fn begins_with(value: &str, beginning: &str) -> bool {
    value
        .trim_start()
        .get(..beginning.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(beginning))
        && !value.is_empty()
}
