//! What is in front of providers: Cloudflare, load balancers, Envoy. They mean the address, the
//! moment or the client, never the account.

use crate::signals::Class::{Overloaded, RateLimit, Transient};
use crate::signals::row::{Row, header, html};

pub(super) static ROWS: &[Row] = &[
    // A challenge, whatever the status. D
    header("cf-mitigated", Transient).says("challenge").whole(),
    html(Transient).on(&[401, 403]).whole(),
    html(RateLimit).on(&[429]).whole(),
    // Envoy's overload manager. D
    header("x-envoy-overloaded", Overloaded).says("true"),
];
