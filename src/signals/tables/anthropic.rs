//! Anthropic: the API and Claude subscriptions. Codes stand in `error.details.error_code`; the
//! vendor says not to match on messages, so prose counts only where there is no code.

use crate::signals::Class::{
    Denied, Elsewhere, NotFound, NotHere, Overloaded, RateLimit, RequestFault, Transient,
};
use crate::signals::row::{Row, code, kind, phrase};

pub(super) static ROWS: &[Row] = &[
    // Money and accounts. S
    code("enforced_spend_limit_reached", Denied).proof(),
    code("contract_spend_limit_reached", Denied).proof(),
    code("organization_on_hold", Denied).proof(),
    code("linked_organization_*", Denied).proof(),
    code("claude_code_key_creator_not_member", Denied).proof(),
    code("ramp_limit_exceeded", RateLimit),
    code("cmek_*", Transient).whole(),
    // The client's own. S
    code("claude_code_version_too_old", RequestFault),
    code("sandbox_egress_restricted", RequestFault),
    code("user_profile_not_billable", Elsewhere),
    // State of another workspace. S
    code("thread_not_found", NotHere),
    code("file_expired", NotHere),
    code("compaction_signature_invalid", NotHere),
    code("thread_already_continued", RequestFault),
    code("thread_continue_in_flight", RequestFault),
    code("thread_fingerprint_mismatch", RequestFault),
    code("thread_unsupported_request", RequestFault),
    // Extra usage and long context are properties of request and plan; others are served. T
    kind("rate_limit_error", Elsewhere).says("extra usage is required"),
    kind("invalid_request_error", Elsewhere).says("you're out of extra usage"),
    kind("invalid_request_error", Elsewhere).says("third-party apps now draw from"),
    kind("invalid_request_error", Elsewhere).says("the long context beta is not yet available"),
    kind("invalid_request_error", Elsewhere).says("this credential is only authorized for use"),
    // A 401 that a header of the client causes: `origin`, or a missing beta. T
    kind("authentication_error", Elsewhere).says("cors requests are not allowed"),
    kind("authentication_error", Elsewhere).says("oauth authentication is currently not"),
    // Ciphertext of another account. T
    kind("invalid_request_error", NotHere).says("*invalid `signature` in `thinking` block"),
    kind("not_found_error", NotHere).says("file not found"),
    // The whole message is the model's name. T
    kind("not_found_error", NotFound).says("model:"),
    kind("billing_error", Denied).proof(),
    kind("overloaded_error", Overloaded),
    // At the edge, by region or fingerprint, before any account is known. T
    kind("forbidden", Transient).says("request not allowed").whole(),
    // The words of an empty balance, a limit and a closed account; there are no codes for them. T
    phrase("credit_balance_too_low", Denied).says("your credit balance is too low"),
    phrase("usage_limits_reached", Denied).says("you have reached your specified api usage"),
    phrase("organization_disabled", Denied).says("this organization has been disabled"),
];
