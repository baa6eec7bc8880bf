//! The time of a request: taken as it came for the message, and read strictly for its age.

use std::borrow::Cow;

use grapnel_crds::{TimeUnit, TimestampSource};
use jiff::Timestamp;

use super::candidates::{Lines, Signatures};
use super::{Incoming, Place, Refused, SchemeError, wrong};

/// What most providers recommend.
const DEFAULT_TOLERANCE_SECONDS: i32 = 300;

/// Where the time is and how old it may be.
#[derive(Debug)]
pub(super) struct SignedTime {
    from: From,
    unit: TimeUnit,
    /// 0 does not check the age.
    tolerance_seconds: i64,
}

#[derive(Debug)]
enum From {
    Place(Place),
    /// By its key in the signature's list.
    Field(Vec<u8>),
    /// By its place in the signature's list.
    Item(usize),
}

impl SignedTime {
    pub(super) fn new(source: &TimestampSource, tolerance: Option<i32>) -> Result<Self, SchemeError> {
        let text = source.from.as_deref().ok_or_else(|| wrong("timestamp", "must have from"))?;
        let from = if let Some(field) = text.strip_prefix("field:") {
            From::Field(field.as_bytes().to_vec())
        } else if let Some(index) = text.strip_prefix("item:") {
            From::Item(index.parse().map_err(|_| wrong("timestamp.from", "names no item"))?)
        } else {
            From::Place(Place::parse(text).ok_or_else(|| wrong("timestamp.from", "names no place"))?)
        };
        let tolerance = tolerance.or(source.tolerance_seconds).unwrap_or(DEFAULT_TOLERANCE_SECONDS);
        Ok(Self {
            from,
            unit: source.unit.unwrap_or(TimeUnit::S),
            tolerance_seconds: tolerance.max(0).into(),
        })
    }

    pub(super) fn is_in_list(&self) -> bool {
        matches!(self.from, From::Field(_) | From::Item(_))
    }

    pub(super) fn is_enforced(&self) -> bool {
        self.tolerance_seconds > 0
    }

    pub(super) fn place(&self) -> Option<&Place> {
        match &self.from {
            From::Place(place) => Some(place),
            From::Field(_) | From::Item(_) => None,
        }
    }

    pub(super) fn describe(&self) -> String {
        match &self.from {
            From::Place(place) => place.describe(),
            From::Field(field) => format!("the field {} of the signature", String::from_utf8_lossy(field)),
            From::Item(index) => format!("item {index} of the signature"),
        }
    }

    /// The time as it came.
    pub(super) fn find<'a>(
        &self,
        incoming: &Incoming<'a>,
        signatures: &Signatures,
        lines: &Lines<'a>,
    ) -> Option<Cow<'a, [u8]>> {
        // A list may have been decoded for this request alone; its few bytes are copied.
        let copy = |text: &[u8]| Cow::Owned(text.to_vec());
        match &self.from {
            From::Place(place) => place.find(incoming),
            From::Field(field) => signatures.field(lines, field).map(copy),
            From::Item(index) => signatures.item(lines, *index).map(copy),
        }
    }

    /// Whether the time can be read, and is near enough.
    pub(super) fn check(&self, text: &[u8], now: Timestamp) -> Result<(), Refused> {
        let sent = self.milliseconds(text).ok_or(Refused::TimestampMalformed)?;
        let off = now.as_millisecond().saturating_sub(sent);
        if self.tolerance_seconds > 0 && off.saturating_abs() / 1000 > self.tolerance_seconds {
            return Err(Refused::TimestampOff {
                off_seconds: off / 1000,
                tolerance_seconds: self.tolerance_seconds,
            });
        }
        Ok(())
    }

    /// Milliseconds since 1970. Of numbers, digits alone: no sign, no point, no white space.
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
