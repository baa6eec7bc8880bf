//! What came and what was answered, for somebody who asked to see it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::curl::curl_command;
use super::payload_tree::PayloadTree;
use crate::console::show;
use crate::management::model::EventRecordView;

/// The longest payload that is shown as a tree, in bytes.
const MAX_TREE_BYTES: usize = 2 * 1024 * 1024;

/// Characters of a raw body that are shown.
const MAX_RAW_CHARS: usize = 64 * 1024;

/// The payload of an event.
pub(super) struct Payload {
    /// The text that is looked for.
    pub(super) find: String,
    /// What deliveries carry, if it is JSON of a bearable length.
    pub(super) tree: Option<PayloadTree>,
    /// The body of the request, as text or in hexadecimal.
    pub(super) raw: String,
    pub(super) raw_kind: &'static str,
    pub(super) bytes: usize,
    /// Whether there is more than is shown.
    pub(super) is_cut: bool,
    /// The command that repeats the request.
    pub(super) curl: Option<String>,
}

impl Payload {
    /// Renders the payload. `route` is that of the Integration, if it is still there.
    pub(super) fn new(record: &EventRecordView, route: Option<&str>, find: &str) -> Self {
        let body = record.webhook.raw_body.as_deref().and_then(|body| STANDARD.decode(body).ok());
        let body = body.unwrap_or_default();
        let normalized = record.event.normalized_payload.as_deref();
        let tree = normalized.filter(|json| json.get().len() <= MAX_TREE_BYTES);
        let (raw, raw_kind, is_cut) = raw(&body);
        let headers = record.webhook.request_headers.iter().map(|(name, value)| (&**name, &**value));
        Self {
            find: find.to_owned(),
            tree: tree.map(|json| PayloadTree::new(json, find)),
            raw,
            raw_kind,
            bytes: body.len(),
            is_cut,
            curl: route.and_then(|route| curl_command(&format!("/api/v1/webhooks/{route}"), headers, &body)),
        }
    }
}

/// Returns the beginning of a body, what it is shown as, and whether there is more.
fn raw(body: &[u8]) -> (String, &'static str, bool) {
    match std::str::from_utf8(body) {
        Ok(text) => {
            let is_cut = text.chars().nth(MAX_RAW_CHARS).is_some();
            (show::lines(text, MAX_RAW_CHARS), "text", is_cut)
        }
        Err(_) => {
            let shown = &body[..body.len().min(MAX_RAW_CHARS / 4)];
            (hex_lines(shown), "hexadecimal, since it is no text", shown.len() < body.len())
        }
    }
}

/// Returns bytes as lines of 16 in hexadecimal, each with its characters beside it.
fn hex_lines(bytes: &[u8]) -> String {
    let line = |(index, part): (usize, &[u8])| {
        let hex: Vec<String> = part.iter().map(|byte| format!("{byte:02x}")).collect();
        let printable =
            |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
        let text: String = part.iter().map(printable).collect();
        format!("{:06x}  {:<47}  {text}\n", index * 16, hex.join(" "))
    };
    bytes.chunks(16).enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_shown_in_hexadecimal() {
        let (shown, kind, is_cut) = raw(b"abc\xff\0<b>0123456789");
        insta::assert_snapshot!(shown, @r"
        000000  61 62 63 ff 00 3c 62 3e 30 31 32 33 34 35 36 37  abc..<b>01234567
        000010  38 39                                            89
        ");
        assert!(kind.starts_with("hexadecimal") && !is_cut);
        let (shown, _, is_cut) = raw(&vec![0xff; 10_000_000]);
        assert!(is_cut && shown.len() < 100_000);
        let long = "é".repeat(MAX_RAW_CHARS + 1);
        let (shown, kind, is_cut) = raw(long.as_bytes());
        assert!(kind == "text" && is_cut && shown.chars().count() == MAX_RAW_CHARS + 1);
    }
}
