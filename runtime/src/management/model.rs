//! The answers of the management API, as they are serialized and described, made from the store's rows.
//!
//! Each type here is a schema of the OpenAPI document, under its name without the suffix `View`.

use grapnel_core::error_chain::chain;
use thiserror::Error;
use uuid::Uuid;

use crate::http::envelope::ApiError;

mod rfc3339_millis;
mod event;
mod webhook;
mod delivery;
mod attempt;
mod processing;
mod job;
mod object_status;
mod integration;
mod integration_record;
mod stats;
mod replay_request;
mod replay;
mod audit_entry;

pub(crate) use attempt::{AttemptStatusView, AttemptView};
pub(crate) use audit_entry::{AuditEntityView, AuditEntryView};
pub(crate) use delivery::DeliveryStatusView;
pub(crate) use event::{EventRecordView, EventStatusView, EventView};
pub(crate) use integration::{IntegrationStateView, IntegrationView};
pub(crate) use integration_record::{ConditionView, IntegrationRecordView, ScalingChangeView};
pub(crate) use job::{JobStatusView, ProcessingJobView};
pub(crate) use object_status::{ConditionStatusView, ObjectStatusView};
pub(crate) use processing::ProcessingView;
pub(crate) use replay::{ReplayStateView, ReplayView};
pub(crate) use replay_request::{ReplayRequestView, ReplayStatusView};
pub(crate) use rfc3339_millis::Rfc3339Millis;
pub(crate) use stats::{DestinationStatsView, IntegrationStatsView};

/// A stored text that is not the JSON that it must be. `id` is the row's.
#[derive(Debug, Error)]
#[error("invalid JSON in {table}.{column} of {id}")]
pub(super) struct InvalidJson {
    table: &'static str,
    column: &'static str,
    id: Uuid,
    source: serde_json::Error,
}

/// A failure is logged here, once, and a client gets a constant.
impl From<InvalidJson> for ApiError {
    fn from(invalid: InvalidJson) -> Self {
        tracing::error!(error = %chain(&invalid), "management request failed");
        Self::internal()
    }
}
