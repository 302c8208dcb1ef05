//! What a provider does wrong.

/// A fault of one response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 429 with `retry-after`, in seconds.
    Limit(u64),
    /// 429 without.
    LimitUntold,
    /// A status from 500 on.
    Status(u16),
    /// 401.
    Denied,
    /// 400: the request is at fault.
    Refused,
    /// The connection is reset in place of a response.
    Reset,
    /// The connection is closed in place of a response.
    Close,
    /// Nothing for some seconds, then the connection is closed.
    Stall,
    /// A stream breaks off before its content.
    CutEarly,
    /// A response breaks off in its content.
    CutLate,
    /// `content-length` says more than there is.
    LieLong,
    /// `content-length` says less than there is.
    LieShort,
    /// The body is compressed, if the request allows it.
    Gzip,
    /// A response before the upload has ended.
    Early,
    /// 503 before the upload has ended.
    EarlyError,
    /// A response in small pieces.
    Drip,
    /// A stream whose first event is an error.
    ErrorEvent,
    /// The connection is closed behind the response, without a word.
    CloseAfter,
    /// 400: what the request refers to is not here. No request asks for it.
    NotHere,
}

impl Fault {
    /// Those of single requests. A request with `retry-after` keeps all others away for that time, so
    /// it is rarer: see [`crate::outages`].
    pub(crate) const OF_REQUESTS: [Self; 22] = [
        Self::LimitUntold,
        Self::Status(500),
        Self::Status(502),
        Self::Status(503),
        Self::Status(529),
        Self::Refused,
        Self::Reset,
        Self::Close,
        Self::Stall,
        Self::CutEarly,
        Self::CutLate,
        Self::LieLong,
        Self::LieShort,
        Self::Gzip,
        Self::Gzip,
        Self::Early,
        Self::EarlyError,
        Self::Drip,
        Self::Drip,
        Self::ErrorEvent,
        Self::CloseAfter,
        Self::CloseAfter,
    ];

    /// A word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Limit(_) => "429 with retry-after",
            Self::LimitUntold => "429 without retry-after",
            Self::Status(500) => "500",
            Self::Status(502) => "502",
            Self::Status(503) => "503",
            Self::Status(529) => "529",
            Self::Status(_) => "other 5xx",
            Self::Denied => "401",
            Self::Refused => "400",
            Self::Reset => "reset",
            Self::Close => "closed without a response",
            Self::Stall => "stalled, then closed",
            Self::CutEarly => "cut before content",
            Self::CutLate => "cut in its content",
            Self::LieLong => "content-length too long",
            Self::LieShort => "content-length too short",
            Self::Gzip => "compressed",
            Self::Early => "early answer",
            Self::EarlyError => "early error",
            Self::Drip => "slow response",
            Self::ErrorEvent => "error event",
            Self::CloseAfter => "closed behind the response",
            Self::NotHere => "state of another credential",
        }
    }

    /// It in the header by which a request asks for it.
    pub(crate) fn code(self) -> String {
        match self {
            Self::Limit(seconds) => format!("limit={seconds}"),
            Self::Status(status) => format!("status={status}"),
            other => format!("{other:?}"),
        }
    }

    /// Whether a request that gets it is served, or nearly: what it refers to would have to be there.
    pub(crate) fn needs_state(self, is_stream: bool) -> bool {
        match self {
            Self::CutEarly
            | Self::CutLate
            | Self::LieLong
            | Self::LieShort
            | Self::Gzip
            | Self::Early
            | Self::Drip
            | Self::CloseAfter
            | Self::NotHere => true,
            Self::ErrorEvent => !is_stream,
            Self::Limit(_)
            | Self::LimitUntold
            | Self::Status(_)
            | Self::Denied
            | Self::Refused
            | Self::Reset
            | Self::Close
            | Self::Stall
            | Self::EarlyError => false,
        }
    }

    pub(crate) fn parse(code: &str) -> Option<Self> {
        if let Some(seconds) = code.strip_prefix("limit=") {
            return Some(Self::Limit(seconds.parse().ok()?));
        }
        if let Some(status) = code.strip_prefix("status=") {
            return Some(Self::Status(status.parse().ok()?));
        }
        let all = Self::OF_REQUESTS.into_iter().chain([Self::Denied]);
        all.into_iter().find(|fault| fault.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_pass_through_a_header() {
        let others = [Fault::Limit(7), Fault::Denied];
        for fault in Fault::OF_REQUESTS.into_iter().chain(others) {
            assert_eq!(Fault::parse(&fault.code()), Some(fault));
        }
        assert_eq!(Fault::parse("well"), None);
    }
}
