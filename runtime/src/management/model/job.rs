//! Processing jobs: the past, present and future attempts of an event. There is no such table; they are a projection.
//!
//! Each attempt is a job that succeeded or failed, under the attempt's id. Each unfinished delivery is one more job for
//! the attempt that comes next: `running` while the delivery is `processing`, else `queued`, whether it is in the broker
//! or waits for its time. Its id is made from event, destination and attempt number, so it stays the same until the
//! attempt is recorded and takes its place under an id of its own.

use grapnel_core::ids::EventId;
use grapnel_crds::names::queue_name;
use grapnel_store::views::{AttemptRow, DeliveryWork, UnfinishedDeliveryRow};
use jiff::SignedDuration;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::{Builder, Uuid};

use super::Rfc3339Millis;

/// A scheduled, running or finished attempt.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ProcessingJob)]
pub(crate) struct ProcessingJobView {
    /// The attempt's id once it is finished; before, an id made from event, destination and attempt number.
    pub(crate) id: Uuid,
    pub(crate) event_id: Uuid,
    pub(crate) destination: String,
    pub(crate) queue_name: String,
    /// `webhook`, `retry` or `replay`.
    #[schema(pattern = "^(webhook|retry|replay)$")]
    pub(crate) triggered_by: &'static str,
    pub(crate) status: JobStatusView,
    #[schema(minimum = 1)]
    pub(crate) attempt_no: i32,
    pub(crate) scheduled_at: Rfc3339Millis,
    #[schema(required)]
    pub(crate) started_at: Option<Rfc3339Millis>,
    #[schema(required)]
    pub(crate) completed_at: Option<Rfc3339Millis>,
    #[schema(required)]
    pub(crate) error_message: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = JobStatus)]
pub(crate) enum JobStatusView {
    Queued,
    Running,
    Succeeded,
    Failed,
}

/// Returns all jobs of an event: the finished ones in the order of their attempts, then the unfinished ones.
pub(super) fn jobs(queue_prefix: &str, event_id: EventId, work: &DeliveryWork) -> Vec<ProcessingJobView> {
    let finished = work.attempts.iter().map(|attempt| finished_job(queue_prefix, attempt));
    let unfinished =
        work.unfinished.iter().map(|delivery| unfinished_job(queue_prefix, event_id.uuid(), delivery));
    finished.chain(unfinished).collect()
}

fn finished_job(queue_prefix: &str, attempt: &AttemptRow) -> ProcessingJobView {
    let duration = SignedDuration::from_millis(i64::from(attempt.duration_ms));
    ProcessingJobView {
        id: attempt.id.uuid(),
        event_id: attempt.event_id.uuid(),
        destination: attempt.destination.clone(),
        queue_name: queue_name(queue_prefix, attempt.integration_id.uuid(), &attempt.destination),
        triggered_by: attempt.triggered_by.as_str(),
        status: if attempt.succeeded { JobStatusView::Succeeded } else { JobStatusView::Failed },
        attempt_no: attempt.attempt_no,
        scheduled_at: attempt.scheduled_at.into(),
        started_at: Some(attempt.started_at.into()),
        completed_at: attempt.started_at.checked_add(duration).ok().map(Rfc3339Millis),
        error_message: attempt.error_message.clone(),
    }
}

fn unfinished_job(queue_prefix: &str, event_id: Uuid, delivery: &UnfinishedDeliveryRow) -> ProcessingJobView {
    let is_running = delivery.is_running;
    ProcessingJobView {
        id: unfinished_job_id(event_id, &delivery.destination, delivery.attempt_no),
        event_id,
        destination: delivery.destination.clone(),
        queue_name: queue_name(queue_prefix, delivery.integration_id.uuid(), &delivery.destination),
        triggered_by: delivery.triggered_by.as_str(),
        status: if is_running { JobStatusView::Running } else { JobStatusView::Queued },
        attempt_no: delivery.attempt_no,
        scheduled_at: delivery.scheduled_at.into(),
        started_at: delivery.started_at.filter(|_| is_running).map(Rfc3339Millis),
        completed_at: None,
        error_message: None,
    }
}

/// Returns a version 8 UUID (RFC 9562, section 5.8) of the SHA-256 of the three. A destination's name has no slash.
fn unfinished_job_id(event_id: Uuid, destination: &str, attempt_no: i32) -> Uuid {
    let digest = Sha256::digest(format!("grapnel.dev/job/{event_id}/{destination}/{attempt_no}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_job_id_stands_for_one_attempt() {
        let id = unfinished_job_id(Uuid::nil(), "orders", 1);
        assert_eq!(id, unfinished_job_id(Uuid::nil(), "orders", 1));
        assert_eq!(id.get_version_num(), 8);
        assert_ne!(id, unfinished_job_id(Uuid::nil(), "orders", 2));
        assert_ne!(id, unfinished_job_id(Uuid::nil(), "orders-1", 1));
        assert_ne!(id, unfinished_job_id(Uuid::max(), "orders", 1));
    }
}
