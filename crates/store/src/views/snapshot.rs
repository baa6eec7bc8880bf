//! A read-only transaction in which every statement sees the same state, so that a page, its total and the parts of an
//! event agree with each other.

use std::time::Duration;

use sqlx::{PgConnection, Postgres, Transaction};

use crate::database::Database;
use crate::error::Result;

// One round trip. The timeout is the deadline of `Database`. Plans are made for the values at hand: absent filters fold
// away, id bounds prune partitions, and a filter without an index may read a table from end to end. No compilation of
// plans and no parallel workers: reading must not take the processors from the ingress.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL statement_timeout = '10s';
    SET LOCAL plan_cache_mode = force_custom_plan;
    SET LOCAL enable_seqscan = on;
    SET LOCAL jit = off;
    SET LOCAL max_parallel_workers_per_gather = 0";

/// A transaction that sees one state of the database.
pub(crate) struct Snapshot(Transaction<'static, Postgres>);

impl Snapshot {
    pub(crate) async fn take(db: &Database) -> Result<Self> {
        Ok(Self(db.begin(BEGIN).await?))
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.0
    }

    /// Bounds the statements that follow, and has them follow an index: a slice of a walk is a small part of a table, which the statistics of a
    /// young partition do not say.
    pub(crate) async fn walk_for(&mut self, time: Duration) -> Result<()> {
        sqlx::query(
            "/* views::snapshot::walk_for */
            SELECT set_config('statement_timeout', $1, true), set_config('enable_seqscan', 'off', true)",
        )
        .bind(format!("{}ms", time.as_millis().max(1)))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Returns the connection to the pool at once; a dropped snapshot returns it a little later.
    pub(crate) async fn release(self) -> Result<()> {
        Ok(self.0.rollback().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::DEADLINE;

    #[test]
    fn the_server_has_the_same_deadline() {
        assert!(BEGIN.contains(&format!("statement_timeout = '{}s'", DEADLINE.as_secs())));
    }
}
