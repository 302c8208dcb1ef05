//! DeepSeek: prose, with statuses that mean what they say (402 is an empty balance).

use crate::signals::Class::{Denied, NotFound, Overloaded};
use crate::signals::row::{Row, phrase};

pub(super) static ROWS: &[Row] = &[
    phrase("insufficient_balance", Denied).says("insufficient balance"),
    phrase("model_not_exist", NotFound).says("model not exist"),
    phrase("service_too_busy", Overloaded).says("service is too busy"),
];
