use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

#[track_caller]
fn assert_packed(headers: &[(&str, &str)], bytes: usize) {
    let packed = pack(headers.iter().copied());
    assert_eq!(packed.len(), bytes, "{packed:x?}");
    let expected = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(unpack(&packed), Some(expected));
}

#[test]
fn known_words_take_one_or_two_bytes_and_two_digits_one() {
    let digest = "5d41402abc4b2a76b9719d911017c592".repeat(2);
    assert_packed(&[("content-type", "application/json")], 2);
    assert_packed(&[("host", "x-zm-signature")], 3);
    assert_packed(&[("x-acme-signature", &digest)], 1 + 2 + 32);
    assert_packed(&[("x-hub-signature-256", &format!("sha256={digest}"))], 1 + 1 + 7 + 2 + 32);
    // An odd digit is left to the text after it, and few digits are text.
    assert_packed(&[("a", "123456789abcdef-")], 2 + 1 + 7 + 1 + 2);
    assert_packed(&[("a", "1234567")], 2 + 1 + 7);
    assert_packed(&[("a", "ABCDEF12ABCDEF12")], 2 + 1 + 16);
    assert_packed(&[("", "")], 2);
    assert_packed(&[("a", &"é".repeat(5_000))], 2 + 3 + 10_000);
    assert_packed(&[], 0);
}

#[test]
fn what_was_not_packed_is_refused() {
    let packed = pack([("x-acme-signature", "5d41402abc4b2a76b9719d911017c592"), ("a", "é")]);
    for length in 1..packed.len() {
        let is_whole_header = length == packed.len() - 5;
        assert_eq!(unpack(&packed[..length]).is_some(), is_whole_header, "{length}");
    }
    // The last word, and none.
    assert!(unpack(&[96, (WORDS.len() - 1 - SHORT_WORDS) as u8, 0]).is_some());
    assert!(unpack(&[96, (WORDS.len() - SHORT_WORDS) as u8, 0]).is_none());
    // A length that does not end, and text that is not UTF-8.
    assert!(unpack(&[0, 0x9f, 0xff, 0xff, 0xff, 0xff, 0xff]).is_none());
    assert!(unpack(&[0, 0x81, 0xff]).is_none());
}

/// Stored bytes have the numbers of these words.
#[test]
fn words_are_distinct_and_only_added() {
    assert_eq!(NUMBERS.len(), WORDS.len());
    let digest = Sha256::digest(WORDS[..320].join("\n"));
    assert_eq!(digest[..8], [0x3d, 0xa7, 0x58, 0x1f, 0xcd, 0xeb, 0xec, 0x73]);
}

proptest! {
    #[test]
    fn any_headers_are_read_as_they_were(
        headers in prop::collection::vec(("[a-z0-9-]{0,12}|host|x-zm-signature", "\\PC*|[0-9a-f]{0,80}|([0-9a-f]{6,12}[-=é]?){0,9}"), 0..6)
    ) {
        let packed = pack(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        prop_assert_eq!(unpack(&packed), Some(headers));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = unpack(&bytes);
    }
}
