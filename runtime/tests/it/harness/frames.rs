//! HTTP/2, frame by frame, for clients that no library would be.

use super::wire::Wire;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;

const ACKNOWLEDGED: u8 = 1;
/// END_STREAM and END_HEADERS.
const WHOLE_REQUEST: u8 = 5;

/// Returns the beginning of a connection; each stream gets a window of this size.
pub(crate) fn preface(window: u32) -> Vec<u8> {
    let mut settings = vec![0, 4]; // SETTINGS_INITIAL_WINDOW_SIZE
    settings.extend(window.to_be_bytes());
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &settings)[..]].concat()
}

/// Returns a GET on a stream, which has an odd number.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    // `:method GET`, `:scheme http`, and a literal `:path` and `:authority`.
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).expect("a short path")];
    block.extend(path.as_bytes());
    block.extend([0x01, 4]);
    block.extend(b"test");
    frame(HEADERS, WHOLE_REQUEST, stream, &block)
}

pub(crate) fn ping() -> Vec<u8> {
    frame(PING, 0, 0, &[7; 8])
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

impl Wire {
    /// Reads frames until one is of this kind, and answers pings and settings meanwhile; `false` if the connection is closed
    /// before.
    pub(crate) async fn read_until_frame(&mut self, kind: u8) -> bool {
        while let Some((found, flags, payload)) = self.reader.frame().await {
            if found == kind {
                return true;
            }
            if matches!(found, PING | SETTINGS) && flags & ACKNOWLEDGED == 0 {
                let payload = if found == PING { payload } else { Vec::new() };
                self.send(frame(found, ACKNOWLEDGED, 0, &payload)).await;
            }
        }
        false
    }
}
