//! Columns as the types that the rest of the program uses.

use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

/// Reads columns as typed ids and times.
pub(crate) trait Columns {
    /// Reads an id. `typed` makes the typed id, such as `EventId::new`.
    fn id<T>(&self, column: &str, typed: fn(Uuid) -> T) -> sqlx::Result<T>;
    fn optional_id<T>(&self, column: &str, typed: fn(Uuid) -> T) -> sqlx::Result<Option<T>>;
    fn time(&self, column: &str) -> sqlx::Result<Timestamp>;
    fn optional_time(&self, column: &str) -> sqlx::Result<Option<Timestamp>>;
}

impl Columns for PgRow {
    fn id<T>(&self, column: &str, typed: fn(Uuid) -> T) -> sqlx::Result<T> {
        self.try_get(column).map(typed)
    }

    fn optional_id<T>(&self, column: &str, typed: fn(Uuid) -> T) -> sqlx::Result<Option<T>> {
        Ok(self.try_get::<Option<Uuid>, _>(column)?.map(typed))
    }

    fn time(&self, column: &str) -> sqlx::Result<Timestamp> {
        Ok(self.try_get::<jiff_sqlx::Timestamp, _>(column)?.to_jiff())
    }

    fn optional_time(&self, column: &str) -> sqlx::Result<Option<Timestamp>> {
        Ok(self.try_get::<Option<jiff_sqlx::Timestamp>, _>(column)?.map(jiff_sqlx::Timestamp::to_jiff))
    }
}
