//! Columns: those of a row as the types that the rest of the program uses, and those of a batch as arrays to bind.

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

/// Rows to be written by one statement, which takes each column as an array.
pub(crate) struct Batch<'a, T>(pub(crate) &'a [T]);

impl<'a, T> Batch<'a, T> {
    /// Returns one column.
    pub(crate) fn column<V>(&self, pick: impl Fn(&'a T) -> V) -> Vec<V> {
        self.0.iter().map(pick).collect()
    }
}
