//! xAI: `{"code": "<a sentence>", "error": "<prose>"}`, so prose is all there is.

use crate::signals::Class::{Denied, NotFound};
use crate::signals::row::{Row, phrase};

pub(super) static ROWS: &[Row] = &[
    phrase("incorrect_api_key", Denied).says("incorrect api key provided"),
    phrase("credits_used_up", Denied)
        .says("*used all available credits or reached its monthly spending limit"),
    phrase("model_not_found", NotFound).says("the model*does not exist"),
];
