//! The process's memory of each Replay, kept until the object is gone. Correctness does not depend on any of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grapnel_core::ids::ReplayJobId;
use grapnel_core::replay::{DesiredState, ReplayState};
use grapnel_crds::ReplayStatus;
use grapnel_store::replay_jobs::{ReplayCounters, ReplayJob};
use uuid::Uuid;

use crate::memory::{PassMemory, StatusMemory};

/// The memory of all Replays.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<HashMap<Uuid, ReplayMemory>>);

/// The memory of one Replay.
#[derive(Debug, Default)]
pub(super) struct ReplayMemory {
    pub(super) pass: PassMemory,
    pub(super) status: StatusMemory<ReplayStatus>,
    /// The state and the rate that the job has taken over from the object.
    pub(super) followed: Option<(DesiredState, u32)>,
    /// What was reported last, while the job goes on.
    pub(super) reported: Option<ReportedJob>,
}

/// What was reported of a job, and when by the clock of the process.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ReportedJob {
    pub(super) id: ReplayJobId,
    pub(super) at: Duration,
    state: ReplayState,
    reason: Option<String>,
    rate_per_second: u32,
    counters: ReplayCounters,
}

impl ReportedJob {
    pub(super) fn new(job: &ReplayJob, at: Duration) -> Self {
        Self {
            id: job.id,
            at,
            state: job.state,
            reason: job.state_reason.clone(),
            rate_per_second: job.rate_per_second,
            counters: job.counters,
        }
    }

    /// Returns whether the job is in another state, or at another rate. That is reported at once.
    pub(super) fn has_turned(&self, job: &ReplayJob) -> bool {
        (self.state, self.rate_per_second) != (job.state, job.rate_per_second)
            || self.reason != job.state_reason
    }

    /// Returns whether the job has made progress.
    pub(super) fn has_progressed(&self, job: &ReplayJob) -> bool {
        self.counters != job.counters
    }
}

impl Memory {
    /// Calls a function with the memory of one Replay.
    pub(super) fn with<T>(&self, uid: Uuid, use_it: impl FnOnce(&mut ReplayMemory) -> T) -> T {
        use_it(self.lock().entry(uid).or_default())
    }

    pub(super) fn forget(&self, uid: Uuid) {
        self.lock().remove(&uid);
    }

    /// Forgets all Replays except these.
    pub(super) fn retain(&self, uids: &BTreeSet<Uuid>) {
        self.lock().retain(|uid, _| uids.contains(uid));
    }

    /// Returns the jobs that go on, with what was reported of them.
    pub(super) fn reported(&self) -> Vec<(Uuid, ReportedJob)> {
        let memory = self.lock();
        memory.iter().filter_map(|(uid, of_one)| Some((*uid, of_one.reported.clone()?))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, ReplayMemory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
