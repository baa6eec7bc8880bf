//! The audit trail: append-only, and written in the statement that it records wherever there is one.
//!
//! Ids come from the process when it knows the number of entries, and from `uuidv7_now()` when only the database does.

use grapnel_core::ids::{AuditEntryId, IntegrationId};
use sqlx::PgConnection;

use crate::database::Database;
use crate::error::Result;

/// The INSERT of audit entries as SQL text, for a statement of its own or as a part of another one. The argument selects
/// the columns in this order.
macro_rules! insert_audit_entries {
    ($select:expr) => {
        concat!(
            "INSERT INTO audit_entries (id, entity_type, entity_id, action, actor, details)\n    ",
            $select
        )
    };
}
pub(crate) use insert_audit_entries;

/// Generates ids for this many entries.
pub(crate) fn new_ids(count: usize) -> Vec<uuid::Uuid> {
    std::iter::repeat_with(|| AuditEntryId::generate().uuid()).take(count).collect()
}

/// Adds an entry of an integration's lifecycle.
pub(crate) async fn integration_changed(
    tx: &mut PgConnection,
    id: IntegrationId,
    action: &str,
    actor: &str,
    generation: i64,
) -> Result<()> {
    sqlx::query(concat!(
        "/* audit::integration_changed */ ",
        insert_audit_entries!(
            "VALUES ($1, 'integration', $2, $3, $4, json_build_object('generation', $5::bigint))"
        )
    ))
    .bind(AuditEntryId::generate().uuid())
    .bind(id.uuid())
    .bind(action)
    .bind(actor)
    .bind(generation)
    .execute(tx)
    .await?;
    Ok(())
}

/// Records a message that Grapnel did not publish, as an entry of the integration whose queue it was in.
pub async fn message_rejected(
    db: &Database,
    integration_id: IntegrationId,
    destination: &str,
    message_bytes: usize,
) -> Result<()> {
    db.bounded(async {
        sqlx::query(concat!(
            "/* audit::message_rejected */ ",
            insert_audit_entries!(
                "VALUES ($1, 'integration', $2, 'queue.message_rejected', 'worker',
            json_build_object('destination', $3::text, 'messageBytes', $4::bigint))"
            )
        ))
        .bind(AuditEntryId::generate().uuid())
        .bind(integration_id.uuid())
        .bind(destination)
        .bind(message_bytes as i64)
        .execute(db.pool())
        .await?;
        Ok(())
    })
    .await
}
