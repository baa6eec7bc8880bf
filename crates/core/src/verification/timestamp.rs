//! The timestamp of a request: taken as received for the message, and parsed strictly for its age.

use std::borrow::Cow;

use grapnel_crds::{TimeUnit, TimestampSource};
use jiff::Timestamp;

use super::candidates::{SignatureFormat, SignatureValues};
use super::error::{SchemeError, UNKNOWN_SOURCE, VerifyError, invalid};
use crate::request::{IncomingRequest, Source};

/// The tolerance that most providers recommend.
const DEFAULT_TOLERANCE_SECONDS: i32 = 300;

/// Where the timestamp is, and how old it may be.
#[derive(Debug)]
pub(super) struct TimestampRule {
    from: TimestampLocation,
    unit: TimeUnit,
    /// 0: the age is not checked.
    tolerance_seconds: i64,
}

#[derive(Debug)]
enum TimestampLocation {
    Source(Source),
    /// The item of the signature's list with this key.
    Field(Vec<u8>),
    /// The item of the signature's list at this index.
    Item(usize),
}

impl TimestampRule {
    pub(super) fn new(source: &TimestampSource, tolerance: Option<i32>) -> Result<Self, SchemeError> {
        let text = source.from.as_deref().ok_or_else(|| invalid("timestamp", "must have from"))?;
        let from = if let Some(field) = text.strip_prefix("field:") {
            TimestampLocation::Field(field.as_bytes().to_vec())
        } else if let Some(index) = text.strip_prefix("item:") {
            TimestampLocation::Item(
                index.parse().map_err(|_| invalid("timestamp.from", "invalid index of a list item"))?,
            )
        } else {
            TimestampLocation::Source(
                Source::parse(text).ok_or_else(|| invalid("timestamp.from", UNKNOWN_SOURCE))?,
            )
        };
        let tolerance = tolerance.or(source.tolerance_seconds).unwrap_or(DEFAULT_TOLERANCE_SECONDS);
        Ok(Self {
            from,
            unit: source.unit.unwrap_or(TimeUnit::S),
            tolerance_seconds: tolerance.max(0).into(),
        })
    }

    pub(super) fn is_in_list(&self) -> bool {
        matches!(self.from, TimestampLocation::Field(_) | TimestampLocation::Item(_))
    }

    pub(super) fn is_enforced(&self) -> bool {
        self.tolerance_seconds > 0
    }

    pub(super) fn source(&self) -> Option<&Source> {
        match &self.from {
            TimestampLocation::Source(source) => Some(source),
            TimestampLocation::Field(_) | TimestampLocation::Item(_) => None,
        }
    }

    /// Describes where the timestamp is, for an error message.
    pub(super) fn describe(&self) -> String {
        match &self.from {
            TimestampLocation::Source(source) => source.describe(),
            TimestampLocation::Field(field) => {
                format!("the field {} of the signature", String::from_utf8_lossy(field))
            }
            TimestampLocation::Item(index) => format!("item {index} of the signature"),
        }
    }

    /// Returns the timestamp as received.
    pub(super) fn find<'a>(
        &self,
        request: &IncomingRequest<'a>,
        format: &SignatureFormat,
        signatures: &SignatureValues<'a>,
    ) -> Option<Cow<'a, [u8]>> {
        // A list may have been decoded for this request alone; its few bytes are copied.
        let copy = |text: &[u8]| Cow::Owned(text.to_vec());
        match &self.from {
            TimestampLocation::Source(source) => source.value(request),
            TimestampLocation::Field(field) => format.field(signatures, field).map(copy),
            TimestampLocation::Item(index) => format.item(signatures, *index).map(copy),
        }
    }

    /// Checks that the timestamp can be parsed, and that it is within the tolerance.
    pub(super) fn check(&self, text: &[u8], now: Timestamp) -> Result<(), VerifyError> {
        let sent = self.milliseconds(text).ok_or(VerifyError::TimestampMalformed)?;
        let off = now.as_millisecond().saturating_sub(sent);
        if self.tolerance_seconds > 0 && off.saturating_abs() / 1000 > self.tolerance_seconds {
            return Err(VerifyError::TimestampOff {
                off_seconds: off / 1000,
                tolerance_seconds: self.tolerance_seconds,
            });
        }
        Ok(())
    }

    /// Parses the timestamp to milliseconds since 1970. A number has digits only: no sign, no point, no white space.
    fn milliseconds(&self, text: &[u8]) -> Option<i64> {
        let text = std::str::from_utf8(text).ok()?;
        let digits =
            || text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i64>().ok()).flatten();
        match self.unit {
            TimeUnit::S => digits()?.checked_mul(1000),
            TimeUnit::Ms => digits(),
            TimeUnit::Iso8601 => text.parse::<Timestamp>().ok().map(|time| time.as_millisecond()),
        }
    }
}
