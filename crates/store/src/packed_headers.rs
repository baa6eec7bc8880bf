//! The headers of a request in a quarter to a half of the bytes that they take as JSON: as much of a row as an event of 1 KB has beside its body.
//!
//! Each header is its name and its value. A text that is one of the known words is the number of the word: one byte for the first 96 words, two for
//! the others. Any other text is a sequence of runs, of text as it is or of lower-case hexadecimal digits, two of which take a byte:
//!
//! | byte | meaning |
//! |---|---|
//! | `0xxxxxxx`, less than 96 | the word with this number |
//! | `011xxxxx`, then a byte | the word with the number 96 + these 13 bits |
//! | `1hmlllll` | a run of so many bytes, which follow; of digits if `h`, and with another run after it if `m`. Of 31, what is more follows as LEB128 |
//!
//! What is packed is read as long as the event is kept, so words are added at the end and never changed. Words that are added make a new version of what
//! workers report that they read (`worker_heartbeats`). SQL does not read it: see [`FormerKey`](crate::events::FormerKey).

use std::collections::HashMap;
use std::sync::LazyLock;

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::error::{Error, Result};

/// The words, one in a line.
static WORDS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| include_str!("packed_headers/words.txt").lines().collect());

static NUMBERS: LazyLock<HashMap<&'static str, usize>> =
    LazyLock::new(|| WORDS.iter().enumerate().map(|(number, word)| (*word, number)).collect());

/// The words of one byte.
const SHORT_WORDS: usize = 96;

const RUN: u8 = 0b1000_0000;
const OF_DIGITS: u8 = 0b0100_0000;
const HAS_MORE: u8 = 0b0010_0000;
/// The longest run whose length is in its first byte is shorter than this.
const LONG: usize = 0b0001_1111;

/// Fewer digits are not worth a run of their own.
const FEWEST_DIGITS: usize = 8;

/// Packs headers, in their order.
pub fn pack<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut packed = Vec::with_capacity(128);
    for (name, value) in headers {
        write_text(&mut packed, name);
        write_text(&mut packed, value);
    }
    packed
}

/// Returns packed headers as JSON text: `[[name, value], …]`; `None` as [`unpack`].
pub(crate) fn unpack_as_json(packed: &[u8]) -> Option<String> {
    serde_json::to_string(&unpack(packed)?).ok()
}

/// Returns the headers that were packed; `None` if these bytes were not, or by a version that knows more words.
fn unpack(packed: &[u8]) -> Option<Vec<(String, String)>> {
    let mut reader = Reader(packed);
    let mut headers = Vec::new();
    while !reader.0.is_empty() {
        headers.push((reader.text()?, reader.text()?));
    }
    Some(headers)
}

/// Reads the columns `headers` and `packed_headers` of an event's row as JSON text, `[[name, value], …]`; `None` where both are NULL.
pub(crate) fn json_text(row: &PgRow, id: Uuid) -> Result<Option<String>> {
    let Some(packed) = row.try_get::<Option<&[u8]>, _>("packed_headers")? else {
        return Ok(row.try_get("headers")?);
    };
    unpack_as_json(packed).map(Some).ok_or(Error::Corrupt { table: "events", column: "packed_headers", id })
}

fn write_text(packed: &mut Vec<u8>, text: &str) {
    match NUMBERS.get(text) {
        Some(&number) if number < SHORT_WORDS => packed.push(number as u8),
        Some(&number) => {
            let [high, low] = ((number - SHORT_WORDS) as u16).to_be_bytes();
            packed.extend([SHORT_WORDS as u8 | high, low]);
        }
        None => write_runs(packed, text.as_bytes()),
    }
}

fn write_runs(packed: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let (before, digits) = first_digits(rest);
        if !before.is_empty() || digits.is_empty() {
            let is_last = before.len() == rest.len();
            write_run_start(packed, 0, before.len(), is_last);
            packed.extend_from_slice(before);
        }
        rest = &rest[before.len() + digits.len()..];
        if !digits.is_empty() {
            write_run_start(packed, OF_DIGITS, digits.len() / 2, rest.is_empty());
            packed.extend(hex::decode(digits).expect("an even number of digits"));
        }
        if rest.is_empty() {
            return;
        }
    }
}

/// Returns the first digits that are worth a run, an even number of them, and what is before them.
fn first_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let mut start = 0;
    while start < text.len() {
        let count = text[start..].iter().take_while(|byte| is_digit(**byte)).count();
        if count >= FEWEST_DIGITS {
            return (&text[..start], &text[start..start + count / 2 * 2]);
        }
        start += count + 1;
    }
    (text, &[])
}

fn write_run_start(packed: &mut Vec<u8>, kind: u8, length: usize, is_last: bool) {
    let more = if is_last { 0 } else { HAS_MORE };
    packed.push(RUN | kind | more | length.min(LONG) as u8);
    let Some(mut left) = length.checked_sub(LONG) else { return };
    while left > 0x7f {
        packed.push(left as u8 | 0x80);
        left >>= 7;
    }
    packed.push(left as u8);
}

fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn text(&mut self) -> Option<String> {
        let first = self.byte()?;
        if first & RUN == 0 {
            return self.word(first).map(str::to_owned);
        }
        let (mut text, mut start) = (Vec::new(), first);
        loop {
            self.run(start, &mut text)?;
            if start & HAS_MORE == 0 {
                return String::from_utf8(text).ok();
            }
            start = self.byte()?;
        }
    }

    fn word(&mut self, first: u8) -> Option<&'static str> {
        let number = match usize::from(first) {
            short if short < SHORT_WORDS => short,
            long => SHORT_WORDS + ((long - SHORT_WORDS) << 8 | usize::from(self.byte()?)),
        };
        WORDS.get(number).copied()
    }

    fn run(&mut self, start: u8, text: &mut Vec<u8>) -> Option<()> {
        let length = match usize::from(start) & LONG {
            LONG => LONG.checked_add(self.number()?)?,
            short => short,
        };
        let bytes = self.bytes(length)?;
        if start & OF_DIGITS == 0 {
            text.extend_from_slice(bytes);
        } else {
            text.extend_from_slice(hex::encode(bytes).as_bytes());
        }
        Some(())
    }

    /// Reads LEB128, of four bytes at most.
    fn number(&mut self) -> Option<usize> {
        let mut number = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests;
