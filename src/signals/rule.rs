//! Rules of the operator: they come before every table.

use std::time::Duration;

use super::report::Report;
use super::{Class, Context, Evidence, Reading, Scope};
use crate::request::Headers;
use crate::steps;

/// What an operator says that a response means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The provider of the pool; `None` for every one.
    pub provider: Option<String>,
    /// The status; `None` for every error.
    pub status: Option<u16>,
    pub sign: Sign,
    pub class: Class,
    /// What a cooldown covers; `None`: as usual for the class.
    pub scope: Option<Scope>,
    /// How long the credential is left alone. It counts as announced by the provider.
    pub wait: Option<Duration>,
}

/// What a response of a rule is recognised by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The status alone.
    Status,
    /// One of the provider's codes or types.
    Code(String),
    /// A header, with this value or any.
    Header(String, Option<String>),
    /// A text in the provider's own message, in lower case.
    Contains(String),
}

impl Rule {
    /// What a response means by the first of these rules that is for it.
    pub fn read(
        rules: &[Self],
        status: u16,
        headers: &Headers,
        body: &[u8],
        context: &Context<'_>,
    ) -> Option<Reading> {
        if rules.is_empty() {
            return None;
        }
        let report = Report::of(headers, body);
        let rule = rules.iter().find(|rule| rule.is_for(status, headers, &report, context))?;
        Some(rule.reading())
    }

    fn is_for(
        &self,
        status: u16,
        headers: &Headers,
        report: &Report<'_>,
        context: &Context<'_>,
    ) -> bool {
        let is_there = match &self.sign {
            Sign::Status => true,
            Sign::Code(code) => {
                report.codes.iter().chain(&report.types).any(|it| it.as_ref() == code.as_bytes())
            }
            Sign::Header(name, None) => headers.first(name).is_some(),
            Sign::Header(name, Some(value)) => headers.text(name).trim() == value,
            Sign::Contains(text) => {
                steps::count(report.message.len());
                let mut windows = report.message.windows(text.len().max(1));
                windows.any(|window| window == text.as_bytes())
            }
        };
        is_there
            && self.status.is_none_or(|only| only == status)
            && self.provider.as_ref().is_none_or(|only| only == context.provider)
    }

    fn reading(&self) -> Reading {
        Reading {
            class: self.class,
            scope: self.scope.unwrap_or(self.class.usual_scope()),
            wait: self.wait,
            evidence: if self.wait.is_some() { Evidence::Proof } else { Evidence::Suspicion },
            code: "rule",
            long: !matches!(self.sign, Sign::Contains(_)),
            is_of_a_time: false,
            retry_is_useless: false,
        }
    }
}
