//! Events.

use grapnel_core::payload::normalized_payload;
use grapnel_store::views::{EventDetails, EventRow, EventStatus};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::attempt::AttemptView;
use super::job::{ProcessingJobView, jobs};
use super::webhook::WebhookView;
use super::{InvalidJson, Rfc3339Millis};

/// One accepted webhook. Its content is immutable; the status and all that follows from deliveries is as of now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Event)]
pub(in crate::management) struct EventView {
    id: Uuid,
    integration_id: Uuid,
    provider: String,
    /// The provider's own id of the event, where it has one.
    #[schema(required)]
    external_event_id: Option<String>,
    event_type: String,
    #[schema(required)]
    subject: Option<String>,
    occurred_at: Rfc3339Millis,
    received_at: Rfc3339Millis,
    created_at: Rfc3339Millis,
    updated_at: Rfc3339Millis,
    status: EventStatusView,
    /// Attempts of all deliveries so far.
    #[schema(minimum = 0)]
    processing_attempts: i64,
    /// The latest error of a delivery that did not succeed.
    #[schema(required)]
    last_error: Option<String>,
    /// When the last attempt ended.
    #[schema(required)]
    last_processed_at: Option<Rfc3339Millis>,
    correlation_id: String,
    /// The verification secret that verified it: 0 is the current one, 1 and 2 are the previous ones.
    #[schema(minimum = 0, maximum = 2)]
    secret_index: i16,
    /// The event in its normalized form. Null in lists when the provider's payload is longer than 64 KiB: `GET /events/{id}` has it.
    #[schema(required, value_type = Option<Object>)]
    normalized_payload: Option<Box<RawValue>>,
}

impl EventView {
    /// Renders a row with its normalized payload.
    pub(in crate::management) fn from_row(row: EventRow) -> Result<Self, InvalidJson> {
        Ok(Self {
            normalized_payload: render_payload(&row)?,
            id: row.id.uuid(),
            integration_id: row.integration_id.uuid(),
            provider: row.provider,
            external_event_id: row.external_event_id,
            event_type: row.event_type,
            subject: row.subject,
            occurred_at: row.occurred_at.into(),
            received_at: row.received_at.into(),
            created_at: row.received_at.into(),
            updated_at: row.updated_at.into(),
            status: row.status.into(),
            processing_attempts: row.attempts,
            last_error: row.last_error,
            last_processed_at: row.last_processed_at.map(Rfc3339Millis),
            correlation_id: row.correlation_id,
            secret_index: row.secret_index,
        })
    }
}

fn render_payload(row: &EventRow) -> Result<Option<Box<RawValue>>, InvalidJson> {
    let Some(payload) = &row.payload else { return Ok(None) };
    let external_event_id = row.external_event_id.as_deref();
    let json = normalized_payload(
        &row.provider,
        &row.event_type,
        external_event_id,
        &payload.key,
        payload.form,
        &payload.bytes,
    );
    serde_json::from_slice(&json).map(Some).map_err(|source| InvalidJson {
        table: "events",
        column: "raw_body",
        id: row.id.uuid(),
        source,
    })
}

/// The status of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = EventStatus)]
pub(in crate::management) enum EventStatusView {
    /// No unfinished delivery is further than waiting for its first attempt.
    Pending,
    /// An attempt is under way. After the death of its worker the status stays until the delivery is claimed again,
    /// because the outcome of the attempt is unknown until then.
    Processing,
    /// A delivery waits for another attempt.
    Retrying,
    /// All deliveries succeeded.
    Processed,
    /// No delivery is unfinished, and one failed.
    Failed,
}

impl From<EventStatus> for EventStatusView {
    fn from(status: EventStatus) -> Self {
        match status {
            EventStatus::Pending => Self::Pending,
            EventStatus::Processing => Self::Processing,
            EventStatus::Retrying => Self::Retrying,
            EventStatus::Processed => Self::Processed,
            EventStatus::Failed => Self::Failed,
        }
    }
}

/// An event, the webhook as it was received, and its deliveries.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EventRecord)]
pub(in crate::management) struct EventRecordView {
    event: EventView,
    webhook: WebhookView,
    /// The latest 500, in the order in which they were made.
    delivery_attempts: Vec<AttemptView>,
    /// The jobs of those attempts, then the unfinished ones.
    processing_jobs: Vec<ProcessingJobView>,
}

impl EventRecordView {
    /// Renders an event with all its parts.
    pub(in crate::management) fn from_details(
        details: EventDetails,
        queue_prefix: &str,
    ) -> Result<Self, InvalidJson> {
        let EventDetails { event, webhook, work } = details;
        Ok(Self {
            webhook: WebhookView::from_rows(&event, webhook)?,
            processing_jobs: jobs(queue_prefix, event.id, &work),
            event: EventView::from_row(event)?,
            delivery_attempts: work.attempts.into_iter().map(AttemptView::from).collect(),
        })
    }
}
