//! Events.

use grapnel_core::ids::EventId;
use grapnel_core::payload::normalized_payload;
use grapnel_store::views::{EventDetails, EventRow, EventStatus, SharedRequestRow};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::attempt::AttemptView;
use super::delivery::DeliveryView;
use super::job::{ProcessingJobView, jobs};
use super::webhook::WebhookView;
use super::{InvalidJson, Rfc3339Millis};

/// One accepted webhook. Its content is immutable; the status and all that follows from deliveries is as of now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Event)]
pub(crate) struct EventView {
    pub(crate) id: Uuid,
    pub(crate) integration_id: Uuid,
    pub(crate) provider: String,
    /// The provider's own id of the event, where it has one.
    #[schema(required)]
    pub(crate) external_event_id: Option<String>,
    pub(crate) event_type: String,
    #[schema(required)]
    pub(crate) subject: Option<String>,
    pub(crate) occurred_at: Rfc3339Millis,
    pub(crate) received_at: Rfc3339Millis,
    pub(crate) created_at: Rfc3339Millis,
    pub(crate) updated_at: Rfc3339Millis,
    pub(crate) status: EventStatusView,
    /// Attempts of all deliveries so far.
    #[schema(minimum = 0)]
    pub(crate) processing_attempts: i64,
    /// The latest error of a delivery that did not succeed.
    #[schema(required)]
    pub(crate) last_error: Option<String>,
    /// When the last attempt ended.
    #[schema(required)]
    pub(crate) last_processed_at: Option<Rfc3339Millis>,
    pub(crate) correlation_id: String,
    /// The verification secret that verified it: 0 is the current one, 1 and 2 are the previous ones.
    #[schema(minimum = 0, maximum = 2)]
    pub(crate) secret_index: i16,
    /// The event in its normalized form. Null in lists when the provider's payload is longer than 64 KiB: `GET /events/{id}` has it.
    /// Null without the right to see payloads.
    #[schema(required, value_type = Option<Object>)]
    pub(crate) normalized_payload: Option<Box<RawValue>>,
    /// When the content of the event was erased: its payload is null then. Else missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) erased_at: Option<Rfc3339Millis>,
    /// Who erased it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) erased_by: Option<String>,
    /// In place of `normalizedPayload` that is withheld: the length of the provider's payload in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) payload_bytes: Option<usize>,
}

impl EventView {
    /// Renders a row, with its normalized payload or the length of that.
    pub(in crate::management) fn from_row(row: EventRow, shows_payload: bool) -> Result<Self, InvalidJson> {
        let withheld = row.payload.as_ref().filter(|_| !shows_payload).map(|payload| payload.bytes.len());
        Ok(Self {
            normalized_payload: if shows_payload { render_payload(&row)? } else { None },
            payload_bytes: withheld,
            erased_at: row.erased.as_ref().map(|erased| erased.at.into()),
            erased_by: row.erased.map(|erased| erased.by),
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
pub(crate) enum EventStatusView {
    /// No unfinished delivery is further than waiting for its first attempt.
    Pending,
    /// An attempt is under way. After the death of its worker the status stays until the delivery is claimed again,
    /// because the outcome of the attempt is unknown until then.
    Processing,
    /// A delivery waits for another attempt.
    Retrying,
    /// All deliveries succeeded, or the filters of their destinations left the event out.
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
pub(crate) struct EventRecordView {
    pub(crate) event: EventView,
    pub(crate) webhook: WebhookView,
    /// By destination.
    pub(crate) deliveries: Vec<DeliveryView>,
    /// The request and the event's place in it, if the webhook has several events. Missing if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<SharedRequestView>,
    /// The latest 500, in the order in which they were made.
    pub(crate) delivery_attempts: Vec<AttemptView>,
    /// The jobs of those attempts, then the unfinished ones.
    pub(crate) processing_jobs: Vec<ProcessingJobView>,
}

/// A request with several events, and the place of one event among them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SharedRequest)]
pub(crate) struct SharedRequestView {
    pub(crate) id: Uuid,
    /// The index of the event, from 0, in the order of the document.
    #[schema(minimum = 0)]
    pub(crate) position: i32,
    /// The number of events of the request, those included that had been stored before it.
    #[schema(minimum = 1)]
    pub(crate) count: i32,
    /// The first 100 events that were stored with it, in the order of the document.
    pub(crate) events: Vec<Uuid>,
}

impl From<SharedRequestRow> for SharedRequestView {
    fn from(row: SharedRequestRow) -> Self {
        Self {
            id: row.id.uuid(),
            position: row.position,
            count: row.count,
            events: row.events.into_iter().map(EventId::uuid).collect(),
        }
    }
}

impl EventRecordView {
    /// Renders an event with all its parts.
    pub(in crate::management) fn from_details(
        details: EventDetails,
        queue_prefix: &str,
        shows_payloads: bool,
    ) -> Result<Self, InvalidJson> {
        let EventDetails { event, webhook, deliveries, request, work } = details;
        Ok(Self {
            webhook: WebhookView::from_rows(&event, webhook, shows_payloads)?,
            deliveries: deliveries.into_iter().map(DeliveryView::from).collect(),
            request: request.map(SharedRequestView::from),
            processing_jobs: jobs(queue_prefix, event.id, &work),
            event: EventView::from_row(event, shows_payloads)?,
            delivery_attempts: work
                .attempts
                .into_iter()
                .map(|attempt| AttemptView::from_row(attempt, shows_payloads))
                .collect(),
        })
    }
}
