//! The state of an event's processing.

use grapnel_store::views::ProcessingDetails;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Rfc3339Millis;
use super::event::EventStatusView;
use super::job::{ProcessingJobView, jobs};

/// The state of an event's processing.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Processing)]
pub(crate) struct ProcessingView {
    pub(crate) event_id: Uuid,
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
    /// The jobs of the latest 500 attempts, then the unfinished ones.
    pub(crate) jobs: Vec<ProcessingJobView>,
}

impl ProcessingView {
    /// Renders the state with its jobs.
    pub(in crate::management) fn from_details(details: ProcessingDetails, queue_prefix: &str) -> Self {
        Self {
            event_id: details.event_id.uuid(),
            status: details.status.into(),
            processing_attempts: details.attempts,
            last_error: details.last_error,
            last_processed_at: details.last_processed_at.map(Rfc3339Millis),
            jobs: jobs(queue_prefix, details.event_id, &details.work),
        }
    }
}
