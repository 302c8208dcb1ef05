//! Azure OpenAI. `error.code` is a name, or the status once more.

use crate::signals::Class::{Denied, Elsewhere, NotFound, RateLimit, RequestFault};
use crate::signals::row::{Row, code};

pub(super) static ROWS: &[Row] = &[
    // The deployment of the path is not in this resource. D
    code("DeploymentNotFound", NotFound).implied(),
    // Its region lacks the API. T
    code("404", Elsewhere).says("resource not found"),
    // Networks and keys. D
    code("AccessDenied", Denied).on(&[401, 403]),
    code("PermissionDenied", Denied).on(&[401, 403]),
    code("RateLimitReached", RateLimit),
    code("too_many_requests", RateLimit),
    code("ResponsibleAIPolicyViolation", RequestFault),
];
