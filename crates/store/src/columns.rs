//! Columns as typed values.

use grapnel_core::ids::{EventId, IntegrationId, LeaseId, ReplayId};
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

/// Reads columns as the types that the rest of the program uses.
pub(crate) trait Columns {
    fn time(&self, column: &str) -> sqlx::Result<Timestamp>;
    fn optional_time(&self, column: &str) -> sqlx::Result<Option<Timestamp>>;
    fn integration_id(&self, column: &str) -> sqlx::Result<IntegrationId>;
    fn event_id(&self, column: &str) -> sqlx::Result<EventId>;
    fn lease_id(&self, column: &str) -> sqlx::Result<LeaseId>;
    fn optional_replay_id(&self, column: &str) -> sqlx::Result<Option<ReplayId>>;
}

impl Columns for PgRow {
    fn time(&self, column: &str) -> sqlx::Result<Timestamp> {
        Ok(self.try_get::<jiff_sqlx::Timestamp, _>(column)?.to_jiff())
    }

    fn optional_time(&self, column: &str) -> sqlx::Result<Option<Timestamp>> {
        Ok(self.try_get::<Option<jiff_sqlx::Timestamp>, _>(column)?.map(jiff_sqlx::Timestamp::to_jiff))
    }

    fn integration_id(&self, column: &str) -> sqlx::Result<IntegrationId> {
        self.try_get(column).map(IntegrationId::new)
    }

    fn event_id(&self, column: &str) -> sqlx::Result<EventId> {
        self.try_get(column).map(EventId::new)
    }

    fn lease_id(&self, column: &str) -> sqlx::Result<LeaseId> {
        self.try_get(column).map(LeaseId::new)
    }

    fn optional_replay_id(&self, column: &str) -> sqlx::Result<Option<ReplayId>> {
        Ok(self.try_get::<Option<Uuid>, _>(column)?.map(ReplayId::new))
    }
}
