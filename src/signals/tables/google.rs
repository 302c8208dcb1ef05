//! Google: Gemini API, Vertex, Code Assist. `error.status` is the kind; `error.details[].reason`
//! the code, where there is one.

use crate::signals::Class::{
    Denied, Elsewhere, NotFound, NotHere, NotSupported, Overloaded, RateLimit, RequestFault,
    Transient,
};
use crate::signals::row::{Row, code, kind};

pub(super) static ROWS: &[Row] = &[
    // Keys, projects, accounts. D
    code("API_KEY_INVALID", Denied).proof(),
    code("API_KEY_EXPIRED", Denied).proof(),
    code("API_KEY_SERVICE_BLOCKED", Denied).proof(),
    code("API_KEY_IP_ADDRESS_BLOCKED", Denied),
    // Decided by a header that a client may send. D
    code("API_KEY_HTTP_REFERRER_BLOCKED", Elsewhere),
    code("USER_PROJECT_DENIED", Elsewhere),
    code("CONSUMER_INVALID", Denied).proof(),
    code("CONSUMER_SUSPENDED", Denied).proof(),
    code("SERVICE_DISABLED", Denied).proof(),
    code("BILLING_DISABLED", Denied).proof(),
    code("ACCESS_TOKEN_EXPIRED", Denied).proof(),
    code("ACCESS_TOKEN_SCOPE_INSUFFICIENT", Denied),
    code("ACCOUNT_STATE_INVALID", Denied).proof(),
    code("VALIDATION_REQUIRED", Denied).proof(),
    // May be about the one resource of the path. D
    code("IAM_PERMISSION_DENIED", NotSupported).implied(),
    // Code Assist. T
    code("MODEL_CAPACITY_EXHAUSTED", Overloaded),
    code("RATE_LIMIT_EXCEEDED", RateLimit),
    code("QUOTA_EXHAUSTED", RateLimit),
    // Without a reason, prose tells them apart. T
    kind("INVALID_ARGUMENT", Denied).says("api key not valid"),
    kind("INVALID_ARGUMENT", Denied).says("api key not found"),
    kind("INVALID_ARGUMENT", Denied).says("api key expired"),
    kind("INVALID_ARGUMENT", NotHere).says("*thought signature"),
    kind("FAILED_PRECONDITION", Denied).says("user location is not supported"),
    kind("FAILED_PRECONDITION", Denied).says("*free tier is not available"),
    // A cache or a file of another project, or one that is gone. T
    kind("PERMISSION_DENIED", NotHere).says("cachedcontent not found"),
    kind("PERMISSION_DENIED", NotHere).says("*permission to access the file"),
    kind("NOT_FOUND", NotHere).says("*cached content"),
    // The model, but only for a method that generates: a client on the wrong method or version of
    // the API gets the same message. T
    kind("NOT_FOUND", NotFound).says("*is not found for api*not supported for generatecontent"),
    kind("NOT_FOUND", NotFound).says("publisher model"),
    kind("RESOURCE_EXHAUSTED", Denied).says("*prepayment credits are depleted"),
    kind("RESOURCE_EXHAUSTED", Denied).says("*monthly spending cap"),
    kind("RESOURCE_EXHAUSTED", RateLimit),
    kind("UNAVAILABLE", Overloaded),
    kind("INTERNAL", Transient),
    kind("DEADLINE_EXCEEDED", Transient),
    kind("INVALID_ARGUMENT", RequestFault),
    kind("FAILED_PRECONDITION", RequestFault),
];
