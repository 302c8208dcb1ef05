//! SHA-256, as image layouts and `sha256sum` write it.

use sha2::{Digest, Sha256};

/// The digest in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line of a file that `sha256sum --check` reads.
pub(crate) fn line(bytes: &[u8], name: &str) -> String {
    format!("{}  {name}\n", sha256(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_sha256sum_writes() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(line(b"", "nothing"), format!("{empty}  nothing\n"));
    }
}
