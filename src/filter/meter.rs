//! What a response has cost in tokens, read as it passes.

use std::ops::Range;

use super::{Running, host};
use crate::api::Api;
use crate::config::{PoolId, UsageReading};
use crate::metrics::Metric;
use crate::operation::Operation;
use crate::outcome::Outcome;
use crate::request::Headers;
use crate::router::Plan;
use crate::usage::{Excerpt, Reading, read, read_headers};

/// The meter of a request that asks a model for something.
pub(super) struct Meter {
    pool: PoolId,
    api: Api,
    outcome: Outcome,
    /// The response; `None` as long as none was served.
    response: Option<Response>,
}

enum Response {
    /// Its headers have told everything.
    Told(Reading),
    /// Its body tells.
    Passing(Excerpt),
}

impl Meter {
    /// The meter of a request, if its response is read.
    pub(super) fn of(running: &Running, plan: &Plan, outcome: Outcome) -> Option<Self> {
        let is_read = running.router.config().observe.usage != UsageReading::Off
            && plan.operation == Operation::Generate;
        is_read.then_some(Self { pool: plan.pool, api: plan.api, outcome, response: None })
    }

    /// Whether headers of the response may tell, so that they are needed.
    pub(super) fn needs_headers(&self) -> bool {
        self.api == Api::Bedrock
    }

    /// A response begins that the client gets, from a credential that served it. The headers may
    /// be empty, if they were not needed.
    pub(super) fn begin(&mut self, headers: &Headers) {
        let is_compressed = !matches!(headers.text("content-encoding"), "" | "identity");
        self.response = Some(match read_headers(self.api, headers) {
            Some(reading) => Response::Told(reading),
            None if is_compressed => Response::Passing(Excerpt::of_compressed()),
            None => Response::Passing(Excerpt::default()),
        });
    }

    /// A piece of the response passes.
    pub(super) fn pass(&mut self, size: usize) {
        if let Some(Response::Passing(excerpt)) = &mut self.response {
            excerpt.take(size, |Range { start, end }| host::response_body(start, end - start));
        }
    }

    /// The stream is over: counts what its response has told.
    pub(super) fn end(&self, running: &Running, is_complete: bool) -> Option<Reading> {
        let reading = match self.response.as_ref()? {
            Response::Told(reading) => *reading,
            Response::Passing(excerpt) => read(self.api, excerpt, is_complete),
        };
        let pools = &running.router.config().pools;
        let pool = pools.iter().find(|pool| pool.fingerprint == self.pool);
        let pool = pool.map_or("", |pool| pool.name.as_str());
        for (kind, tokens) in reading.usage.tokens() {
            let labels = [pool, self.outcome.as_str(), kind.as_str()];
            running.metrics.count(Metric::Tokens, &labels, tokens);
        }
        if let Some(reason) = reading.unread {
            running.metrics.count(Metric::UsageUnread, &[reason.as_str()], 1);
        }
        Some(reading)
    }
}
