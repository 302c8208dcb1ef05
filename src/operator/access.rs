//! Who may call: the browser of somebody on this machine, and no page of another origin.
//!
//! The listener is on the loopback interface, but a browser reaches that for every page that it
//! shows. So the host must be a name of the loopback interface, or one that is configured: a page
//! whose own name was made to lead here (DNS rebinding) has another. And what changes something
//! must be JSON, which a page of another origin can only send after asking, and must name no
//! other origin. Such a page cannot read the state either, but could ask for it all the time, and
//! each reply costs milliseconds of a worker: so what browsers say of the page that asks counts.

use std::net::Ipv4Addr;

use super::Reply;
use crate::request::Headers;

/// The longest body of a request.
pub const MOST_BYTES: usize = 4 << 10;

/// Refuses a request to a host that is not ours.
pub(super) fn check_host(headers: &Headers, configured: &[String]) -> Result<(), Reply> {
    let host = headers.host();
    let is_loopback = host == "localhost"
        || host == "[::1]"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    if is_loopback || configured.contains(&host) {
        return Ok(());
    }
    Err(Reply::error(403, "this host is not configured: see operator.hosts"))
}

/// Refuses what a page of another origin asks for. Browsers say so; others say nothing.
pub(super) fn check_site(headers: &Headers) -> Result<(), Reply> {
    match headers.text("sec-fetch-site") {
        "" | "same-origin" | "none" => Ok(()),
        _ => Err(Reply::error(403, "a page of another origin may not ask for this")),
    }
}

/// Refuses a change that another page asks for, or that is not JSON.
pub(super) fn check_post(headers: &Headers, body: &[u8]) -> Result<(), Reply> {
    let authority = headers.text(":authority");
    let is_own = |origin: &[u8]| {
        let origin = std::str::from_utf8(origin).unwrap_or_default();
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
    };
    if !headers.all("origin").all(is_own) {
        return Err(Reply::error(403, "a page of another origin may change nothing"));
    }
    let content_type = headers.text("content-type");
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Reply::error(415, "the content type must be application/json"));
    }
    if body.len() > MOST_BYTES {
        return Err(Reply::error(413, "the body is too long"));
    }
    Ok(())
}
