//! The reads behind the GET routes of the management API: pages of rows, and one event with its parts.
//!
//! Each request reads one snapshot, under a deadline, with plans made for its own values. A list costs the same on every
//! page; docs/benchmarks.md has the cost of each. A search reads slices, each in a snapshot of its own, until its page is full or its time is up
//! (`walk`). How rows are shown is the API's business.

pub(crate) mod snapshot;
pub(crate) mod id_time;
mod page;
pub(crate) mod owners;
pub(crate) mod list_page;
mod walk;
mod integration_scope;
mod event_sql;
mod event_pages;
mod event_search;
mod events;
mod event_details;
mod event_headers;
mod changes;
mod unfinished;
mod event_deliveries;
mod attempts;
mod integrations;
mod replays;
mod audit;
mod traffic;
mod overview;
mod series;
mod worker_series;

pub use attempts::{AttemptFilter, AttemptRow, list_attempts};
pub use audit::{AuditEntity, AuditEntryRow, AuditFilter, list_audit_entries};
pub use changes::{ChangedEvent, Changes, Seen, changes_since, now_seen};
pub use event_deliveries::DeliveryRow;
pub use event_details::{
    DeliveryWork, EventDetails, ProcessingDetails, SharedRequestRow, WebhookRow, load_event, load_processing,
};
pub use event_headers::load_headers;
pub use events::{
    ErasureRow, EventFilter, EventList, EventRow, EventSelection, EventSort, EventStatus, PayloadRow,
    list_events,
};
pub use id_time::time_of_id;
pub use integration_scope::{IntegrationRef, IntegrationSelection};
pub use integrations::{
    IntegrationFilter, IntegrationObject, IntegrationSummary, ObjectConditions, StatusSummary,
    list_integrations, load_integration,
};
pub use overview::{
    Backlog, COUNTED_BACKLOG, LastFailure, RecentTraffic, TrafficPart, load_backlogs, load_last_failure,
    load_parts, load_recent,
};
pub use owners::{
    Owner, owner_of_event, owner_of_integration, owner_of_named, owner_of_replay_request, owner_of_route,
    owners,
};
pub use page::{Order, Page, PageRequest, Position, Start, TOTAL_CAP, Total};
pub use replays::{ReplayFilter, ReplayRequestRow, ReplayStatus, list_replay_requests, load_replay_request};
pub use series::{SeriesPart, load_series};
pub use traffic::{DestinationStats, TrafficStats, load_traffic};
pub use unfinished::UnfinishedDeliveryRow;
pub use worker_series::{WorkerPart, load_worker_series};

/// The most by which the clocks of two machines may differ. A row that refers to an id is younger than the id except for
/// that, which gives the bounds that prune partitions.
const CLOCK_SKEW_MILLISECONDS: i64 = 60 * 60 * 1000;
