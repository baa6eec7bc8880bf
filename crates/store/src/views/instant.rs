//! Times as the API shows them: RFC 3339 in UTC with milliseconds.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

/// A moment, shown with milliseconds: `2026-01-31T09:30:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub Timestamp);

impl Instant {
    /// The moment in a UUIDv7; `None` for an id that carries no time.
    pub fn of_id(id: Uuid) -> Option<Self> {
        let milliseconds = uuid_milliseconds(id)?;
        Timestamp::from_millisecond(milliseconds).ok().map(Self)
    }
}

/// The smallest UUIDv7 that is `slack_milliseconds` older than `id`: a bound that prunes partitions. Every id for one
/// that carries no time.
pub(super) fn id_floor(id: Uuid, slack_milliseconds: i64) -> Uuid {
    match uuid_milliseconds(id) {
        Some(milliseconds) => id_at(milliseconds - slack_milliseconds),
        None => Uuid::nil(),
    }
}

/// The smallest UUIDv7 of a moment, as `uuidv7_floor` in SQL. Moments that a UUIDv7 cannot hold are clamped.
pub(super) fn id_at(milliseconds: i64) -> Uuid {
    let last = (1_i64 << 48) - 1;
    let milliseconds = milliseconds.clamp(0, last).cast_unsigned();
    Uuid::from_u128(u128::from(milliseconds) << 80)
}

fn uuid_milliseconds(id: Uuid) -> Option<i64> {
    if id.get_version_num() != 7 {
        return None;
    }
    i64::try_from(id.as_u128() >> 80).ok()
}

impl From<jiff_sqlx::Timestamp> for Instant {
    fn from(time: jiff_sqlx::Timestamp) -> Self {
        Self(time.to_jiff())
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.3}", self.0)
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl PartialSchema for Instant {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("A moment in UTC, with milliseconds."))
            .into()
    }
}

impl ToSchema for Instant {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Instant")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_always_shown_and_cut_off() {
        let shown = |text: &str| Instant(text.parse().unwrap()).to_string();
        assert_eq!(shown("2026-01-31T09:30:00Z"), "2026-01-31T09:30:00.000Z");
        assert_eq!(shown("2026-01-31T09:30:00.123999Z"), "2026-01-31T09:30:00.123Z");
        assert_eq!(shown("2026-01-31T10:30:00.5+01:00"), "2026-01-31T09:30:00.500Z");
    }

    #[test]
    fn id_carries_its_moment() {
        let id = Uuid::parse_str("019b0000-0000-7abc-8def-0123456789ab").unwrap();
        let milliseconds = 0x019b_0000_0000;
        assert_eq!(Instant::of_id(id).unwrap().0.as_millisecond(), milliseconds);
        assert_eq!(id_floor(id, 0).to_string(), "019b0000-0000-0000-0000-000000000000");
        assert_eq!(id_floor(id, 1).to_string(), "019affff-ffff-0000-0000-000000000000");
        assert_eq!(id_floor(Uuid::max(), 0), Uuid::nil());
        assert_eq!(id_at(-1), Uuid::nil());
        assert_eq!(id_at(i64::MAX).to_string(), "ffffffff-ffff-0000-0000-000000000000");
    }
}
