//! Moonshot, Kimi: types of its own in OpenAI's shape.

use crate::signals::Class::{Denied, Elsewhere, NotFound, Overloaded, RateLimit};
use crate::signals::row::{Row, kind};

pub(super) static ROWS: &[Row] = &[
    kind("exceeded_current_quota_error", Denied).proof(),
    kind("rate_limit_reached_error", RateLimit),
    kind("engine_overloaded_error", Overloaded),
    kind("invalid_authentication_error", Denied),
    kind("incorrect_api_key_error", Denied),
    // "Currently only available for coding agents": about the client. T
    kind("access_terminated_error", Elsewhere),
    kind("resource_not_found_error", NotFound),
];
