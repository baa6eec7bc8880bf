//! The time of an event as text.

use jiff::Timestamp;

use crate::event_body::TIME_LENGTH;

/// A time in RFC 3339 with milliseconds. The date is computed once a second.
#[derive(Default)]
pub(super) struct ClockText {
    second: Option<i64>,
    text: [u8; TIME_LENGTH],
}

impl ClockText {
    pub(super) fn text(&mut self, unix_ms: i64) -> &[u8; TIME_LENGTH] {
        let (second, millisecond) = (unix_ms.div_euclid(1000), unix_ms.rem_euclid(1000));
        if self.second != Some(second) {
            let time = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
            let text = time.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string();
            if let Some(text) = text.as_bytes().first_chunk() {
                self.text = *text;
            }
            self.second = Some(second);
        }
        let [.., hundreds, tens, ones, _zone] = &mut self.text;
        for (digit, value) in
            [(hundreds, millisecond / 100), (tens, millisecond / 10 % 10), (ones, millisecond % 10)]
        {
            *digit = b'0' + value as u8;
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_the_time() {
        let mut clock = ClockText::default();
        for unix_ms in [0, 1, 999, 1000, 1_764_000_000_123, 1_764_000_000_124, 1_764_000_059_999, -1] {
            let expected = Timestamp::from_millisecond(unix_ms).expect("in range");
            let text = std::str::from_utf8(clock.text(unix_ms)).expect("ASCII");
            assert_eq!(text.parse::<Timestamp>().expect("a time"), expected);
            assert_eq!(text.len(), TIME_LENGTH);
        }
    }
}
