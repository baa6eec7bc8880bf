//! The audit trail: append-only, and written in the statement that it records wherever there is one.
//!
//! The actor of an entry is who was authenticated, never what somebody said:
//!
//! | actor | |
//! |---|---|
//! | `user:NAME` | a user of the cluster, as the API server names it |
//! | `proxy:NAME` | a user of the cluster, as an authenticating proxy before the console names it |
//! | `key:current`, `key:previous` | whoever has the management key |
//! | `local` | whoever uses the console of `grapnel dev` on its own machine |
//! | `provider:NAME` | the provider whose webhook was verified |
//! | `manager:NAME` | the field manager that applied an object, or the command that read it from a file |
//! | `controller`, `worker`, `system` | a component of Grapnel |
//!
//! Ids come from the process when it knows the number of entries, and from `uuidv7_now()` when only the database does.

use std::net::IpAddr;

use grapnel_core::ids::{AuditEntryId, EventId, IntegrationId};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
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

/// The actor of what the controller does by itself.
pub const CONTROLLER: &str = "controller";

/// Returns the actor of what was applied by a field manager.
pub fn manager(name: &str) -> String {
    format!("manager:{name}")
}

/// An authenticated person or program, as the entries about its requests name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requester {
    pub actor: String,
    /// Of a user: how many groups it was in.
    groups: Option<usize>,
    /// Of a request.
    source: Option<IpAddr>,
}

impl Requester {
    pub fn user(name: &str, groups: usize, source: IpAddr) -> Self {
        Self { actor: format!("user:{name}"), groups: Some(groups), source: Some(source) }
    }

    /// A user whom an authenticating proxy names.
    pub fn proxy_user(name: &str, groups: usize, source: IpAddr) -> Self {
        Self { actor: format!("proxy:{name}"), groups: Some(groups), source: Some(source) }
    }

    /// Whoever uses the machine that the process runs on.
    pub fn local(source: IpAddr) -> Self {
        Self { actor: "local".to_owned(), groups: None, source: Some(source) }
    }

    /// `name` tells the keys apart: `current` or `previous`.
    pub fn key(name: &str, source: IpAddr) -> Self {
        Self { actor: format!("key:{name}"), groups: None, source: Some(source) }
    }

    /// One that made no request: a component, or the field manager of an object.
    pub fn unseen(actor: impl Into<String>) -> Self {
        Self { actor: actor.into(), groups: None, source: None }
    }

    /// Returns the members that each entry's details have of it, as JSON text.
    pub(crate) fn details(&self) -> String {
        let Some(source) = self.source else { return "{}".to_owned() };
        match self.groups {
            Some(groups) => format!(r#"{{"groups":{groups},"sourceAddress":"{source}"}}"#),
            None => format!(r#"{{"sourceAddress":"{source}"}}"#),
        }
    }
}

/// Records that a user was denied something of an integration.
pub async fn access_denied(
    db: &Database,
    integration_id: IntegrationId,
    requester: &Requester,
    resource: &str,
    verb: &str,
) -> Result<()> {
    db.bounded(async {
        sqlx::query(concat!(
            "/* audit::access_denied */ ",
            insert_audit_entries!(
                "VALUES ($1, 'integration', $2, 'access.denied', $3,
            (jsonb_build_object('resource', $4::text, 'verb', $5::text) || $6::jsonb)::json)"
            )
        ))
        .bind(AuditEntryId::generate().uuid())
        .bind(integration_id.uuid())
        .bind(&requester.actor)
        .bind(resource)
        .bind(verb)
        .bind(requester.details())
        .execute(db.pool())
        .await?;
        Ok(())
    })
    .await
}

/// Records that the payload of an event was shown to somebody who asked for it.
pub async fn payload_shown(db: &Database, event_id: EventId, requester: &Requester) -> Result<()> {
    db.bounded(async {
        sqlx::query(concat!(
            "/* audit::payload_shown */ ",
            insert_audit_entries!("VALUES ($1, 'event', $2, 'payload.shown', $3, $4::json)")
        ))
        .bind(AuditEntryId::generate().uuid())
        .bind(event_id.uuid())
        .bind(&requester.actor)
        .bind(requester.details())
        .execute(db.pool())
        .await?;
        Ok(())
    })
    .await
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

/// What is known of the end of an object. Who deleted it is not: the API server tells that to its audit log alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectEnd {
    /// When its deletion was requested; `None` for one that was found to be gone.
    pub deleted_at: Option<Timestamp>,
    /// The field manager that wrote its spec last.
    pub last_manager: Option<String>,
}

/// Adds the entry of an integration's end, with what is known of that of its object.
pub(crate) async fn integration_removed(
    tx: &mut PgConnection,
    id: IntegrationId,
    actor: &str,
    generation: i64,
    end: &ObjectEnd,
) -> Result<()> {
    sqlx::query(concat!(
        "/* audit::integration_removed */ ",
        insert_audit_entries!(
            "VALUES ($1, 'integration', $2, 'integration.removed', $3, json_strip_nulls(json_build_object(
                'generation', $4::bigint, 'deletedAt', $5::timestamptz, 'lastManager', $6::text)))"
        )
    ))
    .bind(AuditEntryId::generate().uuid())
    .bind(id.uuid())
    .bind(actor)
    .bind(generation)
    .bind(end.deleted_at.map(|time| time.to_sqlx()))
    .bind(&end.last_manager)
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
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn details_of_a_requester_are_json() {
        let source = IpAddr::from(Ipv4Addr::new(192, 0, 2, 7));
        let user = Requester::user("jane", 3, source);
        assert_eq!(
            (user.actor.as_str(), user.details().as_str()),
            ("user:jane", r#"{"groups":3,"sourceAddress":"192.0.2.7"}"#)
        );
        let key = Requester::key("current", source);
        assert_eq!(
            (key.actor.as_str(), key.details().as_str()),
            ("key:current", r#"{"sourceAddress":"192.0.2.7"}"#)
        );
        assert_eq!(Requester::unseen(CONTROLLER).details(), "{}");
    }

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
