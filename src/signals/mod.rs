//! What a response means, as its provider means it.
//!
//! A status says little: the same 403 is a dead key, a model that the project may not use, a file
//! of another project, or a page of the CDN. Providers say which in a code, in a type, in headers,
//! and some only in prose. What they say is data: a table for each provider ([`rows`]), each row
//! with its source. This module finds the row; [`Reading`] is what the row says about the
//! credential.
//!
//! Three rules keep a client's words from deciding. Only named fields of a response are read,
//! never its raw bytes. Prose counts only in the provider's own message field, is never more than
//! [`Evidence::Suspicion`] and never [`Reading::long`]; a message that rejects a part of the
//! request quotes the request, so its prose does not count at all. And a response that is about a
//! model covers that model only if it names the one that was routed, or if its code can mean no
//! other. A response that no row knows gets the mildest reading of its status.

pub mod families;
pub mod inflate;
mod limits;
mod report;
mod row;
mod rule;
pub mod stream;
mod tables;
mod wait;

use std::time::Duration;

use crate::api::Api;
use crate::request::Headers;
use crate::time::Timestamp;
use report::{Content, Report};

pub use row::Row;
pub use rule::{Rule, Sign};

/// What a response says about the credential that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It serves.
    Success,
    /// The request is wrong; any credential would say so.
    RequestFault,
    /// A quota or rate ran out.
    RateLimit,
    /// The key, or what it pays for, is not accepted.
    Denied,
    /// The credential does not have this model.
    NotSupported,
    /// There is no such model.
    NotFound,
    /// It will pass: the provider is broken, or something in front of it is.
    Transient,
    /// An error that says nothing lasting.
    Unclear,
    /// This credential does not serve the request, another one may; nothing is wrong with it.
    Elsewhere,
    /// The request refers to state that this credential does not have.
    NotHere,
    /// The provider says that it has no capacity.
    Overloaded,
}

/// A time that a provider writes in any form, as the wait until then; `None` if it is none.
pub(crate) fn wait_of(text: &[u8], now: Timestamp) -> Option<Duration> {
    wait::moment::of(text, now)
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 11] = [
        Self::Success,
        Self::RequestFault,
        Self::RateLimit,
        Self::Denied,
        Self::NotSupported,
        Self::NotFound,
        Self::Transient,
        Self::Unclear,
        Self::Elsewhere,
        Self::NotHere,
        Self::Overloaded,
    ];

    /// The word for configuration and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::RequestFault => "request_fault",
            Self::RateLimit => "rate_limit",
            Self::Denied => "denied",
            Self::NotSupported => "not_supported",
            Self::NotFound => "not_found",
            Self::Transient => "transient",
            Self::Unclear => "unclear",
            Self::Elsewhere => "elsewhere",
            Self::NotHere => "not_here",
            Self::Overloaded => "overloaded",
        }
    }

    /// Whether a response of this class is a reason to leave its credential alone for a while.
    pub fn cools_down(self) -> bool {
        match self {
            Self::RateLimit
            | Self::Denied
            | Self::NotSupported
            | Self::NotFound
            | Self::Transient
            | Self::Overloaded => true,
            Self::Success
            | Self::RequestFault
            | Self::Unclear
            | Self::Elsewhere
            | Self::NotHere => false,
        }
    }

    /// What a cooldown covers where the row does not say. A key is refused for all models; every
    /// other fault is taken for one of the model, which is the smaller mistake.
    pub(crate) const fn usual_scope(self) -> Scope {
        if matches!(self, Self::Denied) { Scope::Credential } else { Scope::Model }
    }
}

/// What a cooldown covers. It means nothing for a class that is no reason for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every model of the credential.
    Credential,
    /// The model that was routed.
    Model,
    /// Every model of a family (see [`families`]).
    Family(&'static str),
}

/// How much a response proves by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The provider's own word about the credential: a limit and when it ends, or a code that names
    /// the key, the account or its quota.
    Proof,
    /// Everything else. It counts once another credential has served the same request.
    Suspicion,
}

impl Evidence {
    /// The word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proof => "proof",
            Self::Suspicion => "suspicion",
        }
    }
}

/// What a response means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What it says about the credential.
    pub class: Class,
    /// What a cooldown would cover.
    pub scope: Scope,
    /// How long the provider wants to be left alone, if it says so.
    pub wait: Option<Duration>,
    /// How much it proves.
    pub evidence: Evidence,
    /// The provider's code, or a word for what it wrote; for logs. Empty where only the status
    /// counted.
    pub code: &'static str,
    /// Whether a long cooldown is justified: a code says what is wrong, not only prose.
    pub long: bool,
    /// A code says that it is about the requests of some time, and not about those at once.
    pub is_of_a_time: bool,
    /// The provider says that repeating the request is useless (`x-should-retry: false`).
    pub retry_is_useless: bool,
}

/// Where a response comes from.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The API that the client speaks.
    pub api: Api,
    /// The provider's name, as the operator wrote it.
    pub provider: &'a str,
    /// The model that was routed; empty if it is not known.
    pub model: &'a str,
}

/// What a response means, given its status, its headers and the beginning of its body (readable:
/// see [`inflate::error_body`]).
pub fn read(
    status: u16,
    headers: &Headers,
    body: &[u8],
    context: &Context<'_>,
    now: Timestamp,
) -> Reading {
    explain(status, headers, body, context, now).0
}

/// What a response means, and the row that says so; `None` where only the status counted.
pub fn explain(
    status: u16,
    headers: &Headers,
    body: &[u8],
    context: &Context<'_>,
    now: Timestamp,
) -> (Reading, Option<&'static Row>) {
    if (100..400).contains(&status) {
        return (Reading { class: Class::Success, ..Reading::of_status(status, false) }, None);
    }
    judge(status, headers, &Report::of(headers, body), context, now)
}

/// Every row of every table, with the table's name, in the order in which they are searched.
pub fn rows() -> impl Iterator<Item = (&'static str, &'static Row)> {
    tables::ALL.iter().flat_map(|(name, rows)| rows.iter().map(move |row| (*name, row)))
}

/// The reading of an error. `status` is 0 where there is none, as in a stream.
fn judge(
    status: u16,
    headers: &Headers,
    report: &Report<'_>,
    context: &Context<'_>,
    now: Timestamp,
) -> (Reading, Option<&'static Row>) {
    let row = row::find(status, headers, report, context.api);
    let mut reading = match row {
        Some(row) => row.reading(),
        None => Reading::of_status(status, report.content == Content::Text),
    };
    reading.retry_is_useless = headers.text("x-should-retry").eq_ignore_ascii_case("false");
    let is_about_a_model = matches!(reading.class, Class::NotSupported | Class::NotFound);
    let may_be_another = row.is_none_or(|row| !row.implies_the_model());
    if is_about_a_model && may_be_another && !report.names(context.model) {
        reading.class = Class::Elsewhere;
        reading.long = false;
    }
    if let Some(request) = wait::requested(reading.class, headers, report, context.model, now) {
        reading.wait = Some(request.wait);
        let is_a_field = !request.is_prose || row.is_some_and(Row::is_structured);
        // A page, or plain text, comes from something in front of the provider.
        let is_an_apis = matches!(report.content, Content::Json | Content::Empty);
        if reading.class == Class::RateLimit && is_a_field && is_an_apis {
            reading.evidence = Evidence::Proof;
        }
    }
    if reading.class == Class::RateLimit
        && let Some(scope) = wait::scope(headers, context.model)
    {
        reading.scope = scope;
    }
    (reading, row)
}

impl Reading {
    /// A stream that ended before any content.
    pub const EMPTY_STREAM: Self = Self {
        class: Class::Transient,
        scope: Scope::Model,
        wait: None,
        evidence: Evidence::Suspicion,
        code: "empty_stream",
        long: false,
        is_of_a_time: false,
        retry_is_useless: false,
    };

    /// The mildest reading of a status. An error without a status is one in a stream.
    fn of_status(status: u16, is_plain_text: bool) -> Self {
        let (class, scope) = match status {
            // The upstreams of the known APIs refuse in JSON; plain text is a gateway's or a
            // firewall's, and means the address.
            403 if is_plain_text => (Class::Transient, Scope::Credential),
            // A 403 that no row knows may be a dead account. It counts only when another
            // credential serves the same request, and without it a session would stay on a dead
            // credential for ever.
            401..=403 => (Class::Denied, Scope::Credential),
            // A proxy on the way to the provider.
            407 => (Class::Transient, Scope::Credential),
            429 => (Class::RateLimit, Scope::Model),
            529 => (Class::Overloaded, Scope::Model),
            0 | 408 | 500..=599 => (Class::Transient, Scope::Model),
            400..=499 => (Class::RequestFault, Scope::Model),
            _ => (Class::Unclear, Scope::Model),
        };
        Self {
            class,
            scope,
            wait: None,
            evidence: Evidence::Suspicion,
            code: "",
            long: false,
            is_of_a_time: false,
            retry_is_useless: false,
        }
    }
}
