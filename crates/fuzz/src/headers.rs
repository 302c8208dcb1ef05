//! Headers as clients and providers send them: names of which the filter knows, values that it does
//! not.

use session_affinity::request::Headers;

/// Headers with names out of a list, and values as they come. Values of HTTP hold neither zeros nor
/// line breaks.
pub(crate) fn named(names: &[&str], values: &[(u8, &[u8])]) -> Headers {
    let headers = values.iter().map(|(name, value)| {
        let value = value.iter().copied().filter(|byte| !matches!(byte, b'\0' | b'\r' | b'\n'));
        (names[usize::from(*name) % names.len()], value.collect::<Vec<_>>())
    });
    headers.collect()
}
