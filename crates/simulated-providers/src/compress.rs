//! Compressed responses: what a client accepts, as providers compress it.
//!
//! JSON is compressed by all of them, errors as well; streams by Anthropic alone, event by event.

use std::io::{self, Write};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use futures_util::{StreamExt, stream};

use super::stream::Framing;
use super::vendor::Vendor;

/// The encodings that are simulated, best first. Real providers know `br` and `zstd` as well.
const ENCODINGS: [&str; 2] = ["gzip", "deflate"];

/// Compresses a response if its client accepts that and the vendor does it.
pub(super) fn compress(
    vendor: Vendor,
    accepted: Option<&HeaderValue>,
    response: Response<Body>,
) -> Response<Body> {
    let kind = text(response.headers().get(header::CONTENT_TYPE));
    let is_stream = kind.starts_with("text/event-");
    let is_unsuitable = response.status() == StatusCode::SWITCHING_PROTOCOLS
        || response.headers().contains_key(header::CONTENT_ENCODING)
        || kind == Framing::AwsFrames.content_type()
        || (is_stream && vendor != Vendor::Anthropic);
    match ENCODINGS.into_iter().find(|name| accepts(text(accepted), name)) {
        Some(encoding) if !is_unsuitable => with_encoding(response, encoding, true),
        _ => response,
    }
}

/// Compresses a response without saying so.
pub(super) fn hide_gzip(response: Response<Body>) -> Response<Body> {
    with_encoding(response, "gzip", false)
}

fn with_encoding(
    response: Response<Body>,
    encoding: &'static str,
    is_said: bool,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    if is_said {
        add_encoding(&mut parts.headers, encoding);
    }
    let encoder = match encoding {
        "gzip" => Encoder::Gzip(GzEncoder::new(Vec::new(), Compression::default())),
        _ => Encoder::Deflate(ZlibEncoder::new(Vec::new(), Compression::default())),
    };
    let state = Some((body.into_data_stream(), encoder));
    let pieces = stream::unfold(state, async |state| {
        let (mut body, mut encoder) = state?;
        Some(match body.next().await {
            Some(Ok(piece)) => (encoder.piece(&piece), Some((body, encoder))),
            Some(Err(error)) => (Err(io::Error::other(error)), None),
            None => (encoder.end(), None),
        })
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}

fn add_encoding(headers: &mut HeaderMap, encoding: &'static str) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
}

fn text(value: Option<&HeaderValue>) -> &str {
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn accepts(header: &str, encoding: &str) -> bool {
    header.split(',').any(|item| {
        let (name, quality) = item.split_once(';').unwrap_or((item, ""));
        let is_refused = matches!(quality.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
        name.trim().eq_ignore_ascii_case(encoding) && !is_refused
    })
}

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(ZlibEncoder<Vec<u8>>),
}

impl Encoder {
    /// The bytes of a piece, so that a client can read all of it at once.
    fn piece(&mut self, piece: &[u8]) -> io::Result<Bytes> {
        let written = match self {
            Self::Gzip(encoder) => {
                encoder.write_all(piece)?;
                encoder.flush()?;
                encoder.get_mut()
            }
            Self::Deflate(encoder) => {
                encoder.write_all(piece)?;
                encoder.flush()?;
                encoder.get_mut()
            }
        };
        Ok(std::mem::take(written).into())
    }

    fn end(self) -> io::Result<Bytes> {
        Ok(match self {
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Deflate(encoder) => encoder.finish()?,
        }
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_accepted_by_its_name_unless_its_quality_is_zero() {
        for (header, expected) in [
            ("gzip, deflate, br, zstd", true),
            ("br;q=1.0, GZIP;q=0.8", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("", false),
        ] {
            assert_eq!(accepts(header, "gzip"), expected, "{header}");
        }
    }
}
