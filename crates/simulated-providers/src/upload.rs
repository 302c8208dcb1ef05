//! Uploaded files: the little that is read of a multipart form. Any other body is one file.

/// The longest content that is kept to be downloaded again.
const MAX_KEPT_BYTES: usize = 1 << 20;

/// What an upload contains.
#[derive(Debug, PartialEq)]
pub(super) struct Upload {
    pub(super) filename: String,
    pub(super) purpose: String,
    pub(super) length: usize,
    /// Empty if it is too long to be kept.
    pub(super) content: String,
}

/// Reads the body of an upload, whatever it is.
pub(super) fn read(body: &[u8]) -> Upload {
    let purpose = field(body, "name=\"purpose\"").unwrap_or_else(|| b"user_data".to_vec());
    let content = field(body, "filename=\"").unwrap_or_else(|| body.to_vec());
    let filename = after(body, b"filename=\"").and_then(|rest| before(rest, b"\""));
    let kept = if content.len() > MAX_KEPT_BYTES { &[] } else { content.as_slice() };
    Upload {
        filename: filename.map_or_else(|| "upload".to_owned(), text),
        purpose: text(&purpose),
        length: content.len(),
        content: text(kept),
    }
}

/// The content of the part whose headers contain this.
fn field(body: &[u8], mark: &str) -> Option<Vec<u8>> {
    let boundary = body.starts_with(b"--").then(|| before(body, b"\r\n")).flatten()?;
    let content = after(after(body, mark.as_bytes())?, b"\r\n\r\n")?;
    let end = [b"\r\n", boundary].concat();
    before(content, &end).map(<[u8]>::to_vec)
}

fn after<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    bytes.get(find(bytes, mark)? + mark.len()..)
}

fn before<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    bytes.get(..find(bytes, mark)?)
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_a_file_and_a_purpose() {
        let form = "--x\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
                    --x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\
                    Content-Type: text/plain\r\n\r\nline\r\n--x--\r\n";
        let expected = Upload {
            filename: "a.jsonl".into(),
            purpose: "batch".into(),
            length: 4,
            content: "line".into(),
        };
        assert_eq!(read(form.as_bytes()), expected);
    }

    #[test]
    fn any_other_body_is_a_file() {
        let upload = read(b"\x00\xff");
        assert_eq!((upload.filename.as_str(), upload.length), ("upload", 2));
        assert_eq!(read(&vec![b'x'; MAX_KEPT_BYTES + 1]).content, "");
    }
}
