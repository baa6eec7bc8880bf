//! The body of an event, and the check that a delivery contains what was sent under its number.
//!
//! Only number and time differ between the events of a run. The id of an event is `RUN-NUMBER`, in plain decimal.

use anyhow::bail;
use bytes::BytesMut;

use crate::config::{Provider, RunId};
use crate::decimal::decimal;

#[cfg(test)]
mod tests;

/// The length of a time in RFC 3339 with milliseconds.
pub(crate) const TIME_LENGTH: usize = "2026-01-01T00:00:00.000Z".len();

/// The body of a run's events: constant text around number and time.
pub(crate) struct EventBody {
    head: Vec<u8>,
    after_id: Vec<u8>,
    after_time: Vec<u8>,
    after_data_id: Vec<u8>,
    after_number: &'static [u8],
    tail: Vec<u8>,
    /// The member whose value is delivered.
    data: &'static str,
    run: String,
    padding: String,
}

/// The event that a delivered body belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyIdentity {
    /// An event of this run.
    ThisRun(u64),
    /// An event of this run with a number that is too large or has leading zeros.
    OutOfRange,
    /// An event of another run, or not of a load test.
    Foreign,
    /// Unknown: the body has no event id.
    Unreadable,
}

/// How the data of a delivered body differs from the data that was sent under its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyIntegrity {
    Same,
    /// Equal as JSON, but not byte for byte.
    Reencoded,
    Altered,
}

impl EventBody {
    /// # Errors
    /// For a preset: its deliveries do not show which event they belong to.
    pub(crate) fn new(provider: Provider, run: &RunId, body_bytes: usize) -> anyhow::Result<EventBody> {
        let run = run.as_str();
        let (head, after_id, after_time, data) = match provider {
            Provider::Acme => (
                format!(r#"{{"eventId":"{run}-"#),
                r#"","eventType":"loadtest.sent","occurredAt":""#,
                format!(r#"","data":{{"id":"{run}-"#),
                "data",
            ),
            Provider::Globex => (
                format!(r#"{{"id":"{run}-"#),
                r#"","type":"loadtest.sent","timestamp":""#,
                format!(r#"","resource":{{"id":"{run}-"#),
                "resource",
            ),
            Provider::Preset(name) => {
                bail!("deliveries of {name} cannot be matched to events: it needs --no-sink")
            }
        };
        let after_data_id = format!(r#"","loadtest":{{"run":"{run}","number":"#);
        let after_number: &'static [u8] = br#","sentAt":""#;
        let before_padding = r#""},"padding":""#;
        // Numbers are counted as five digits.
        let rest = head.len() + after_id.len() + after_time.len() + after_data_id.len() + after_number.len();
        let rest = rest + before_padding.len() + r#""}}"#.len() + 3 * 5 + 2 * TIME_LENGTH;
        let padding: String = ('a'..='z').cycle().take(body_bytes.saturating_sub(rest)).collect();
        Ok(EventBody {
            head: head.into_bytes(),
            after_id: after_id.as_bytes().to_vec(),
            after_time: after_time.into_bytes(),
            after_data_id: after_data_id.into_bytes(),
            after_number,
            tail: format!(r#"{before_padding}{padding}"}}}}"#).into_bytes(),
            data,
            run: run.to_owned(),
            padding,
        })
    }

    /// Appends the body of event `number` to the buffer.
    pub(crate) fn write(&self, buffer: &mut BytesMut, number: u64, time: &[u8; TIME_LENGTH]) {
        let mut digits = [0; 20];
        let number = decimal(number, &mut digits);
        // One allocation for body and signature; in the steady state it is the memory of the last event.
        buffer.reserve(self.head.len() + self.after_id.len() + self.after_time.len() + self.tail.len() + 384);
        for part in [
            &self.head,
            number,
            &self.after_id,
            time,
            &self.after_time,
            number,
            &self.after_data_id,
            number,
            self.after_number,
            time,
            &self.tail,
        ] {
            buffer.extend_from_slice(part);
        }
    }

    /// Finds the event of a delivered body. Reads no more of the body than necessary.
    pub(crate) fn identify(&self, body: &[u8]) -> BodyIdentity {
        let Some(rest) = after(body, br#""externalEventId""#).and_then(|rest| skip(rest, b':')) else {
            return BodyIdentity::Unreadable;
        };
        let Some(id) = skip(rest, b'"') else {
            return if rest.trim_ascii_start().starts_with(b"null") {
                BodyIdentity::Foreign
            } else {
                BodyIdentity::Unreadable
            };
        };
        let Some(length) = id.iter().position(|byte| *byte == b'"') else { return BodyIdentity::Unreadable };
        let number = id[..length].strip_prefix(self.run.as_bytes()).and_then(|rest| rest.strip_prefix(b"-"));
        let Some(digits) =
            number.filter(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
        else {
            return BodyIdentity::Foreign;
        };
        let canonical = digits.len() == 1 || digits[0] != b'0';
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        match number {
            Some(number) if canonical => BodyIdentity::ThisRun(number),
            _ => BodyIdentity::OutOfRange,
        }
    }

    /// Compares the data of a delivered body with the data of `number`.
    pub(crate) fn compare(&self, body: &[u8], number: u64) -> BodyIntegrity {
        if self.is_verbatim(body, number).is_some() {
            return BodyIntegrity::Same;
        }
        let Ok(body) = serde_json::from_slice::<serde_json::Value>(body) else {
            return BodyIntegrity::Altered;
        };
        let data = &body[self.data];
        let same = data["id"].as_str().is_some_and(|id| id == format!("{}-{number}", self.run))
            && data["loadtest"]["run"] == *self.run
            && data["loadtest"]["number"].as_u64() == Some(number)
            && data["loadtest"]["sentAt"].as_str().is_some_and(|time| time.len() == TIME_LENGTH)
            && data["padding"] == *self.padding;
        if same { BodyIntegrity::Reencoded } else { BodyIntegrity::Altered }
    }

    /// `Some` when the body contains the data byte for byte, except for the time, which is not kept.
    fn is_verbatim(&self, body: &[u8], number: u64) -> Option<()> {
        let mut digits = [0; 20];
        let number = decimal(number, &mut digits);
        // Without the quote in front, which ends the time in the body that is sent.
        let rest = after(body, self.after_time.get(2..)?)?;
        let rest = rest.strip_prefix(number)?.strip_prefix(&self.after_data_id[..])?;
        let rest = rest.strip_prefix(number)?.strip_prefix(self.after_number)?;
        let rest = rest.get(TIME_LENGTH..)?;
        // The last brace closes the body that is sent; a delivered one may continue after the data.
        rest.starts_with(self.tail.get(..self.tail.len() - 1)?).then_some(())
    }
}

/// Returns the text after the first occurrence of `needle`.
fn after<'a>(text: &'a [u8], needle: &[u8]) -> Option<&'a [u8]> {
    let at = text.windows(needle.len()).position(|window| window == needle)?;
    text.get(at + needle.len()..)
}

/// Returns the text after `byte`, if `byte` is first, apart from white space.
fn skip(text: &[u8], byte: u8) -> Option<&[u8]> {
    text.trim_ascii_start().strip_prefix(&[byte])
}
