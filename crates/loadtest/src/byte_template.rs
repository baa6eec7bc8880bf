//! Constant text with gaps, which are marked `@number@`, `@now@`, `@nowMs@`, `@nowIso@` and `@signature@` as in the fixtures of
//! presets.

/// A text that differs from event to event in its gaps alone.
pub(super) struct Pattern(Vec<Part>);

enum Part {
    Text(Vec<u8>),
    Gap(Gap),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gap {
    Number,
    Seconds,
    Milliseconds,
    Iso,
    Signature,
}

const MARKS: [(&str, Gap); 5] = [
    ("@number@", Gap::Number),
    ("@now@", Gap::Seconds),
    ("@nowMs@", Gap::Milliseconds),
    ("@nowIso@", Gap::Iso),
    ("@signature@", Gap::Signature),
];

/// What goes into the gaps of one event.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    number: &'a [u8],
    /// Since 1970, in decimal.
    milliseconds: [u8; 13],
    iso: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Values<'a> {
    pub(super) fn new(number: &'a [u8], unix_ms: i64, iso: &'a [u8]) -> Self {
        let mut milliseconds = [b'0'; 13];
        let mut left = unix_ms.max(0);
        for digit in milliseconds.iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
        Self { number, milliseconds, iso, signature: b"" }
    }

    /// The same with a signature.
    pub(super) fn signed<'b>(&self, signature: &'b [u8]) -> Values<'b>
    where
        'a: 'b,
    {
        Values { signature, ..*self }
    }

    fn get(&self, gap: Gap) -> &[u8] {
        match gap {
            Gap::Number => self.number,
            Gap::Seconds => &self.milliseconds[..10],
            Gap::Milliseconds => &self.milliseconds,
            Gap::Iso => self.iso,
            Gap::Signature => self.signature,
        }
    }
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let found = MARKS.iter().filter_map(|(mark, gap)| Some((rest.find(mark)?, mark.len(), *gap)));
            let Some((at, length, gap)) = found.min_by_key(|(at, ..)| *at) else { break };
            parts.push(Part::Text(rest[..at].into()));
            parts.push(Part::Gap(gap));
            rest = &rest[at + length..];
        }
        parts.push(Part::Text(rest.into()));
        Self(parts)
    }

    /// Whether there is a gap for the signature.
    pub(super) fn is_signed(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Gap(Gap::Signature)))
    }

    pub(super) fn write(&self, values: &Values<'_>, sink: &mut dyn FnMut(&[u8])) {
        for part in &self.0 {
            match part {
                Part::Text(text) => sink(text),
                Part::Gap(gap) => sink(values.get(*gap)),
            }
        }
    }

    pub(super) fn text(&self, values: &Values<'_>) -> Vec<u8> {
        let mut length = 0;
        self.write(values, &mut |text| length += text.len());
        let mut whole = Vec::with_capacity(length);
        self.write(values, &mut |text| whole.extend_from_slice(text));
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_have_the_values_of_the_event() {
        let pattern = Pattern::parse("@@now@ @nowMs@, @nowIso@: @number@@number@ <@signature@> @other@");
        let values = Values::new(b"7", 1_769_850_000_250, b"TIME");
        assert_eq!(pattern.text(&values), b"@1769850000 1769850000250, TIME: 77 <> @other@");
        assert!(pattern.text(&values.signed(b"ab")).ends_with(b"<ab> @other@"));
        assert!(pattern.is_signed() && !Pattern::parse("@now@").is_signed());
    }
}
