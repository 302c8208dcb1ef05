//! Codex on a ChatGPT plan.

use crate::signals::Class::{Denied, NotSupported, Overloaded, RateLimit, Unclear};
use crate::signals::row::{Row, code, header, kind, phrase};

pub(super) static ROWS: &[Row] = &[
    // The plan is used up, or does not include what was asked for (which may be one model). S
    kind("usage_limit_reached", RateLimit).whole().proof(),
    code("usage_limit_reached", RateLimit).whole().proof(),
    kind("usage_not_included", NotSupported).implied(),
    code("usage_not_included", NotSupported).implied(),
    code("deactivated_workspace", Denied).proof(),
    // After an hour; the client opens a new connection. S
    code("websocket_connection_limit_reached", Unclear),
    header("x-codex-rate-limit-reached-type", RateLimit).on(&[429]).whole().proof(),
    // Prose only. T
    phrase("model_at_capacity", Overloaded).says("selected model is at capacity"),
    phrase("model_not_in_plan", NotSupported)
        .says("*model is not supported when using codex with a chatgpt account")
        .implied(),
];
