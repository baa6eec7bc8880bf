//! What the management API reads: every statement behind its GET routes, and the models that they answer.
//!
//! Each request reads one snapshot, under a deadline, with plans made for its own values. The costs, measured with 700,000
//! events of 14 days (940,000 attempts, 1.6 million audit entries) on a busy machine of two cores:
//!
//! | list | what is read | time |
//! |---|---|---|
//! | events, any order, any page | the index of the order up to the page, and 10,001 entries for the total | 10 ms |
//! | events from, to | the index on occurredAt, or a walk that begins at the window | 5–20 ms |
//! | events by status `failed` | the index of failed deliveries, 10,001 at most | 70 ms |
//! | events by status `processed` | the walk of all events; 10,001 look-ups for the total | 60 ms |
//! | events by an unfinished status | the open deliveries of each destination, 10,001 at most; all of them when few are in the status | 5 ms; 60–130 ms with 270,000 open |
//! | the same by occurredAt | a walk along occurredAt from the first to the last event that can match | 5 ms; 300 ms with 270,000 open |
//! | events sorted by status | the five lists one after the other | 10–100 ms |
//! | events by provider, eventType, subject | no index: all events until the page and 10,001 matches are found | 15–40 ms; 0.3–1 s when few match |
//! | attempts, by status, by event | an index of the id for each; one partition | 4 ms |
//! | audit entries, by entity, by action, by type | an index for each; what has none is so frequent that a walk of all meets it | 4 ms |
//! | replay requests, integrations | few rows | 2 ms |
//! | one event | one partition of each table | 3 ms |
//!
//! Only a filter without an index that few events pass grows with the history: it reads about a million events in a
//! second, `from` and `to` bound it, and the deadline ends it. A partition costs a look into its index where a list is not
//! in the order of the partitions (occurredAt, attempts).

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{Error, Result};

mod snapshot;
mod instant;
mod page;
mod event_sql;
mod event_pages;
mod events;
mod jobs;
mod event_record;
mod attempts;
mod integrations;
mod replays;
mod audit;

pub use attempts::{Attempt, AttemptFilter, AttemptStatus, list_attempts};
pub use audit::{AuditEntity, AuditEntry, AuditFilter, list_audit_entries};
pub use event_record::{EventRecord, Processing, Webhook, load_event, load_processing};
pub use events::{Event, EventList, EventSort, list_events};
pub use instant::Instant;
pub use integrations::{Destination, Integration, IntegrationFilter, IntegrationState, list_integrations};
pub use jobs::{JobStatus, ProcessingJob};
pub use page::{Order, Page, PageRequest, Position, Start, TOTAL_CAP, Total};
pub use replays::{ReplayFilter, ReplayRequest, ReplayStatus, list_replay_requests, load_replay_request};

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventStatus {
    /// No unfinished delivery is further than waiting for its first attempt.
    Pending,
    /// An attempt is under way. A worker that died in it leaves this status until the delivery is claimed again: nobody
    /// knows yet what became of the attempt.
    Processing,
    /// A delivery waits for another attempt.
    Retrying,
    /// All deliveries succeeded.
    Processed,
    /// No delivery is unfinished, and one failed.
    Failed,
}

impl EventStatus {
    /// In the order of sorting. The unfinished ones come first, the most advanced last: an event with several
    /// unfinished deliveries has the status of the most advanced.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Processing, Self::Retrying, Self::Processed, Self::Failed];

    /// As the API and the statements have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Retrying => "retrying",
            Self::Processed => "processed",
            Self::Failed => "failed",
        }
    }

    fn rank(self) -> i64 {
        match self {
            Self::Pending => 0,
            Self::Processing => 1,
            Self::Retrying => 2,
            Self::Processed => 3,
            Self::Failed => 4,
        }
    }
}

/// Which events a list has. Absent filters restrict nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub provider: Option<String>,
    pub event_type: Option<String>,
    /// Matches anywhere in the subject, in either case, literally.
    pub subject: Option<String>,
    /// The earliest time of occurrence.
    pub from: Option<jiff::Timestamp>,
    /// The time of occurrence that is too late.
    pub until: Option<jiff::Timestamp>,
}

/// What refers to an id is never older than the id, but for the clocks of two machines: this is how far apart they may
/// be for the bounds that prune partitions.
const CLOCK_SLACK_MILLISECONDS: i64 = 60 * 60 * 1000;

/// Reads the text of an enum column. Texts that it cannot have are the schema's fault or a newer version's.
fn known<T>(value: Option<T>, table: &'static str, column: &'static str, id: Uuid) -> Result<T> {
    value.ok_or(Error::Corrupt { table, column, id, source: None })
}
