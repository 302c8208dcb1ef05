//! What a response has cost in tokens, read as it passes.

use std::ops::Range;

use super::host::Piece;
use super::{Running, filter_state};
use crate::api::Api;
use crate::config::{PoolId, Price, UsageReading, Words};
use crate::metrics::Metric;
use crate::operation::Operation;
use crate::outcome::Outcome;
use crate::request::Headers;
use crate::router::Plan;
use crate::usage::{Excerpt, Reading, Turns, Unread, read, read_headers};

/// The meter of a request that asks a model for something.
pub(super) struct Meter {
    pool: PoolId,
    api: Api,
    outcome: Outcome,
    is_upgrade: bool,
    price: Option<Price>,
    /// The response; `None` as long as none was served.
    response: Option<Response>,
}

enum Response {
    /// Its headers have told everything.
    Told(Reading),
    /// Its body tells.
    Passing(Excerpt),
    /// It is a WebSocket, on which every turn tells.
    Turns(Turns),
}

impl Meter {
    /// The meter of a request with these headers, if its response is read.
    pub(super) fn of(
        running: &Running,
        plan: &Plan,
        outcome: Outcome,
        headers: &Headers,
    ) -> Option<Self> {
        let observe = &running.router.config().observe;
        if observe.usage == UsageReading::Off || plan.operation != Operation::Generate {
            return None;
        }
        let pool = running.router.pool_of(plan).map_or("", |pool| pool.name.as_str());
        let price = observe.prices.find(pool, plan.subject().model);
        let (pool, api, is_upgrade) = (plan.pool, plan.api, headers.ask_for_websocket());
        Some(Self { pool, api, outcome, is_upgrade, price, response: None })
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
            None if self.is_upgrade => Response::Turns(Turns::default()),
            None if is_compressed => Response::Passing(Excerpt::of_compressed()),
            None => Response::Passing(Excerpt::default()),
        });
    }

    /// A piece of the response passes.
    #[inline(never)]
    pub(super) fn pass(&mut self, piece: &Piece, running: &Running) {
        let Self { api, response, .. } = self;
        let mut told = Vec::new();
        match response {
            Some(Response::Passing(excerpt)) => {
                excerpt.take(piece.size, |Range { start, end }| piece.part(start, end - start));
            }
            Some(Response::Turns(turns)) => {
                let piece = piece.part(0, piece.size);
                turns.feed(&piece, *api, &mut |reading| told.push(reading));
            }
            Some(Response::Told(_)) | None => {}
        }
        told.iter().for_each(|reading| self.count(running, reading));
    }

    /// The stream is over: counts what its response has told. Of a WebSocket there is no sum.
    pub(super) fn end(&self, running: &Running, is_complete: bool) {
        let reading = match &self.response {
            Some(Response::Told(reading)) => *reading,
            Some(Response::Passing(excerpt)) => read(self.api, excerpt, is_complete),
            Some(Response::Turns(turns)) => return self.count_unread(running, turns.end()),
            None => return,
        };
        self.count(running, &reading);
        let words = reading.usage.words();
        if running.router.config().observe.decision != Words::Off && !words.is_empty() {
            filter_state::set_usage(&words);
        }
    }

    fn count(&self, running: &Running, reading: &Reading) {
        let pools = &running.router.config().pools;
        let pool = pools.iter().find(|pool| pool.fingerprint == self.pool);
        let pool = pool.map_or("", |pool| pool.name.as_str());
        for (kind, tokens) in reading.usage.tokens() {
            let labels = [pool, self.outcome.as_str(), kind.as_str()];
            running.metrics.count(Metric::Tokens, &labels, tokens);
        }
        if let Some(price) = self.price {
            let currency = &running.router.config().observe.prices.currency;
            let labels = [pool, self.outcome.as_str(), currency.as_str()];
            let (cost, saved) =
                (price.of(reading.usage.tokens()), price.saved(reading.usage.tokens()));
            running.metrics.count(Metric::Cost, &labels, cost);
            running.metrics.count(Metric::Saved, &labels, saved);
        }
        self.count_unread(running, reading.unread);
    }

    fn count_unread(&self, running: &Running, unread: Option<Unread>) {
        if let Some(reason) = unread {
            running.metrics.count(Metric::UsageUnread, &[reason.as_str()], 1);
        }
    }
}
