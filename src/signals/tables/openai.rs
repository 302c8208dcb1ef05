//! OpenAI, and what most imitators took over from it.

use crate::signals::Class::{
    Denied, Elsewhere, NotFound, NotHere, NotSupported, Overloaded, RateLimit, RequestFault,
};
use crate::signals::row::{Row, code, kind, phrase};

pub(super) static ROWS: &[Row] = &[
    // A key or an account. S
    code("invalid_api_key", Denied).proof(),
    code("account_deactivated", Denied).proof(),
    code("token_invalidated", Denied).proof(),
    code("token_expired", Denied).proof(),
    code("token_revoked", Denied).proof(),
    // DashScope has the same words for a limit of a minute. T
    code("insufficient_quota", RateLimit).says("*error-code#token-limit"),
    code("insufficient_quota", Denied).proof(),
    code("billing_not_active", Denied).proof(),
    code("billing_hard_limit_reached", Denied).proof(),
    code("access_terminated", Denied).proof(),
    // The address, not the account. T
    code("unsupported_country_region_territory", Denied),
    // The client chose the account by a header. T
    code("mismatched_organization", Elsewhere),
    code("mismatched_project", Elsewhere),
    code("invalid_organization", Elsewhere),
    // Larger than the limit itself: no wait helps, and a higher tier serves it. T
    code("rate_limit_exceeded", Elsewhere).says("request too large for"),
    code("rate_limit_exceeded", RateLimit),
    // 403: the project may not use the model. 404: it does not exist, or not for this project. T
    code("model_not_found", NotSupported).on(&[400, 403]),
    code("model_not_found", NotFound),
    code("unsupported_value", NotSupported).says("*organization must be verified").implied(),
    // Load. T
    code("server_is_overloaded", Overloaded),
    code("slow_down", Overloaded),
    // State of another project, ciphertext of another organization. T
    code("previous_response_not_found", NotHere),
    code("response_not_found", NotHere),
    code("invalid_encrypted_content", NotHere),
    phrase("conversation_not_found", NotHere).says("conversation with id*not found"),
    phrase("item_not_found", NotHere).says("item with id*not found"),
    phrase("response_not_found", NotHere).says("response with id*not found"),
    phrase("file_not_found", NotHere).says("no such file object"),
    phrase("vector_store_not_found", NotHere).says("vector store*not found"),
    phrase("container_not_found", NotHere).says("container*not found"),
    phrase("container_expired", NotHere).says("container is expired"),
    // Rejected for what they are, also as the event of a stream, which has no status. S
    code("context_length_exceeded", RequestFault),
    code("string_above_max_length", RequestFault),
    code("invalid_prompt", RequestFault),
    code("content_filter", RequestFault),
    code("content_policy_violation", RequestFault),
    code("unknown_parameter", RequestFault),
    code("unsupported_parameter", RequestFault),
    code("unsupported_value", RequestFault),
    code("missing_required_parameter", RequestFault),
    code("invalid_value", RequestFault),
    code("invalid_type", RequestFault),
    code("invalid_json", RequestFault),
    // Some send it as the type alone. T
    kind("insufficient_quota", Denied).proof(),
];
