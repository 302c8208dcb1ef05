//! Compressed error bodies.
//!
//! Clients accept compression, so providers compress, also errors; some without saying so. As much
//! of a body as is read (8 KB) is inflated into at most eight times as much, and what cannot be
//! inflated stays as it is: an unreadable body says nothing, which is the mildest reading.
//!
//! Only gzip and deflate are read. The dictionary of brotli alone is larger than the whole limit
//! for this; an upstream that is not offered `br` and `zstd` does not use them.

use std::borrow::Cow;

use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

/// As much of a compressed body as is read.
pub const MOST_IN: usize = 8 * 1024;

/// As much as comes of it.
pub const MOST_OUT: usize = 64 * 1024;

/// How a body is compressed, and where its deflated data begins.
enum Format<'a> {
    Zlib(&'a [u8]),
    Raw(&'a [u8]),
}

/// A body as it can be read, given its `content-encoding`. It never fails: what is cut off or
/// broken gives what comes before the break, and what is not compressed gives itself.
pub fn error_body<'a>(body: &'a [u8], content_encoding: &str) -> Cow<'a, [u8]> {
    let compressed = body.get(..MOST_IN).unwrap_or(body);
    match format(compressed, content_encoding).map(inflate) {
        Some(readable) if !readable.is_empty() => Cow::Owned(readable),
        _ => Cow::Borrowed(body),
    }
}

fn format<'a>(body: &'a [u8], content_encoding: &str) -> Option<Format<'a>> {
    // Gzip shows itself: no text begins so.
    if body.starts_with(b"\x1f\x8b\x08") {
        return after_gzip_header(body).map(Format::Raw);
    }
    if !content_encoding.trim().eq_ignore_ascii_case("deflate") {
        return None;
    }
    // `deflate` is zlib by the standard, and raw by some servers.
    let is_zlib = match body {
        [first, second, ..] => {
            first & 0x0f == 8 && u16::from_be_bytes([*first, *second]).is_multiple_of(31)
        }
        _ => false,
    };
    Some(if is_zlib { Format::Zlib(body) } else { Format::Raw(body) })
}

/// What follows the header of gzip (RFC 1952): ten bytes, and the fields that its flags announce.
fn after_gzip_header(body: &[u8]) -> Option<&[u8]> {
    let flags = *body.get(3)?;
    let mut rest = body.get(10..)?;
    if flags & 0x04 != 0 {
        let (length, extra) = rest.split_first_chunk::<2>()?;
        rest = extra.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
    // The name of the file, and a comment.
    for flag in [0x08, 0x10] {
        if flags & flag != 0 {
            rest = rest.get(memchr::memchr(0, rest)? + 1..)?;
        }
    }
    if flags & 0x02 != 0 {
        rest = rest.get(2..)?;
    }
    Some(rest)
}

fn inflate(format: Format<'_>) -> Vec<u8> {
    let (flags, data) = match format {
        Format::Zlib(data) => (inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER, data),
        Format::Raw(data) => (0, data),
    };
    let flags = flags | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let mut out = vec![0; MOST_OUT];
    let (_, _, written) =
        decompress(&mut Box::<DecompressorOxide>::default(), data, &mut out, 0, flags);
    out.truncate(written);
    out
}
