//! Replays: jobs that deliver many deliveries again. Requests to replay one event are in [`crate::replays`].
//!
//! A job is a row, which says what it selects, how far it is, and what has become of what it fed. Its destinations have positions of their own
//! (`replay_destinations`), and what it has fed is listed until its end is counted (`replay_deliveries`).
//!
//! # What always holds
//!
//! - A position moves in the transaction that takes the deliveries up to it, and only from where it was: each delivery is fed once for a job,
//!   whoever is killed, and however many feed.
//! - Whoever writes a job, its destinations or its deliveries holds the lock of its row. Only a replay that takes a delivery whose end is not counted
//!   yet notes that end without it.
//! - `fed` = `succeeded` + `failed` + the rows of `replay_deliveries`.
//! - A job is never left once it has ended.
//!
//! Entries of the audit trail are about the integrations of the job, one for each.

mod walk;
mod sift;
mod plan;
mod read;
mod create;
mod list;
mod request;
mod object;
mod turn;
mod feed;
mod finder;

use grapnel_core::ids::{IntegrationId, ReplayJobId};
use grapnel_core::replay::{DesiredState, ReplaySpec, ReplayState};
use jiff::Timestamp;

pub use create::{NewReplayJob, create, forget_ended};
pub use feed::{Feed, FeedOutcome, feed, pause, stop_at_limit};
pub use finder::{Finder, FoundDeliveries};
pub use list::{
    DestinationProgress, ReplayJobFilter, ReplayOwner, ReplayProgress, StateCount, count_by_state, list_jobs,
    load_progress, owner,
};
pub use object::{ObjectReplay, ObjectReplayOutcome, create_for_object, follow_object, forget_object};
pub use plan::{MAX_COUNTED, PlanOutcome, PlannedDestination, ReplayPlan, ReplaySample, ReplayTarget, plan};
pub use read::{find_by_object, load, load_many};
pub use request::{RequestOutcome, request_state, set_rate};
pub use turn::{DestinationPosition, Turn, take_turn, unfinished};

/// A replay.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayJob {
    pub id: ReplayJobId,
    /// Of the integrations.
    pub namespace: String,
    pub integration_ids: Vec<IntegrationId>,
    /// Whether it was asked for by the namespace and not by the integration.
    pub is_of_namespace: bool,
    pub spec: ReplaySpec,
    /// As it is now.
    pub rate_per_second: u32,
    /// What was asked for last.
    pub desired_state: DesiredState,
    pub state: ReplayState,
    /// Why it is in this state, where that is not asked for: a word, and a sentence.
    pub state_reason: Option<String>,
    pub state_message: Option<String>,
    pub counters: ReplayCounters,
    pub requested_by: Option<String>,
    /// Who was authenticated.
    pub actor: String,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub updated_at: Timestamp,
    /// The name of the Kubernetes object that it was made for, in its namespace.
    pub object_name: Option<String>,
}

/// What has become of a replay so far, in deliveries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplayCounters {
    /// Those that it selects: as counted at its creation, or more if it has met more.
    pub matched: u64,
    /// Whether that is all of them. Else there are at least so many.
    pub matched_is_exact: bool,
    /// Made due again.
    pub fed: u64,
    pub skipped: ReplaySkips,
    /// Of those that were fed.
    pub succeeded: u64,
    pub failed: u64,
}

/// What a replay left out, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplaySkips {
    /// Another replay was delivering them.
    pub unfinished: u64,
    /// They succeeded, or no longer match, since the replay was created.
    pub succeeded: u64,
    /// Their event, its content, its day, its integration or the destination is no longer there.
    pub gone: u64,
}

impl ReplaySkips {
    pub fn sum(self) -> u64 {
        self.unfinished + self.succeeded + self.gone
    }
}

impl ReplayCounters {
    /// Those that are still to be fed or skipped.
    pub fn remaining(self) -> u64 {
        self.matched.saturating_sub(self.fed + self.skipped.sum())
    }

    /// Those that were fed and have not ended.
    pub fn under_way(self) -> u64 {
        self.fed.saturating_sub(self.succeeded + self.failed)
    }
}
