//! Groq: OpenAI's codes, and some of its own.

use crate::signals::Class::{Denied, Elsewhere, NotFound, NotSupported, Overloaded, RequestFault};
use crate::signals::row::{Row, code, phrase, status};

pub(super) static ROWS: &[Row] = &[
    code("organization_restricted", Denied).proof(),
    code("model_permission_blocked_org", NotSupported).implied(),
    code("model_permission_blocked_project", NotSupported).implied(),
    code("model_terms_required", NotSupported).implied(),
    code("model_decommissioned", NotFound),
    code("tool_use_failed", RequestFault),
    code("json_validate_failed", RequestFault),
    // Larger than the limit itself. T
    phrase("request_too_large", Elsewhere).says("request too large for"),
    // "Flex tier capacity exceeded". D
    status("capacity_exceeded", Overloaded).on(&[498]),
];
