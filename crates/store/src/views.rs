//! The reads behind the GET routes of the management API: pages of rows, and one event with its parts.
//!
//! Each request reads one snapshot, under a deadline, with plans made for its own values. A list costs the same on every
//! page; docs/benchmarks.md has the cost of each. How rows are shown is the API's business.

mod snapshot;
mod id_time;
mod page;
mod list_page;
mod event_sql;
mod event_pages;
mod events;
mod event_details;
mod unfinished;
mod attempts;
mod integrations;
mod replays;
mod audit;

pub use attempts::{AttemptFilter, AttemptRow, list_attempts};
pub use audit::{AuditEntity, AuditEntryRow, AuditFilter, list_audit_entries};
pub use event_details::{
    DeliveryWork, EventDetails, ProcessingDetails, WebhookRow, load_event, load_processing,
};
pub use events::{EventFilter, EventList, EventRow, EventSort, EventStatus, PayloadRow, list_events};
pub use integrations::{IntegrationFilter, IntegrationSummary, list_integrations};
pub use page::{Order, Page, PageRequest, Position, Start, TOTAL_CAP, Total};
pub use replays::{ReplayFilter, ReplayRequestRow, ReplayStatus, list_replay_requests, load_replay_request};
pub use unfinished::UnfinishedDeliveryRow;

/// The most by which the clocks of two machines may differ. A row that refers to an id is younger than the id except for
/// that, which gives the bounds that prune partitions.
const CLOCK_SKEW_MILLISECONDS: i64 = 60 * 60 * 1000;
