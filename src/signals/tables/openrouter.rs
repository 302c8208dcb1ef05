//! OpenRouter: `error.metadata.error_type` is one of a closed list; `error.code` is the
//! status.

use crate::signals::Class::{Denied, Elsewhere, Overloaded, RateLimit, RequestFault, Transient};
use crate::signals::row::{Row, code, phrase};

pub(super) static ROWS: &[Row] = &[
    // More output than the balance pays; smaller requests are served. T
    code("payment_required", Elsewhere).says("*can only afford"),
    code("payment_required", Denied).proof(),
    code("authentication", Denied),
    code("permission_denied", Denied).on(&[401, 403]),
    code("moderation", RequestFault),
    code("provider_overloaded", Overloaded),
    code("provider_unavailable", Transient),
    phrase("can_only_afford", Elsewhere).says("*requires more credits, or fewer max_tokens"),
    phrase("input_was_flagged", RequestFault).says("*requires moderation*flagged"),
    // Settings of the account decide which endpoints it may use. T
    phrase("no_endpoints", Elsewhere).says("no endpoints found"),
    phrase("no_allowed_providers", Elsewhere).says("no allowed providers are available"),
    phrase("key_limit_exceeded", Denied).says("key limit exceeded"),
    phrase("rate_limited_upstream", RateLimit).says("provider returned error").on(&[429]),
];
