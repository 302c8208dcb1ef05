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
//! | `unsupported-model` | responds with 400 and the message that this account does not have the model |
//! | `first-byte=1500ms` or `first-byte=2s` | responds as always, but only after this time |
//! | `drop` | closes the connection without a byte of a response |
//! | `cut=3` | closes it after three events of a stream, or in the middle of a plain response |
//!
//! A header has exactly one effect. It may be repeated, and the first that names the serving
//! account counts. It passes through Envoy as any other header does. The response to a header that
//! makes no sense is 400.

use std::sync::Mutex;
use std::time::Duration;

use axum::http::HeaderMap;

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
}

impl Fault {
    /// 429 with a `retry-after` of this many seconds.
    pub fn rate_limit(retry_after_seconds: u64) -> Self {
        Self::Status { status: 429, retry_after: Some(retry_after_seconds) }
    }
}

/// The faults that tests have requested.
#[derive(Debug, Default)]
pub(super) struct FaultBook(Mutex<Vec<Planned>>);

#[derive(Debug)]
struct Planned {
    account: String,
    fault: Fault,
    /// `None` means until cleared.
    times: Option<u32>,
}

impl FaultBook {
    pub(super) fn add(&self, account: &str, fault: Fault, times: Option<u32>) {
        locked(&self.0).push(Planned { account: account.to_owned(), fault, times });
    }

    pub(super) fn clear(&self) {
        locked(&self.0).clear();
    }

    /// The oldest fault planned for the account, which is used up by one.
    pub(super) fn take(&self, account: &str) -> Option<Fault> {
        let mut planned = locked(&self.0);
        planned.retain(|plan| plan.times != Some(0));
        let plan = planned.iter_mut().find(|plan| plan.account == account)?;
        plan.times = plan.times.map(|times| times - 1);
        Some(plan.fault.clone())
    }
}

/// The fault that the headers of a request contain for this account.
pub(super) fn from_headers(headers: &HeaderMap, account: &str) -> Result<Option<Fault>, ApiError> {
    for value in headers.get_all(FAULT_HEADER) {
        let order = value.to_str().ok().and_then(Order::parse);
        let order = order.ok_or_else(|| {
            ApiError::invalid(format!(
                "{FAULT_HEADER}: expected one fault, such as `status=429; retry-after=7`, \
                 `first-byte=2s`, `drop` or `cut=3`"
            ))
        })?;
        if order.accounts.is_empty() || order.accounts.iter().any(|name| name == account) {
            return Ok(Some(order.fault));
        }
    }
    Ok(None)
}

/// Waits, if the fault is [`Fault::SlowFirstByte`].
pub(super) async fn delay(fault: &Option<Fault>) {
    if let Some(Fault::SlowFirstByte(duration)) = fault {
        tokio::time::sleep(*duration).await;
    }
}

/// The number of events after which to cut.
pub(super) fn cut(fault: &Option<Fault>) -> Option<usize> {
    match fault {
        Some(Fault::CutAfter(events)) => Some(*events),
        _ => None,
    }
}

/// One `x-simulate` header.
#[derive(Debug, PartialEq)]
struct Order {
    accounts: Vec<String>,
    fault: Fault,
}

impl Order {
    fn parse(text: &str) -> Option<Self> {
        let (mut accounts, mut fault, mut seconds) = (Vec::new(), None, None);
        for setting in text.split(';').map(str::trim).filter(|setting| !setting.is_empty()) {
            let (name, value) = setting
                .split_once('=')
                .map_or((setting, ""), |(name, value)| (name.trim(), value.trim()));
            let effect = match name {
                "account" => {
                    accounts.extend(value.split(',').map(|name| name.trim().to_owned()));
                    continue;
                }
                "retry-after" => {
                    seconds = Some(value.parse().ok()?);
                    continue;
                }
                "status" => Fault::Status { status: status(value)?, retry_after: None },
                "unsupported-model" if value.is_empty() => Fault::UnsupportedModel,
                "first-byte" => Fault::SlowFirstByte(duration(value)?),
                "drop" if value.is_empty() => Fault::Drop,
                "cut" => Fault::CutAfter(value.parse().ok()?),
                _ => return None,
            };
            if fault.replace(effect).is_some() {
                return None;
            }
        }
        let fault = match (fault?, seconds) {
            (Fault::Status { status, .. }, retry_after) => Fault::Status { status, retry_after },
            (_, Some(_)) => return None,
            (other, None) => other,
        };
        Some(Self { accounts, fault })
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

    fn check(header: &str, account: &str, expected: Result<Option<Fault>, u16>) {
        let mut headers = HeaderMap::new();
        for value in header.split('|') {
            headers.append(FAULT_HEADER, value.parse().unwrap());
        }
        assert_eq!(
            from_headers(&headers, account).map_err(|error| error.status),
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
        check("cut=3", "any", Ok(Some(Fault::CutAfter(3))));
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
        ] {
            check(header, "any", Err(400));
        }
    }

    #[test]
    fn a_planned_fault_is_used_up() {
        let book = FaultBook::default();
        book.add("a", Fault::Drop, Some(1));
        book.add("a", Fault::CutAfter(1), None);
        assert_eq!(book.take("b"), None);
        let taken: Vec<_> = (0..3).map(|_| book.take("a")).collect();
        assert_eq!(taken, [Some(Fault::Drop), Some(Fault::CutAfter(1)), Some(Fault::CutAfter(1))]);
        book.clear();
        assert_eq!(book.take("a"), None);
    }
}
