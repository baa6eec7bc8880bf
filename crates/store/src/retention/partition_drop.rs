//! The partitions that there are, and the way out for one.

use jiff::civil::Date;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::days::{parse_day, text};
use super::session::Session;
use crate::error::Result;

/// How far a partition is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartitionState {
    Attached,
    /// A detach was interrupted: new statements no longer see it.
    Detaching,
    Detached,
}

/// A partition, or a table that was one.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) table: String,
    pub(super) day: Date,
    pub(super) state: PartitionState,
}

impl Partition {
    pub(super) fn name(&self) -> String {
        format!("{}_{}", self.table, text(self.day))
    }

    /// Whether it is a part of its table. One that is not was taken out by an operator, or its day is expired.
    pub(super) fn is_in_use(&self) -> bool {
        self.state != PartitionState::Detached
    }

    pub(super) fn has_events(&self) -> bool {
        self.table == "events" && self.state == PartitionState::Attached
    }
}

/// Returns all partitions, by table, those whose detach was interrupted first and then by day.
pub(super) async fn list(session: &mut Session) -> Result<Vec<Partition>> {
    let rows = sqlx::query(
        "/* retention::partition_drop::list */
        SELECT parent, right(child.relname, 8) AS day, child.relispartition AS is_attached,
            COALESCE(inhdetachpending, false) AS is_detaching
        FROM unnest(partitioned_tables()) AS parent
        JOIN pg_class child ON child.relkind = 'r' AND child.relname ~ ('^' || parent || '_\\d{8}$')
            AND child.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass(parent))
        LEFT JOIN pg_inherits ON inhrelid = child.oid
        ORDER BY parent, is_detaching DESC, day",
    )
    .fetch_all(session.connection())
    .await?;
    let partition = |row: &PgRow| {
        let state = match (row.try_get("is_attached")?, row.try_get("is_detaching")?) {
            (_, true) => PartitionState::Detaching,
            (true, false) => PartitionState::Attached,
            (false, false) => PartitionState::Detached,
        };
        Ok(Partition { table: row.try_get("parent")?, day: parse_day(row.try_get("day")?)?, state })
    };
    rows.iter().map(partition).collect()
}

/// Takes a partition out of its table and drops it, if it is to be dropped. Returns whether it was.
///
/// Detaching concurrently waits, within the `lock_timeout`, for those who use the table, and nobody waits for it. When it is
/// interrupted by that, the next round finalizes it.
pub(super) async fn detach_and_drop(
    session: &mut Session,
    partition: &Partition,
    is_dropped: bool,
) -> Result<bool> {
    let (table, name) = (&partition.table, partition.name());
    match partition.state {
        PartitionState::Attached => {
            session.execute(&format!("ALTER TABLE {table} DETACH PARTITION {name} CONCURRENTLY")).await?;
        }
        PartitionState::Detaching => {
            session.execute(&format!("ALTER TABLE {table} DETACH PARTITION {name} FINALIZE")).await?;
        }
        PartitionState::Detached => {}
    }
    if is_dropped {
        session.execute(&format!("DROP TABLE {name}")).await?;
    }
    Ok(is_dropped)
}
