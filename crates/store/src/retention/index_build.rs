//! Indexes that the maintenance builds where a migration could not: concurrently, in the background, since new processes wait for
//! the migrations and everybody for a table whose index is built otherwise.

use super::session::Session;
use crate::deliveries::never;
use crate::error::Result;

/// Returns whether a concurrent command would wait: it waits for every transaction that began before it, and would be given up after
/// all of its work.
pub(super) async fn is_held_up(session: &mut Session) -> Result<bool> {
    let is_held_up = sqlx::query_scalar(
        "/* retention::index_build::is_held_up */
        SELECT EXISTS (SELECT FROM pg_stat_activity
            WHERE datname = current_database() AND xact_start < now() - interval '1 minute')",
    )
    .fetch_one(session.connection())
    .await?;
    Ok(is_held_up)
}

/// Builds an index of a table, in place of one that was not finished. It reads the table twice, and takes no lock that anybody but DDL
/// waits for.
pub(super) async fn build(session: &mut Session, name: &str, definition: &str) -> Result<()> {
    session.execute("SET statement_timeout = 0; SET lock_timeout = '5min'").await?;
    let built = async {
        session.execute(&format!("DROP INDEX CONCURRENTLY IF EXISTS {name}")).await?;
        session.execute(&format!("CREATE INDEX CONCURRENTLY {name} ON {definition}")).await
    };
    let built = built.await;
    session.execute("RESET statement_timeout; SET lock_timeout = '1s'").await?;
    built.map(drop)
}

/// An index of a partitioned table that the partitions which were there before it get here.
struct PartitionIndex {
    parent: &'static str,
    name: &'static str,
    /// What is added to the name of a partition for its part.
    suffix: &'static str,
    definition: &'static str,
}

/// The definitions are those of the migrations. Of deliveries_filtered nobody needs the days before it.
const PARTITION_INDEXES: [PartitionIndex; 6] = [
    PartitionIndex {
        parent: "deliveries",
        name: "deliveries_held",
        suffix: "_held",
        definition: concat!("(integration_id, destination, event_id) WHERE due_at = ", never!()),
    },
    PartitionIndex {
        parent: "events",
        name: "events_integration",
        suffix: "_integration",
        definition: "(integration_id, id_slot(id)) INCLUDE (id, indexed_events) WHERE indexed_events > 0",
    },
    PartitionIndex {
        parent: "events",
        name: "events_type",
        suffix: "_type",
        definition: "(integration_id, event_type, id_slot(id)) INCLUDE (id, indexed_events) WHERE indexed_events > 0",
    },
    PartitionIndex {
        parent: "events",
        name: "events_external",
        suffix: "_external",
        definition: "(hashtext(external_event_id)) WHERE external_event_id IS NOT NULL AND NOT external_id_in_key",
    },
    PartitionIndex {
        parent: "deliveries",
        name: "deliveries_failed_destination",
        suffix: "_failed_destination",
        definition: "(destination, event_id) WHERE finished_at IS NOT NULL AND last_error IS NOT NULL",
    },
    PartitionIndex {
        parent: "delivery_attempts",
        name: "delivery_attempts_shared",
        suffix: "_shared",
        definition: "(integration_id, succeeded, id_slot(id)) INCLUDE (id, indexed_attempts) WHERE indexed_attempts > 0",
    },
];

/// Gives these indexes to the partitions that were there before them, so that what is in their days is found as that of others is. The
/// youngest days come first: they are looked into the most.
pub(super) async fn ensure_on_partitions(session: &mut Session) -> Result<()> {
    for index in &PARTITION_INDEXES {
        let partitions: Vec<String> = sqlx::query_scalar(
            "/* retention::index_build::ensure_on_partitions */
            SELECT child.relname::text FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
            WHERE inhparent = $1::regclass AND NOT inhdetachpending AND NOT EXISTS (
                SELECT FROM pg_inherits part JOIN pg_index ON indexrelid = part.inhrelid
                WHERE part.inhparent = $2::regclass AND indrelid = child.oid
            )
            ORDER BY child.relname DESC",
        )
        .bind(index.parent)
        .bind(index.name)
        .fetch_all(session.connection())
        .await?;
        for partition in partitions {
            // Asked for each one: building may have taken long.
            if is_held_up(session).await? {
                return Ok(());
            }
            let name = format!("{partition}{}", index.suffix);
            build(session, &name, &format!("{partition} {}", index.definition)).await?;
            session.execute(&format!("ALTER INDEX {} ATTACH PARTITION {name}", index.name)).await?;
        }
    }
    Ok(())
}

/// Drops the index of attempts that releases of before used, when every day has the one in its place. That of a partitioned table cannot be dropped
/// concurrently: it takes a moment, once the lock is there.
pub(super) async fn drop_replaced(session: &mut Session) -> Result<()> {
    let is_replaced: bool = sqlx::query_scalar(
        "/* retention::index_build::drop_replaced */
        SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('delivery_attempts_shared') AND indisvalid)
            AND to_regclass('delivery_attempts_integration') IS NOT NULL",
    )
    .fetch_one(session.connection())
    .await?;
    if is_replaced {
        session.execute("DROP INDEX IF EXISTS delivery_attempts_integration").await?;
    }
    Ok(())
}
