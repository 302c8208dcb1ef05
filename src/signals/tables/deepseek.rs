//! DeepSeek: prose, with statuses that mean what they say (402 is an empty balance).

use crate::signals::Class::{Denied, NotFound, Overloaded};
use crate::signals::row::{Row, phrase};

pub(super) static ROWS: &[Row] = &[
    phrase("insufficient_balance", Denied).begins("insufficient balance"),
    phrase("model_not_exist", NotFound).begins("model not exist"),
    phrase("service_too_busy", Overloaded).begins("service is too busy"),
];
