//! Bytes on a socket, for requests that no HTTP client would send.

use std::time::Duration;

use grapnel_testing::WAIT_TIMEOUT;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::Answer;

/// A connection on which a test controls every byte.
pub(crate) struct Wire {
    pub(crate) reader: WireReader,
    pub(crate) writer: WireWriter,
}

pub(crate) struct WireReader {
    stream: OwnedReadHalf,
    read: Vec<u8>,
}

pub(crate) struct WireWriter(OwnedWriteHalf);

impl Wire {
    pub(crate) async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        let (reader, writer) = stream.into_split();
        Self { reader: WireReader { stream: reader, read: Vec::new() }, writer: WireWriter(writer) }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.writer.send(bytes).await
    }

    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        self.reader.answer().await
    }
}

impl WireWriter {
    /// Sends the bytes; returns `false` if the other side has closed the connection or stopped reading.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = timeout(Duration::from_secs(5), self.0.write_all(bytes.as_ref())).await;
        matches!(sent, Ok(Ok(())))
    }
}

impl WireReader {
    /// Returns the next response on the connection; `None` if it was closed without one.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(start) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break start + 4;
            }
            if !self.read_more().await {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&self.read[..end]).into_owned();
        let (status, headers) = parse_head(&head);
        let length = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
        let body_end = end + length.unwrap_or(0);
        while self.read.len() < body_end && self.read_more().await {}
        let rest = self.read.split_off(body_end.min(self.read.len()));
        let text = String::from_utf8_lossy(&self.read[end..]).into_owned();
        self.read = rest;
        Some(Answer { status, headers, text })
    }

    /// Returns the type, flags and payload of the next HTTP/2 frame; `None` if the connection is closed before.
    pub(super) async fn frame(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        const HEAD: usize = 9;
        while self.read.len() < HEAD {
            self.read_more().await.then_some(())?;
        }
        let length = u32::from_be_bytes([0, self.read[0], self.read[1], self.read[2]]) as usize;
        let (kind, flags) = (self.read[3], self.read[4]);
        while self.read.len() < HEAD + length {
            self.read_more().await.then_some(())?;
        }
        let rest = self.read.split_off(HEAD + length);
        let frame = std::mem::replace(&mut self.read, rest);
        Some((kind, flags, frame[HEAD..].to_vec()))
    }

    /// Waits for the first bytes of a response, or the end of the connection, and reads none.
    pub(crate) async fn wait_until_readable(&self) {
        let readable = timeout(WAIT_TIMEOUT, self.stream.readable()).await;
        readable.expect("in time").expect("a connection");
    }

    /// Waits until the other side closes the connection, and returns everything that it sent before.
    pub(crate) async fn until_closed(&mut self) -> String {
        while self.read_more().await {}
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// Returns `false` if the other side has closed the connection.
    async fn read_more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = timeout(WAIT_TIMEOUT, self.stream.read(&mut buffer)).await;
        let count = read.expect("an answer, or the end of the connection").unwrap_or(0);
        self.read.extend_from_slice(&buffer[..count]);
        count > 0
    }
}

fn parse_head(head: &str) -> (u16, HeaderMap) {
    let mut lines = head.trim_end().split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.parse::<HeaderName>().ok()?, value.trim().parse::<HeaderValue>().ok()?))
    });
    (status.unwrap_or_else(|| panic!("no answer: {head}")), headers.collect())
}

/// Returns the bytes of a request with a body and its length.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}
