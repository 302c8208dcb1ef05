//! Just enough of HTTP/1.1 for a provider that breaks its rules on purpose, which no library would
//! do for it.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::history::{Digest, Digester};

/// The longest head that Envoy sends here.
const LONGEST_HEAD: usize = 256 << 10;

/// One connection of Envoy, from which requests are read, or of a client, from which answers are.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    pub(crate) buffer: Vec<u8>,
}

/// The head of a request, or of an answer.
pub(crate) struct Head {
    /// The path; of an answer the status.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl Head {
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_slice())
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.trim_ascii());
        let first = String::from_utf8_lossy(lines.next()?).into_owned();
        let path = first.split(' ').nth(1)?.to_owned();
        let headers = lines.filter(|line| !line.is_empty()).filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = line.split_at(colon);
            let name = String::from_utf8_lossy(name).to_lowercase();
            Some((name, value.get(1..).unwrap_or_default().trim_ascii().to_vec()))
        });
        Some(Self { path, headers: headers.collect() })
    }
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The next head; `None` if the other side has closed.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Ok(Head::parse(&head));
            }
            if self.buffer.len() > LONGEST_HEAD || !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Reads the body of a request to its end.
    pub(crate) async fn body(&mut self, head: &Head) -> io::Result<Digest> {
        let mut digester = Digester::default();
        if head.text("transfer-encoding").contains("chunked") {
            loop {
                let line = self.line().await?;
                let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
                let size = std::str::from_utf8(size).ok();
                let size = size.and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
                let size = size.ok_or(io::ErrorKind::InvalidData)?;
                if size == 0 {
                    while !self.line().await?.is_empty() {}
                    break;
                }
                self.take(size, &mut digester).await?;
                self.line().await?;
            }
        } else if let Ok(length) = head.text("content-length").parse() {
            self.take(length, &mut digester).await?;
        }
        Ok(digester.digest())
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Returns when the other side closes, or has sent more.
    pub(crate) async fn wait(&mut self) {
        let _ = self.fill().await;
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let mut line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                line.truncate(end);
                return Ok(line);
            }
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn take(&mut self, mut length: usize, digester: &mut Digester) -> io::Result<()> {
        while length > 0 {
            if self.buffer.is_empty() && !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let taken = self.buffer.len().min(length);
            digester.add(self.buffer.get(..taken).unwrap_or_default());
            self.buffer.drain(..taken);
            length -= taken;
        }
        Ok(())
    }

    async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(64 << 10);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_its_path_and_its_headers() {
        let head = Head::parse(b"POST /v1 HTTP/1.1\r\nA: b\r\nX-Long:\xff:c \r\n\r\n").unwrap();
        assert_eq!(head.path, "/v1");
        assert_eq!(head.text("a"), "b");
        assert_eq!(head.get("x-long"), Some(&b"\xff:c"[..]));
        assert_eq!(head.get("b"), None);
    }

    #[tokio::test]
    async fn bodies_are_read_with_a_length_and_in_chunks() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut wire = Wire::new(listener.accept().await.unwrap().0);
        client.write_all(b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
        let chunked = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
        client.write_all(chunked).await.unwrap();
        drop(client);
        for _ in 0..2 {
            let head = wire.head().await.unwrap().unwrap();
            assert_eq!(wire.body(&head).await.unwrap(), Digest::of(b"hello"));
        }
        assert!(wire.head().await.unwrap().is_none());
    }
}
