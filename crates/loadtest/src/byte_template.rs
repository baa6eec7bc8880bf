//! Constant text with placeholders for the number, time and signature of an event. They are written as in the fixtures of presets:
//! `@number@`, `@now@`, `@nowMs@`, `@nowIso@` and `@signature@`.

/// A text of which only the placeholders differ from event to event.
pub(crate) struct ByteTemplate(Vec<ByteTemplatePart>);

enum ByteTemplatePart {
    Literal(Vec<u8>),
    Value(Placeholder),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Number,
    Seconds,
    Milliseconds,
    Iso,
    Signature,
}

const MARKS: [(&str, Placeholder); 5] = [
    ("@number@", Placeholder::Number),
    ("@now@", Placeholder::Seconds),
    ("@nowMs@", Placeholder::Milliseconds),
    ("@nowIso@", Placeholder::Iso),
    ("@signature@", Placeholder::Signature),
];

/// The values of the placeholders for one event.
#[derive(Clone, Copy)]
pub(crate) struct EventValues<'a> {
    number: &'a [u8],
    /// Time since 1970, in decimal.
    milliseconds: [u8; 13],
    iso: &'a [u8],
    signature: &'a [u8],
}

impl<'a> EventValues<'a> {
    pub(crate) fn new(number: &'a [u8], unix_ms: i64, iso: &'a [u8]) -> Self {
        let mut milliseconds = [b'0'; 13];
        let mut left = unix_ms.max(0);
        for digit in milliseconds.iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
        Self { number, milliseconds, iso, signature: b"" }
    }

    /// Returns the same values with a signature.
    pub(crate) fn signed<'b>(&self, signature: &'b [u8]) -> EventValues<'b>
    where
        'a: 'b,
    {
        EventValues { signature, ..*self }
    }

    fn get(&self, placeholder: Placeholder) -> &[u8] {
        match placeholder {
            Placeholder::Number => self.number,
            Placeholder::Seconds => &self.milliseconds[..10],
            Placeholder::Milliseconds => &self.milliseconds,
            Placeholder::Iso => self.iso,
            Placeholder::Signature => self.signature,
        }
    }
}

impl ByteTemplate {
    pub(crate) fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let found = MARKS
                .iter()
                .filter_map(|(mark, placeholder)| Some((rest.find(mark)?, mark.len(), *placeholder)));
            let Some((at, length, placeholder)) = found.min_by_key(|(at, ..)| *at) else { break };
            parts.push(ByteTemplatePart::Literal(rest[..at].into()));
            parts.push(ByteTemplatePart::Value(placeholder));
            rest = &rest[at + length..];
        }
        parts.push(ByteTemplatePart::Literal(rest.into()));
        Self(parts)
    }

    /// Whether it contains the placeholder of the signature.
    pub(crate) fn has_signature(&self) -> bool {
        self.0.iter().any(|part| matches!(part, ByteTemplatePart::Value(Placeholder::Signature)))
    }

    /// Passes the text to `output`, piece by piece.
    pub(crate) fn write(&self, values: &EventValues<'_>, output: &mut dyn FnMut(&[u8])) {
        for part in &self.0 {
            match part {
                ByteTemplatePart::Literal(text) => output(text),
                ByteTemplatePart::Value(placeholder) => output(values.get(*placeholder)),
            }
        }
    }

    /// Returns the text.
    pub(crate) fn to_bytes(&self, values: &EventValues<'_>) -> Vec<u8> {
        let mut length = 0;
        self.write(values, &mut |text| length += text.len());
        let mut bytes = Vec::with_capacity(length);
        self.write(values, &mut |text| bytes.extend_from_slice(text));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_get_the_values_of_the_event() {
        let template =
            ByteTemplate::parse("@@now@ @nowMs@, @nowIso@: @number@@number@ <@signature@> @other@");
        let values = EventValues::new(b"7", 1_769_850_000_250, b"TIME");
        assert_eq!(template.to_bytes(&values), b"@1769850000 1769850000250, TIME: 77 <> @other@");
        assert!(template.to_bytes(&values.signed(b"ab")).ends_with(b"<ab> @other@"));
        assert!(template.has_signature() && !ByteTemplate::parse("@now@").has_signature());
    }
}
