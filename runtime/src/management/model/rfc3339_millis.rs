//! Times as the API shows them: RFC 3339 in UTC with milliseconds.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

/// A time, shown with milliseconds: `2026-01-31T09:30:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rfc3339Millis(pub(crate) Timestamp);

impl From<Timestamp> for Rfc3339Millis {
    fn from(time: Timestamp) -> Self {
        Self(time)
    }
}

impl fmt::Display for Rfc3339Millis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.3}", self.0)
    }
}

impl Serialize for Rfc3339Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl PartialSchema for Rfc3339Millis {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("A time in UTC, with milliseconds."))
            .into()
    }
}

impl ToSchema for Rfc3339Millis {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Instant")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_always_shown_and_cut_off() {
        let shown = |text: &str| Rfc3339Millis(text.parse().unwrap()).to_string();
        assert_eq!(shown("2026-01-31T09:30:00Z"), "2026-01-31T09:30:00.000Z");
        assert_eq!(shown("2026-01-31T09:30:00.123999Z"), "2026-01-31T09:30:00.123Z");
        assert_eq!(shown("2026-01-31T10:30:00.5+01:00"), "2026-01-31T09:30:00.500Z");
    }
}
