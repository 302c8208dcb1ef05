//! Mistral: `{"object": "error", "message", "type", "code": "<four digits>"}`.

use crate::signals::Class::{NotFound, NotSupported, Overloaded, RateLimit};
use crate::signals::row::{Row, header, kind};

pub(super) static ROWS: &[Row] = &[
    kind("service_tier_capacity_exceeded", Overloaded),
    kind("rate_limited", RateLimit),
    kind("invalid_model", NotFound),
    // A plan without any allowance for the model. T
    header("x-ratelimit-limit-req-minute", NotSupported).says("0").on(&[429]).implied(),
];
