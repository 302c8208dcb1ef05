//! Zhipu (GLM): four digits in `error.code`.

use crate::signals::Class::{Denied, NotFound, NotSupported, Overloaded, RateLimit};
use crate::signals::row::{Row, code};

pub(super) static ROWS: &[Row] = &[
    // Keys and accounts. D
    code("1002", Denied).proof(),
    code("1110", Denied).proof(),
    code("1112", Denied).proof(),
    code("1113", Denied).proof(),
    code("1309", Denied).proof(),
    // Models. D
    code("1211", NotFound),
    code("1311", NotSupported).implied(),
    // Concurrency, frequency, load; then limits of the plan. D
    code("1302", RateLimit),
    // Too often, where 1302 is too many at once. D
    code("1303", RateLimit).of_a_time(),
    code("1305", Overloaded),
    // They say when it ends in a time without a zone. D
    code("1304", RateLimit).whole().proof(),
    code("1308", RateLimit).whole().proof(),
    code("1310", RateLimit).whole().proof(),
];
