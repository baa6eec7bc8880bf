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

/// The actors of entries that Grapnel writes for itself. Whatever begins with `grapnel` or `provider:` is one too.
const SYSTEM_ACTORS: [&str; 4] = ["system", "worker", "file", "api"];

/// Returns whether the name is that of a component of Grapnel, so that nobody else may act under it.
pub fn is_system_actor(name: &str) -> bool {
    let name = name.trim().to_lowercase();
    SYSTEM_ACTORS.contains(&name.as_str()) || name.starts_with("grapnel") || name.starts_with("provider:")
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_components_are_reserved_in_every_spelling() {
        for name in [
            "system",
            "SYSTEM",
            " worker ",
            "file",
            "grapnel-controller",
            "Grapnel",
            "grapnel",
            "provider:acme",
        ] {
            assert!(is_system_actor(name), "{name:?}");
        }
        for name in ["api-user", "ops", "jane", "system-team", "filer"] {
            assert!(!is_system_actor(name), "{name:?}");
        }
    }
}
