//! Faults on request: of a test through [`Providers::fault`](super::Providers::fault), of curl
//! through a header.
//!
//! The header is `x-simulate`, a list of settings separated by semicolons:
//!
//! | setting | effect |
//! |---|---|
//! | `account=anthropic-a,anthropic-b` | only when one of these accounts serves the request; any account if absent |
//! | `status=429` | responds with this error status (400 to 599), in the JSON of the vendor |
//! | `retry-after=7` | with `status`: adds the header, in seconds |
//! | `response=codex-usage-limit` | responds as a real provider does, by a name of `responses.jsonl` |
//! | `wait=60` | with `response`: the limit ends after this many seconds |
//! | `unsupported-model` | responds with 400 and the message that this account does not have the model |
//! | `first-byte=1500ms` or `first-byte=2s` | responds as always, or as another setting says, but only after this time |
//! | `drop` | closes the connection without a byte of a response |
//! | `lost` | serves the request, and closes the connection without a byte of the response |
//! | `stale` | the same, if the connection has served a request before |
//! | `cut=3` | closes it after three events of a stream, or in the middle of a plain response |
//! | `end=3` | ends a stream in an orderly way after three events |
//! | `silent=0` | sends the headers and no event of a stream, and then nothing for ever |
//! | `concurrency=2` | responds with 429 while the account has two other requests |
//! | `model=opus` | with any other: only for models whose names contain this |
//!
//! A header has exactly one effect. It may be repeated, and the first that names the serving
//! account counts. It passes through Envoy as any other header does. The response to a header that
//! makes no sense is 400.

use std::sync::Mutex;
use std::time::Duration;

use axum::http::HeaderMap;

use super::catalog::response_names;
use super::error::ApiError;
use super::lock::locked;

/// The header that requests a fault.
pub const FAULT_HEADER: &str = "x-simulate";

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An error status, in the JSON of the vendor.
    Status {
        /// 400 to 599.
        status: u16,
        /// Seconds, for the header `retry-after`.
        retry_after: Option<u64>,
    },
    /// 400, and a message that this account does not have the model.
    UnsupportedModel,
    /// The response is as always, but its first byte comes after this time.
    SlowFirstByte(Duration),
    /// The connection is closed when the request has been read, without a byte of a response. On
    /// HTTP/2 this ends all streams of the connection.
    Drop,
    /// The connection is closed after this many events of a stream (on HTTP/2 the stream is reset).
    /// A response that is not a stream is cut in its middle.
    CutAfter(usize),
    /// A response of the catalog (`responses.jsonl`).
    Response {
        /// Its name there.
        name: String,
        /// Seconds until the limit ends, in place of those of the catalog.
        wait: Option<u64>,
    },
    /// A stream ends in an orderly way after this many events.
    EndAfter(usize),
    /// After this many events of a stream nothing more comes, and the connection stays open.
    SilentAfter(usize),
    /// The connection is closed without a byte of a response if it has served a request before, as
    /// by a provider that closes idle connections.
    Stale,
    /// The request is served, and the connection is closed without a byte of the response: what
    /// it created is there.
    Lost,
    /// Another fault, but only after this time.
    Late(Duration, Box<Self>),
    /// The account serves this many requests at once, each of which takes this long.
    Concurrency {
        /// The requests that it serves.
        limit: usize,
        /// The time until the first byte of a response.
        duration: Duration,
    },
}

impl Fault {
    /// 429 with a `retry-after` of this many seconds.
    pub fn rate_limit(retry_after_seconds: u64) -> Self {
        Self::Status { status: 429, retry_after: Some(retry_after_seconds) }
    }

    /// A status without a word about when to come back.
    pub fn status(status: u16) -> Self {
        Self::Status { status, retry_after: None }
    }

    /// A response of the catalog.
    pub fn response(name: &str) -> Self {
        Self::Response { name: name.to_owned(), wait: None }
    }

    /// Whether it concerns a request, which came on a connection that had served before or not.
    fn concerns(&self, is_kept: bool) -> bool {
        is_kept || *self != Self::Stale
    }
}

/// The request that a fault may concern.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) account: &'a str,
    pub(super) model: &'a str,
    /// Whether its connection had served before.
    pub(super) is_kept: bool,
}

/// The faults that tests have requested.
#[derive(Debug, Default)]
pub(super) struct FaultBook(Mutex<Vec<Planned>>);

#[derive(Debug)]
struct Planned {
    account: String,
    /// A part of the model's name; empty for all models.
    model: String,
    fault: Fault,
    /// `None` means until cleared.
    times: Option<u32>,
}

impl FaultBook {
    pub(super) fn add(&self, account: &str, model: &str, fault: Fault, times: Option<u32>) {
        let (account, model) = (account.to_owned(), model.to_owned());
        locked(&self.0).push(Planned { account, model, fault, times });
    }

    pub(super) fn is_empty(&self) -> bool {
        locked(&self.0).is_empty()
    }

    pub(super) fn clear(&self) {
        locked(&self.0).clear();
    }

    /// The oldest fault planned for a request, which is used up by one.
    pub(super) fn take(&self, subject: Subject<'_>) -> Option<Fault> {
        let mut planned = locked(&self.0);
        planned.retain(|plan| plan.times != Some(0));
        let plan = planned.iter_mut().find(|plan| {
            plan.account == subject.account
                && subject.model.contains(&plan.model)
                && plan.fault.concerns(subject.is_kept)
        })?;
        plan.times = plan.times.map(|times| times - 1);
        Some(plan.fault.clone())
    }
}

/// The fault that the headers of a request contain for it.
pub(super) fn from_headers(
    headers: &HeaderMap,
    subject: Subject<'_>,
) -> Result<Option<Fault>, ApiError> {
    for value in headers.get_all(FAULT_HEADER) {
        let order = value.to_str().ok().and_then(Order::parse);
        let order = order.ok_or_else(|| {
            ApiError::invalid(format!(
                "{FAULT_HEADER}: expected one fault, such as `status=429; retry-after=7`, \
                 `response=codex-usage-limit`, `first-byte=2s`, `drop` or `cut=3`"
            ))
        })?;
        let is_for_account =
            order.accounts.is_empty() || order.accounts.iter().any(|name| name == subject.account);
        if is_for_account
            && subject.model.contains(&order.model)
            && order.fault.concerns(subject.is_kept)
        {
            return Ok(Some(order.fault));
        }
    }
    Ok(None)
}

/// Waits, if the fault says so.
pub(super) async fn delay(fault: &Option<Fault>) {
    if let Some(Fault::SlowFirstByte(duration) | Fault::Concurrency { duration, .. }) = fault {
        tokio::time::sleep(*duration).await;
    }
}

/// Where a response stops, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The connection is closed.
    Cut(usize),
    /// The response ends.
    End(usize),
    /// Nothing more comes.
    Silence(usize),
}

impl Stop {
    /// Where the response to a request with this fault stops.
    pub(super) fn of(fault: &Option<Fault>) -> Option<Self> {
        match fault {
            Some(Fault::CutAfter(events)) => Some(Self::Cut(*events)),
            Some(Fault::EndAfter(events)) => Some(Self::End(*events)),
            Some(Fault::SilentAfter(events)) => Some(Self::Silence(*events)),
            _ => None,
        }
    }

    /// After how many events.
    pub(super) fn after(self) -> usize {
        let (Self::Cut(events) | Self::End(events) | Self::Silence(events)) = self;
        events
    }
}

/// One `x-simulate` header.
#[derive(Debug, PartialEq)]
struct Order {
    accounts: Vec<String>,
    /// A part of the model's name.
    model: String,
    fault: Fault,
}

impl Order {
    fn parse(text: &str) -> Option<Self> {
        let mut order = Self { accounts: Vec::new(), model: String::new(), fault: Fault::Drop };
        let (mut fault, mut seconds, mut wait, mut first_byte) = (None, None, None, None);
        for setting in text.split(';').map(str::trim).filter(|setting| !setting.is_empty()) {
            let (name, value) = setting
                .split_once('=')
                .map_or((setting, ""), |(name, value)| (name.trim(), value.trim()));
            let effect = match name {
                "account" => {
                    order.accounts.extend(value.split(',').map(|name| name.trim().to_owned()));
                    continue;
                }
                "model" => {
                    value.clone_into(&mut order.model);
                    continue;
                }
                "retry-after" => {
                    seconds = Some(value.parse().ok()?);
                    continue;
                }
                "wait" => {
                    wait = Some(value.parse().ok()?);
                    continue;
                }
                "first-byte" => {
                    first_byte = Some(duration(value)?);
                    continue;
                }
                "status" => Fault::Status { status: status(value)?, retry_after: None },
                "response" if response_names().any(|known| known == value) => {
                    Fault::response(value)
                }
                "unsupported-model" if value.is_empty() => Fault::UnsupportedModel,
                "drop" if value.is_empty() => Fault::Drop,
                "lost" if value.is_empty() => Fault::Lost,
                "stale" if value.is_empty() => Fault::Stale,
                "cut" => Fault::CutAfter(value.parse().ok()?),
                "end" => Fault::EndAfter(value.parse().ok()?),
                "silent" => Fault::SilentAfter(value.parse().ok()?),
                "concurrency" => {
                    Fault::Concurrency { limit: value.parse().ok()?, duration: Duration::ZERO }
                }
                _ => return None,
            };
            if fault.replace(effect).is_some() {
                return None;
            }
        }
        let has_effect = fault.is_some();
        order.fault = match (fault, seconds, wait, first_byte) {
            (None, None, None, Some(duration)) => Fault::SlowFirstByte(duration),
            (Some(Fault::Status { status, .. }), retry_after, None, _) => {
                Fault::Status { status, retry_after }
            }
            (Some(Fault::Response { name, .. }), None, wait, _) => Fault::Response { name, wait },
            (Some(Fault::Concurrency { limit, .. }), None, None, first_byte) => {
                return Some(Self {
                    fault: Fault::Concurrency { limit, duration: first_byte.unwrap_or_default() },
                    ..order
                });
            }
            (Some(other), None, None, _) => other,
            _ => return None,
        };
        if let Some(after) = first_byte.filter(|_| has_effect) {
            order.fault = Fault::Late(after, Box::new(order.fault));
        }
        Some(order)
    }
}

fn status(text: &str) -> Option<u16> {
    text.parse().ok().filter(|status| (400..600).contains(status))
}

fn duration(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(number) => number.parse().ok().map(Duration::from_millis),
        None => text.strip_suffix('s')?.parse().ok().map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(account: &str) -> Subject<'_> {
        Subject { account, model: "claude-opus-4-5", is_kept: false }
    }

    fn check(header: &str, account: &str, expected: Result<Option<Fault>, u16>) {
        let mut headers = HeaderMap::new();
        for value in header.split('|') {
            headers.append(FAULT_HEADER, value.parse().unwrap());
        }
        assert_eq!(
            from_headers(&headers, subject(account)).map_err(|error| error.status),
            expected,
            "{header}"
        );
    }

    #[test]
    fn the_header_asks_for_one_fault() {
        check("status=429; retry-after=7", "any", Ok(Some(Fault::rate_limit(7))));
        check("status=529", "any", Ok(Some(Fault::Status { status: 529, retry_after: None })));
        check(
            "first-byte=1500ms",
            "any",
            Ok(Some(Fault::SlowFirstByte(Duration::from_millis(1500)))),
        );
        check("first-byte=2s", "any", Ok(Some(Fault::SlowFirstByte(Duration::from_secs(2)))));
        check("unsupported-model", "any", Ok(Some(Fault::UnsupportedModel)));
        check("drop", "any", Ok(Some(Fault::Drop)));
        check("lost", "any", Ok(Some(Fault::Lost)));
        check("cut=3", "any", Ok(Some(Fault::CutAfter(3))));
        check("end=2", "any", Ok(Some(Fault::EndAfter(2))));
        check("silent=0", "any", Ok(Some(Fault::SilentAfter(0))));
        check(
            "response=codex-usage-limit; wait=60",
            "any",
            Ok(Some(Fault::Response { name: "codex-usage-limit".into(), wait: Some(60) })),
        );
        check(
            "status=500; first-byte=2s",
            "any",
            Ok(Some(Fault::Late(Duration::from_secs(2), Box::new(Fault::status(500))))),
        );
        check(
            "concurrency=2; first-byte=1s",
            "any",
            Ok(Some(Fault::Concurrency { limit: 2, duration: Duration::from_secs(1) })),
        );
    }

    #[test]
    fn a_fault_may_be_for_some_models_or_kept_connections_only() {
        check("model=opus; drop", "any", Ok(Some(Fault::Drop)));
        check("model=haiku; drop", "any", Ok(None));
        check("stale", "any", Ok(None));
        let mut headers = HeaderMap::new();
        headers.insert(FAULT_HEADER, "stale".parse().unwrap());
        let kept = Subject { is_kept: true, ..subject("any") };
        assert_eq!(from_headers(&headers, kept).ok(), Some(Some(Fault::Stale)));
    }

    #[test]
    fn the_header_works_on_the_accounts_it_names() {
        check("account=a,b; drop", "b", Ok(Some(Fault::Drop)));
        check("account=a; drop", "b", Ok(None));
        check("account=a; drop|account=b; cut=1", "b", Ok(Some(Fault::CutAfter(1))));
    }

    #[test]
    fn a_header_that_makes_no_sense_is_refused() {
        for header in [
            "",
            "status=200",
            "status=abc",
            "drop; cut=1",
            "drop; retry-after=1",
            "drop=1",
            "first-byte=2",
            "x=1",
            "drop; wait=1",
            "response=no-such-response",
        ] {
            check(header, "any", Err(400));
        }
    }

    #[test]
    fn a_planned_fault_is_used_up() {
        let book = FaultBook::default();
        book.add("a", "", Fault::Drop, Some(1));
        book.add("a", "", Fault::CutAfter(1), None);
        assert_eq!(book.take(subject("b")), None);
        let taken: Vec<_> = (0..3).map(|_| book.take(subject("a"))).collect();
        assert_eq!(taken, [Some(Fault::Drop), Some(Fault::CutAfter(1)), Some(Fault::CutAfter(1))]);
        book.clear();
        assert_eq!(book.take(subject("a")), None);
    }
}
