//! A row of a provider's table, and how it is found.

use super::report::{Content, Report};
use super::{Class, Evidence, Reading, Scope, tables};
use crate::api::Api;
use crate::request::Headers;
use crate::steps;

/// What a response has to carry, and what it means then.
#[derive(Debug)]
pub struct Row {
    sign: Sign,
    class: Class,
    is_proof: bool,
    is_whole: bool,
    implies_the_model: bool,
    is_of_a_time: bool,
    /// The only API in which the row counts.
    api: Option<Api>,
    /// The provider's code or type, the header's name, or a word for logs.
    word: &'static str,
    /// What the message, or the header's value, has to say (see [`Row::says`]).
    text: &'static str,
    /// The statuses that count; none means all. An event of a stream has no status; what it says
    /// in its fields counts nevertheless.
    statuses: &'static [u16],
}

/// What a row is recognised by. The order is the order of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Code,
    Type,
    Header,
    Html,
    Phrase,
    Status,
}

/// A row that is recognised by the provider's code; one that ends with `*` matches all that
/// begin so.
pub(super) const fn code(code: &'static str, class: Class) -> Row {
    Row::new(Sign::Code, code, class)
}

/// A row that is recognised by the kind of error, of which there are a handful.
pub(super) const fn kind(kind: &'static str, class: Class) -> Row {
    Row::new(Sign::Type, kind, class)
}

/// A row that is recognised by a header.
pub(super) const fn header(name: &'static str, class: Class) -> Row {
    Row::new(Sign::Header, name, class)
}

/// A row that is recognised by a page in place of an API's response.
pub(super) const fn html(class: Class) -> Row {
    Row::new(Sign::Html, "html", class)
}

/// A row that is recognised by prose alone; the word is for logs.
pub(super) const fn phrase(word: &'static str, class: Class) -> Row {
    Row::new(Sign::Phrase, word, class)
}

/// A row that is recognised by the status and the API alone; the word is for logs.
pub(super) const fn status(word: &'static str, class: Class) -> Row {
    Row::new(Sign::Status, word, class)
}

impl Row {
    const fn new(sign: Sign, word: &'static str, class: Class) -> Self {
        Self {
            sign,
            class,
            is_proof: false,
            is_whole: matches!(class.usual_scope(), Scope::Credential),
            implies_the_model: false,
            is_of_a_time: false,
            api: None,
            word,
            text: "",
            statuses: &[],
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

    /// Only if the message, or the header's value, says this, in lower case: it begins with what
    /// comes before the first `*`, and contains each part behind one.
    pub(super) const fn says(mut self, text: &'static str) -> Self {
        self.text = text;
        self
    }

    /// It proves what it says.
    pub(super) const fn proof(mut self) -> Self {
        self.is_proof = true;
        self
    }

    /// It covers every model of the credential.
    pub(super) const fn whole(mut self) -> Self {
        self.is_whole = true;
        self
    }

    /// It can mean no other model than the one that was routed, though it may not name it: a code
    /// about the path, or words about the key or the plan that lacks the model.
    pub(super) const fn implied(mut self) -> Self {
        self.implies_the_model = true;
        self
    }

    /// It means too many requests in some time, and not too many at once.
    pub(super) const fn of_a_time(mut self) -> Self {
        self.is_of_a_time = true;
        self
    }

    pub(super) fn implies_the_model(&self) -> bool {
        self.implies_the_model
    }

    /// Whether a code or a type says it, not prose alone.
    pub(super) fn is_structured(&self) -> bool {
        matches!(self.sign, Sign::Code | Sign::Type)
    }

    /// What the row says; the wait is in the response.
    pub(super) fn reading(&self) -> Reading {
        let is_lasting =
            matches!(self.class, Class::Denied | Class::NotFound | Class::NotSupported);
        Reading {
            class: self.class,
            scope: if self.is_whole { Scope::Credential } else { Scope::Model },
            wait: None,
            evidence: if self.is_proof { Evidence::Proof } else { Evidence::Suspicion },
            code: self.word,
            long: self.sign == Sign::Code && is_lasting,
            is_of_a_time: self.is_of_a_time,
            retry_is_useless: false,
        }
    }
}

/// An error for which a row is looked for.
struct Search<'a> {
    status: u16,
    headers: &'a Headers,
    report: &'a Report<'a>,
    api: Api,
}

/// The row for an error: codes before types before headers before phrases before the status; within
/// each the first one.
pub(super) fn find(
    status: u16,
    headers: &Headers,
    report: &Report<'_>,
    api: Api,
) -> Option<&'static Row> {
    let search = Search { status, headers, report, api };
    let codes = report.codes.iter().map(|word| (Sign::Code, word.as_ref()));
    let types = report.types.iter().map(|word| (Sign::Type, word.as_ref()));
    codes
        .chain(types)
        .chain([Sign::Header, Sign::Html, Sign::Phrase, Sign::Status].map(|sign| (sign, &b""[..])))
        .find_map(|(sign, word)| search.first(sign, word))
}

impl Search<'_> {
    #[inline(never)]
    fn first(&self, sign: Sign, word: &[u8]) -> Option<&'static Row> {
        tables::ALL
            .iter()
            .flat_map(|(_, rows)| rows.iter())
            .find(|row| row.sign == sign && self.is_met_by(row, word))
    }

    #[inline(never)]
    fn is_met_by(&self, row: &Row, word: &[u8]) -> bool {
        let report = self.report;
        let is_found = match row.sign {
            Sign::Code | Sign::Type => is_word(row.word, word),
            Sign::Header => {
                let value = self.headers.text(row.word).to_ascii_lowercase();
                return !value.is_empty() && self.fits(row) && says(value.as_bytes(), row.text);
            }
            Sign::Html => report.content == Content::Html,
            // Where the provider has codes, its prose is for people. One that is not known yet may
            // still be a reason to ask another credential.
            Sign::Phrase => !report.has_own_code || !row.class.cools_down(),
            Sign::Status => true,
        };
        // What a message says that quotes the request may be what a client wrote.
        let is_a_quote =
            row.sign != Sign::Code && report.quotes_the_request && !row.text.is_empty();
        is_found && !is_a_quote && self.fits(row) && says(&report.message, row.text)
    }

    fn fits(&self, row: &Row) -> bool {
        let is_event =
            self.status == 0 && matches!(row.sign, Sign::Code | Sign::Type | Sign::Phrase);
        row.api.is_none_or(|api| api == self.api)
            && (is_event || row.statuses.is_empty() || row.statuses.contains(&self.status))
    }
}

#[inline(never)]
fn says(message: &[u8], text: &str) -> bool {
    let mut parts = text.split('*');
    parts.next().is_none_or(|beginning| message.starts_with(beginning.as_bytes()))
        && parts.all(|part| contains(message, part))
}

/// Whether a provider's word is the one of the row.
fn is_word(word: &str, found: &[u8]) -> bool {
    steps::count(word.len());
    match word.strip_suffix('*') {
        Some(beginning) => found.starts_with(beginning.as_bytes()),
        None => found == word.as_bytes(),
    }
}

/// Whether a text contains one of the words of this module, which are short: the search is linear.
#[inline(never)]
pub(super) fn contains(text: &[u8], words: &str) -> bool {
    steps::count(text.len());
    text.windows(words.len()).any(|part| part == words.as_bytes())
}
