//! Reads the body of a response as text that can be stored.
//!
//! Invariants: at most [`KEPT_BYTES`] are kept and little more is read, by the deadline of the attempt; the text has no
//! NUL, which a PostgreSQL text column refuses. A body that breaks off or is late is kept as far as it arrived: the status
//! has already decided the outcome.

use http_body::Body;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::exchange::Connection;

/// How much of a body is kept, before and after its conversion to text.
const KEPT_BYTES: usize = 16 * 1024;
/// How much is read, so that the connection of a receiver with longer responses can be reused. A connection whose response
/// is not read to its end is closed.
const READ_BYTES: usize = 64 * 1024;

pub(super) async fn read(connection: &mut Connection, mut body: Incoming, deadline: Instant) -> String {
    // A body that is announced as longer than this gets its connection closed in any case.
    let too_long = body.size_hint().lower() > READ_BYTES as u64;
    let limit = if too_long { KEPT_BYTES } else { READ_BYTES };
    let mut kept = Vec::new();
    let mut read = 0_usize;
    let reading = async {
        while read <= limit
            && let Some(part) = connection.next_part(&mut body).await
        {
            let room = KEPT_BYTES - kept.len();
            kept.extend_from_slice(&part[..part.len().min(room)]);
            read = read.saturating_add(part.len());
        }
    };
    // A missed deadline ends the reading; the bytes received so far are kept.
    let _in_time = timeout_at(deadline, reading).await;
    text_of(&kept, read > kept.len())
}

/// Replaces invalid UTF-8 and NUL by U+FFFD. With `cut`, more bytes followed, so a broken character at the end is removed.
fn text_of(bytes: &[u8], cut: bool) -> String {
    let mut text = String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}");
    if cut && text.ends_with('\u{fffd}') {
        text.pop();
    }
    // A replacement is up to three times as long as the bytes that it replaces.
    text.truncate(text.floor_char_boundary(KEPT_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_kept_unchanged() {
        assert_eq!(text_of("größe 1\n".as_bytes(), false), "größe 1\n");
        assert_eq!(text_of(b"", false), "");
    }

    #[test]
    fn text_that_postgresql_refuses_is_replaced() {
        assert_eq!(text_of(b"a\0b\xffc", false), "a\u{fffd}b\u{fffd}c");
    }

    #[test]
    fn a_character_that_was_cut_is_left_out() {
        assert_eq!(text_of(b"gr\xc3", true), "gr");
        assert_eq!(text_of(b"gr\xc3", false), "gr\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_bytes_become_bounded_storable_text(bytes in prop::collection::vec(any::<u8>(), 0..=KEPT_BYTES), cut: bool) {
            let text = text_of(&bytes, cut);
            prop_assert!(text.len() <= KEPT_BYTES);
            prop_assert!(!text.contains('\0'));
        }
    }
}
