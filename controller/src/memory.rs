//! The process's memory of each object: one struct for each step, kept until the process ends.
//!
//! Correctness does not depend on any of it: after a restart each step finds out again what it needs, at the cost of a
//! few calls. The lock is never held across an await.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grapnel_core::ids::IntegrationId;
use grapnel_crds::{IntegrationStatus, UnusedSecret};
use grapnel_store::integrations::status::ObjectStatus;

use crate::filter_problems::FilterProblem;
use crate::replicas::ScalingState;
use crate::services::endpoints::ServiceProblem;

/// How long a comparison of the row stays valid: less than the shortest time between two resyncs.
const COMPARISON_VALID: Duration = Duration::from_secs(450);

/// How many replaced versions of an object are kept: the cache catches up soon.
const REPLACED_VERSIONS: usize = 4;

/// The memory of all objects.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<IntegrationId, ObjectMemory>>);

/// The memory of one object, by step.
#[derive(Debug, Default)]
pub struct ObjectMemory {
    pub pass: PassMemory,
    pub registration: RegistrationMemory,
    pub queues: QueueMemory,
    pub status: StatusMemory,
    pub scaling: ScalingState,
    /// Absent before the first poll.
    pub secrets: Option<SecretFindings>,
    pub services: ServicesMemory,
    /// Absent before the first poll.
    pub filter_problems: Option<Vec<FilterProblem>>,
    pub copy: CopyMemory,
}

impl Memory {
    /// Calls a function with the memory of one object.
    pub fn with<T>(&self, id: IntegrationId, use_it: impl FnOnce(&mut ObjectMemory) -> T) -> T {
        use_it(self.lock().entry(id).or_default())
    }

    pub fn forget(&self, id: IntegrationId) {
        self.lock().remove(&id);
    }

    /// Forgets all objects except these.
    pub fn retain(&self, ids: &BTreeSet<IntegrationId>) {
        self.lock().retain(|id, _| ids.contains(id));
    }

    /// Counts the objects that failed and wait for a retry.
    pub fn in_backoff(&self) -> usize {
        self.lock().values().filter(|memory| memory.pass.failures > 0).count()
    }

    /// Returns what was reported about every object that has had a pass.
    pub fn reported(&self) -> Vec<Reported> {
        let reported = |(id, memory): (&IntegrationId, &ObjectMemory)| {
            let CopyMemory { status, backlog } = &memory.copy;
            Some(Reported { id: *id, status: status.clone()?, backlog: *backlog })
        };
        self.lock().iter().filter_map(reported).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IntegrationId, ObjectMemory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be copied to the database.
#[derive(Debug, Default)]
pub struct CopyMemory {
    /// The status that the object has. Absent before the first pass.
    pub status: Option<Arc<ObjectStatus>>,
    /// Deliveries in the queues. Absent before the first tick of the scaler, and while they cannot be read.
    pub backlog: Option<i64>,
}

/// What was reported about an object.
#[derive(Debug, Clone)]
pub struct Reported {
    pub id: IntegrationId,
    pub status: Arc<ObjectStatus>,
    pub backlog: Option<i64>,
}

/// The last pass over the object.
#[derive(Debug, Default)]
pub struct PassMemory {
    /// Consecutive failures.
    failures: u32,
    /// The version of the object that was reconciled last.
    version: Option<String>,
}

impl PassMemory {
    pub fn begin(&mut self, version: Option<String>) {
        self.version = version;
    }

    pub fn version(&self) -> Option<&String> {
        self.version.as_ref()
    }

    /// Counts a failure and returns how many there were in a row.
    pub fn fail(&mut self) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.failures
    }

    pub fn succeed(&mut self) {
        self.failures = 0;
    }

    /// Returns whether no pass has begun on this version, and none waits for a retry.
    pub fn has_missed(&self, version: Option<&str>) -> bool {
        self.failures == 0 && self.version.as_deref() != version
    }
}

/// The inputs of the row when it was last compared with them.
#[derive(Debug, Default)]
pub struct RegistrationMemory {
    compared: Option<RowComparison>,
    secret_changes: u64,
    /// The warning about the secrets as of the comparison.
    secret_warning: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct RowComparison {
    generation: Option<i64>,
    secret_changes: u64,
    /// By the clock of the process.
    at: Duration,
}

impl RegistrationMemory {
    /// Notes that a Secret of the object changed. To be called before the pass is triggered: a pass that has already
    /// read the old value is then not the last one.
    pub fn note_secret_change(&mut self) {
        self.secret_changes = self.secret_changes.wrapping_add(1);
    }

    /// Returns how often a Secret of the object has changed. Must be read before the Secrets are.
    pub fn secret_changes(&self) -> u64 {
        self.secret_changes
    }

    /// Returns whether the row was compared with all of its inputs and none has changed since.
    pub fn is_current(&self, generation: Option<i64>, now: Duration) -> bool {
        self.compared.is_some_and(|compared| {
            compared.generation == generation
                && compared.secret_changes == self.secret_changes
                && now.saturating_sub(compared.at) < COMPARISON_VALID
        })
    }

    /// Notes that the row agrees with this generation and with the Secrets as of this count of changes, and the warning about
    /// these Secrets.
    pub fn record(
        &mut self,
        generation: Option<i64>,
        secret_changes: u64,
        secret_warning: Option<String>,
        at: Duration,
    ) {
        self.compared = Some(RowComparison { generation, secret_changes, at });
        self.secret_warning = secret_warning;
    }

    /// Returns the warning about the secrets as of the last comparison.
    pub fn secret_warning(&self) -> Option<String> {
        self.secret_warning.clone()
    }

    /// Returns whether the row has been written for this generation.
    pub fn has_generation(&self, generation: Option<i64>) -> bool {
        generation.is_some() && self.compared.and_then(|compared| compared.generation) == generation
    }
}

/// The queues that were declared, and that every reading since has shown.
#[derive(Debug, Default)]
pub struct QueueMemory {
    declared: BTreeSet<String>,
}

impl QueueMemory {
    pub fn declared(&self) -> &BTreeSet<String> {
        &self.declared
    }

    pub fn set_declared(&mut self, queues: BTreeSet<String>) {
        self.declared = queues;
    }

    /// Forgets the queues that a reading does not show. Returns whether there were any.
    pub fn forget_missing(&mut self, is_shown: impl Fn(&str) -> bool) -> bool {
        let before = self.declared.len();
        self.declared.retain(|queue| is_shown(queue));
        self.declared.len() < before
    }
}

/// The findings of the last poll about the verification secrets of an object, and about its destinations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretFindings {
    /// Whether a captured secret is not in its Secret yet.
    pub capture_pending: bool,
    pub unused: Vec<UnusedSecret>,
    /// The destinations that answered 410 to this generation.
    pub gone: Vec<String>,
}

/// The state of the Services of an object that was reported last.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum ServicesMemory {
    /// None yet, or they could not be read.
    #[default]
    Unread,
    Read(Option<ServiceProblem>),
}

/// The status that was written last. While the cache still shows a version of the object that the write replaced, the
/// cache is behind.
#[derive(Debug)]
pub struct StatusMemory<S = IntegrationStatus> {
    written: Option<S>,
    replaced: Vec<String>,
}

impl<S> Default for StatusMemory<S> {
    fn default() -> Self {
        Self { written: None, replaced: Vec::new() }
    }
}

impl<S> StatusMemory<S> {
    /// Returns the status that replaced the one of this version, if any.
    pub fn newer_than(&self, version: &str) -> Option<&S> {
        self.written.as_ref().filter(|_| self.replaced.iter().any(|replaced| replaced == version))
    }

    /// Records a write and the versions that it replaced.
    pub fn record(&mut self, status: S, versions: impl IntoIterator<Item = String>) {
        let before = std::mem::take(&mut self.replaced);
        self.replaced = versions.into_iter().chain(before).take(REPLACED_VERSIONS).collect();
        self.written = Some(status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_row_is_compared_again_when_an_input_changed_or_after_a_while() {
        let mut registration = RegistrationMemory::default();
        assert!(!registration.is_current(Some(1), at(0)), "never compared");
        registration.record(Some(1), registration.secret_changes(), None, at(0));
        assert!(registration.is_current(Some(1), at(449)));
        assert!(!registration.is_current(Some(1), at(450)));
        assert!(!registration.is_current(Some(2), at(1)));
        registration.note_secret_change();
        assert!(!registration.is_current(Some(1), at(1)));
    }

    #[test]
    fn a_secret_that_changes_while_it_is_read_is_compared_again() {
        let mut registration = RegistrationMemory::default();
        let secret_changes = registration.secret_changes();
        registration.note_secret_change();
        registration.record(Some(1), secret_changes, None, at(0));
        assert!(!registration.is_current(Some(1), at(0)));
        assert!(registration.has_generation(Some(1)) && !registration.has_generation(None));
    }

    #[test]
    fn a_written_status_is_newer_than_the_last_versions_that_it_replaced() {
        let mut memory = StatusMemory::default();
        assert_eq!(memory.newer_than("1"), None);
        for version in 1..=6 {
            memory.record(IntegrationStatus::default(), [version.to_string()]);
        }
        assert!(memory.newer_than("6").is_some() && memory.newer_than("3").is_some());
        assert_eq!(memory.newer_than("2"), None);
        assert_eq!(
            memory.newer_than("7"),
            None,
            "the cache shows the status that was written, or a later one"
        );
    }

    #[test]
    fn an_object_is_missed_only_without_a_retry_in_sight() {
        let mut pass = PassMemory::default();
        assert!(pass.has_missed(Some("1")));
        pass.begin(Some("1".to_owned()));
        assert!(!pass.has_missed(Some("1")) && pass.has_missed(Some("2")));
        assert_eq!((pass.fail(), pass.fail()), (1, 2));
        assert!(!pass.has_missed(Some("2")), "the retry comes anyway");
        pass.succeed();
        assert!(pass.has_missed(Some("2")));
    }
}
