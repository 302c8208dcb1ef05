//! Bytes cut into pieces.

/// The ends of pieces of these lengths, and of the rest.
pub(crate) fn ends(cuts: &[u8], length: usize) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut end = 0;
    for cut in cuts {
        end += usize::from(*cut);
        if end >= length {
            break;
        }
        ends.push(end);
    }
    ends.push(length);
    ends
}

/// The pieces of these lengths, and the rest.
pub(crate) fn pieces<'b>(cuts: &[u8], bytes: &'b [u8]) -> Vec<&'b [u8]> {
    let mut start = 0;
    let ends = ends(cuts, bytes.len()).into_iter();
    ends.map(|end| &bytes[std::mem::replace(&mut start, end)..end]).collect()
}
