//! The packed corpora, `fuzz/corpus/*.tar.gz`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use flate2::read::GzDecoder;

/// Bytes of a block of a tar archive.
const BLOCK: usize = 512;

/// The inputs that are kept for a target, in the order in which they are packed.
///
/// # Errors
/// If there are none, or they are no archive.
pub fn read(name: &str) -> io::Result<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut archive = Vec::new();
    let file = File::open(folder.join(format!("{name}.tar.gz")))?;
    GzDecoder::new(file).read_to_end(&mut archive)?;
    Ok(files(&archive))
}

/// The contents of the files in an archive.
fn files(mut archive: &[u8]) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    while let Some((header, rest)) = archive.split_first_chunk::<BLOCK>() {
        let Some(size) = size(header) else { break };
        let is_file = matches!(header[156], b'0' | 0);
        if is_file && let Some(content) = rest.get(..size) {
            files.push(content.to_vec());
        }
        archive = rest.get(size.next_multiple_of(BLOCK)..).unwrap_or_default();
    }
    files
}

/// The size that a header tells, in octal digits; `None` at the end of the archive.
fn size(header: &[u8; BLOCK]) -> Option<usize> {
    let digits = std::str::from_utf8(&header[124..135]).ok()?;
    usize::from_str_radix(digits, 8).ok()
}
