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
mod attempt;
mod processing;
mod job;
mod integration;
mod replay_request;
mod audit_entry;

pub(super) use attempt::{AttemptStatusView, AttemptView};
pub(super) use audit_entry::{AuditEntityView, AuditEntryView};
pub(super) use event::{EventRecordView, EventStatusView, EventView};
pub(super) use integration::IntegrationView;
pub(super) use processing::ProcessingView;
pub(super) use replay_request::{ReplayRequestView, ReplayStatusView};
pub(super) use rfc3339_millis::Rfc3339Millis;

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
