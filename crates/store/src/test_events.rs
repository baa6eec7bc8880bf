//! Test events: what an operator sends through the deliveries of an integration, without a webhook.
//!
//! Such an event is like any other but for where it comes from. It needs no key, since nobody repeats it, and its deliveries are due from the start,
//! so the dispatcher finds them. The audit entry is of who sent it.

use grapnel_core::ids::{AuditEntryId, EventId, IntegrationId};
use grapnel_core::payload::{BodyForm, DeliveredAs};
use sqlx::PgConnection;

use crate::audit::{Requester, insert_audit_entries};
use crate::database::Database;
use crate::destinations;
use crate::error::Result;

/// An event to send.
#[derive(Debug, Clone)]
pub struct NewTestEvent {
    pub integration_id: IntegrationId,
    pub provider: String,
    pub event_type: String,
    pub subject: Option<String>,
    /// The member of the normalized payload that carries the payload.
    pub payload_key: String,
    /// JSON.
    pub payload: Vec<u8>,
    pub delivered_as: DeliveredAs,
    /// To send it to these destinations; empty is all that the integration has.
    pub destinations: Vec<String>,
    pub correlation_id: String,
    pub requester: Requester,
}

/// The outcome of a test event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestEventOutcome {
    /// Stored under this id, with deliveries to these destinations; the dispatcher should be woken.
    Stored(EventId, Vec<String>),
    /// The integration was removed.
    UnknownIntegration,
    /// The integration is disabled.
    InactiveIntegration,
    /// The integration does not have it.
    UnknownDestination(String),
}

/// The key of a test event, whose id and integration are given as SQL. No webhook has it: its event had no id when it was sent.
macro_rules! key_of_test_event {
    ($integration:literal, $event:literal) => {
        concat!($integration, " || ':test-' || ", $event)
    };
}
pub(crate) use key_of_test_event;

/// What the headers of the webhook would be, as they are stored.
const HEADERS: &str = r#"[["content-type","application/json"],["x-grapnel-test","true"]]"#;

// As for replays.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL statement_timeout = '10s';
    SET LOCAL lock_timeout = '5s'";

/// Stores an event with its deliveries. Nothing is stored unless it returns [`TestEventOutcome::Stored`].
pub async fn store(db: &Database, event: &NewTestEvent) -> Result<TestEventOutcome> {
    db.bounded(async {
        let mut tx = db.begin(BEGIN).await?;
        let Some(known) = destinations::lock(&mut tx, event.integration_id).await? else {
            return Ok(TestEventOutcome::UnknownIntegration);
        };
        if known.is_disabled {
            return Ok(TestEventOutcome::InactiveIntegration);
        }
        if let Some(unknown) = event.destinations.iter().find(|name| !known.names.contains(name)) {
            return Ok(TestEventOutcome::UnknownDestination(unknown.clone()));
        }
        let all = event.destinations.is_empty();
        let chosen = |name: &String| all || event.destinations.contains(name);
        let destinations: Vec<String> = known.names.into_iter().filter(chosen).collect();
        let id = EventId::generate();
        insert(&mut tx, id, event, &destinations).await?;
        tx.commit().await?;
        Ok(TestEventOutcome::Stored(id, destinations))
    })
    .await
}

async fn insert(
    tx: &mut PgConnection,
    id: EventId,
    event: &NewTestEvent,
    destinations: &[String],
) -> Result<()> {
    sqlx::query(concat!(
        "/* test_events::insert */
        WITH stored AS (
            INSERT INTO events (
                id, integration_id, provider, event_type, subject, occurred_at, received_at, correlation_id, headers, raw_body,
                payload_key, payload_start, payload_length, body_form, delivered_as, idempotency_key
            )
            VALUES ($1, $2, $3, $4, $5, now(), now(), $6, $7::json, $8, $9, 0, length($8), $10, $11, ",
        key_of_test_event!("$2::uuid", "$1::uuid"),
        ")
        ), due AS (
            INSERT INTO deliveries (event_id, destination, integration_id, due_at, updated_at)
            SELECT $1, name, $2, now(), now() FROM unnest($12::text[]) AS name
        )
        ",
        insert_audit_entries!(
            "VALUES ($13, 'event', $1, 'event.test_sent', $14,
            (jsonb_build_object('destinations', $12::text[]) || $15::jsonb)::json)"
        )
    ))
    .bind(id.uuid())
    .bind(event.integration_id.uuid())
    .bind(&event.provider)
    .bind(&event.event_type)
    .bind(event.subject.as_deref())
    .bind(&event.correlation_id)
    .bind(HEADERS)
    .bind(&event.payload)
    .bind(&event.payload_key)
    .bind(BodyForm::Json.code())
    .bind(event.delivered_as.code())
    .bind(destinations)
    .bind(AuditEntryId::generate().uuid())
    .bind(&event.requester.actor)
    .bind(event.requester.details())
    .execute(tx)
    .await?;
    Ok(())
}
