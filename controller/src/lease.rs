//! Leader election: of several replicas only the holder of a Lease writes, and only until a deadline of its own.
//!
//! Invariants: a write of the Lease names the resourceVersion that it is based on, so two candidates cannot both
//! take it; a candidate trusts its own clock alone and counts from when it saw the Lease change; the holder stops
//! acting before the others may start, even if it cannot reach the API server or was frozen in the meantime, because
//! [`Leadership::is_held`] compares with a local deadline that only a successful renewal moves. Every acquisition has a
//! higher epoch than all before it; rows are fenced by the epoch, so even a write in flight comes too late. A process
//! that is restarted in its pod does not wait for the previous one, which has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long others wait for a holder that shows no activity.
const DURATION: Duration = Duration::from_secs(15);

/// How long a holder continues after the start of its last successful renewal: less than [`DURATION`], so that it has
/// stopped before another one starts.
const HELD_FOR: Duration = Duration::from_secs(10);

/// How often the holder renews.
const RENEW_EVERY: Duration = Duration::from_secs(4);

/// How often a failed renewal is retried, and how often a candidate polls.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Short enough to go unnoticed, and long enough for the clock to have advanced.
const CLOCK_STEP: Duration = Duration::from_millis(20);

/// The deadline of one attempt. Several fit into [`HELD_FOR`], so a single slow call does not lose the Lease.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The proof that this process may write.
#[derive(Debug, Clone)]
pub struct Leadership {
    /// The number of this acquisition, higher than that of every earlier one.
    pub epoch: i64,
    since: Instant,
    held_until_ms: Arc<AtomicU64>,
}

impl Leadership {
    fn new(epoch: i64, since: Instant) -> Self {
        let leadership = Self { epoch, since, held_until_ms: Arc::default() };
        leadership.extend(since);
        leadership
    }

    fn extend(&self, renewal_began: Instant) {
        let until = renewal_began.saturating_duration_since(self.since) + HELD_FOR;
        self.held_until_ms.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
    }

    fn held_until(&self) -> Instant {
        self.since + Duration::from_millis(self.held_until_ms.load(Ordering::Acquire))
    }

    /// Returns whether this process may still write.
    pub fn is_held(&self) -> bool {
        self.is_held_at(Instant::now())
    }

    fn is_held_at(&self, now: Instant) -> bool {
        now < self.held_until()
    }
}

/// The Lease as a candidate has observed it, by its own clock.
#[derive(Debug, Default)]
struct LeaseObservation {
    /// Holder and renewal time, which change as long as the holder is alive.
    last: Option<(String, Option<MicroTime>)>,
    since: Option<Instant>,
    free_at: Option<Instant>,
}

impl LeaseObservation {
    /// Returns whether the Lease may be taken: nobody holds it, or it has not changed for its duration since it was
    /// first observed in this state.
    fn may_take(&mut self, spec: &LeaseSpec, now: Instant) -> bool {
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder.is_empty() {
            return true;
        }
        let current = (holder, spec.renew_time.clone());
        if self.last.as_ref() != Some(&current) {
            (self.last, self.since) = (Some(current), Some(now));
        }
        let seconds = spec.lease_duration_seconds.unwrap_or_default();
        let duration = u64::try_from(seconds).map_or(DURATION, Duration::from_secs).max(DURATION);
        self.free_at = self.since.map(|since| since + duration);
        self.free_at.is_some_and(|free_at| now > free_at)
    }

    /// Returns how long to wait before the next poll: not long, and until right after the Lease has expired.
    fn next_poll(&self, now: Instant) -> Duration {
        let expiry = self.free_at.map(|free_at| free_at.saturating_duration_since(now) + CLOCK_STEP);
        expiry.map_or(RETRY_EVERY, |expiry| expiry.min(RETRY_EVERY))
    }
}

/// The Lease as one replica uses it.
#[derive(Debug, Clone)]
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: Identity,
}

/// The identity of a holder: a process of a replica.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Common to all processes of one replica, of which at most one runs at a time.
    replica: Option<String>,
    /// Different in every process, so that a restarted one acquires the Lease again, with a new epoch.
    holder: String,
}

impl Identity {
    /// `pod_uid` is the uid of the pod: its container is restarted only after it has ended.
    pub fn new(host: &str, pod_uid: Option<&str>) -> Self {
        let replica = pod_uid.filter(|uid| !uid.is_empty()).map(|uid| format!("{host}_{uid}"));
        let process = Uuid::now_v7();
        let holder = format!("{}_{process}", replica.as_deref().unwrap_or(host));
        Self { replica, holder }
    }

    /// Returns whether the holder is a process of this replica that has ended.
    fn is_earlier_process(&self, holder: &str) -> bool {
        let Some(replica) = &self.replica else { return false };
        holder != self.holder && holder.strip_prefix(replica).is_some_and(|process| process.starts_with('_'))
    }
}

impl Elector {
    pub fn new(api: Api<Lease>, name: &str, identity: Identity) -> Self {
        Self { api, name: name.to_owned(), identity }
    }

    /// Waits until this process holds the Lease. The epoch is above `floor`, the highest one in the database: a Lease
    /// that was deleted starts counting at zero.
    pub async fn acquire(&self, floor: impl AsyncFn() -> i64) -> (Leadership, Lease) {
        let mut observation = LeaseObservation::default();
        loop {
            match timeout(ATTEMPT, self.api.get_opt(&self.name)).await {
                Ok(Ok(found)) => {
                    let spec = found.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
                    let holder = spec.holder_identity.as_deref().unwrap_or_default();
                    if self.identity.is_earlier_process(holder) || observation.may_take(&spec, Instant::now())
                    {
                        let before = i64::from(spec.lease_transitions.unwrap_or_default());
                        let epoch = before.max(floor().await).saturating_add(1);
                        let began = Instant::now();
                        if let Some(lease) = self.take(found, epoch).await {
                            return (Leadership::new(epoch, began), lease);
                        }
                    }
                }
                Ok(Err(error)) => tracing::warn!(%error, "cannot read the Lease"),
                Err(_) => tracing::warn!("reading the Lease timed out"),
            }
            sleep(observation.next_poll(Instant::now())).await;
        }
    }

    async fn take(&self, found: Option<Lease>, epoch: i64) -> Option<Lease> {
        let spec = self.spec(epoch, Some(MicroTime(Timestamp::now())));
        let written = match found {
            None => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(spec) };
                timeout(ATTEMPT, self.api.create(&PostParams::default(), &lease)).await
            }
            Some(found) => self.put(&Lease { spec: Some(spec), ..found }).await,
        };
        match written {
            Ok(Ok(lease)) => Some(lease),
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_already_exists() => None,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot acquire the Lease");
                None
            }
            Err(_) => {
                tracing::warn!("acquiring the Lease timed out");
                None
            }
        }
    }

    async fn put(&self, lease: &Lease) -> Result<kube::Result<Lease>, tokio::time::error::Elapsed> {
        timeout(ATTEMPT, self.api.replace(&self.name, &PostParams::default(), lease)).await
    }

    fn spec(&self, epoch: i64, acquire_time: Option<MicroTime>) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.holder.clone()),
            acquire_time,
            renew_time: Some(MicroTime(Timestamp::now())),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            lease_transitions: Some(i32::try_from(epoch).unwrap_or(i32::MAX)),
            ..LeaseSpec::default()
        }
    }

    /// Renews the Lease until stopped, and then releases it; returns early if the Lease is lost.
    pub async fn keep(&self, leadership: &Leadership, mut lease: Lease, stop: CancellationToken) -> LeaseEnd {
        let mut next = RENEW_EVERY;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.release(leadership, lease).await;
                    return LeaseEnd::Released;
                }
                () = sleep_until(leadership.held_until()) => return LeaseEnd::Lost,
                () = sleep(next) => {}
            }
            next = RETRY_EVERY;
            let began = Instant::now();
            let acquired = lease.spec.as_ref().and_then(|spec| spec.acquire_time.clone());
            let renewed = Lease { spec: Some(self.spec(leadership.epoch, acquired)), ..lease.clone() };
            match self.put(&renewed).await {
                // A process that was frozen during the call must not extend a leadership that has expired meanwhile.
                Ok(Ok(written)) if leadership.is_held() => {
                    leadership.extend(began);
                    lease = written;
                    next = RENEW_EVERY;
                }
                Ok(Ok(_)) => return LeaseEnd::Lost,
                Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_not_found() => {
                    match self.read_holder().await {
                        CurrentHolder::ThisProcess(current) => lease = *current,
                        CurrentHolder::Other => return LeaseEnd::Lost,
                        CurrentHolder::Unknown => {}
                    }
                }
                Ok(Err(error)) => tracing::warn!(%error, "cannot renew the Lease"),
                Err(_) => tracing::warn!("renewing the Lease timed out"),
            }
        }
    }

    async fn read_holder(&self) -> CurrentHolder {
        match timeout(ATTEMPT, self.api.get_opt(&self.name)).await {
            Ok(Ok(Some(lease))) => {
                let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
                if holder == Some(&self.identity.holder) {
                    CurrentHolder::ThisProcess(Box::new(lease))
                } else {
                    CurrentHolder::Other
                }
            }
            Ok(Ok(None)) => CurrentHolder::Other,
            Ok(Err(_)) | Err(_) => CurrentHolder::Unknown,
        }
    }

    async fn release(&self, leadership: &Leadership, lease: Lease) {
        if !leadership.is_held() {
            return;
        }
        let mut spec = self.spec(leadership.epoch, None);
        spec.holder_identity = Some(String::new());
        match self.put(&Lease { spec: Some(spec), ..lease }).await {
            Ok(Ok(_)) => tracing::info!("released the Lease"),
            Ok(Err(error)) => tracing::warn!(%error, "cannot release the Lease; it will expire"),
            Err(_) => tracing::warn!("releasing the Lease timed out; it will expire"),
        }
    }
}

/// The holder according to the API server.
enum CurrentHolder {
    ThisProcess(Box<Lease>),
    Other,
    Unknown,
}

/// The end of holding the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEnd {
    /// Released on request.
    Released,
    /// Another process holds it, or it could not be renewed in time. Nothing may be written any more.
    Lost,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(holder: &str, renewed_second: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            renew_time: Timestamp::from_second(renewed_second).ok().map(MicroTime),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_free_lease_is_taken_at_once() {
        assert!(LeaseObservation::default().may_take(&LeaseSpec::default(), Instant::now()));
        assert!(LeaseObservation::default().may_take(&spec("", 1), Instant::now()));
    }

    #[test]
    fn a_held_lease_is_taken_when_it_has_not_changed_for_its_duration() {
        let (mut observation, start) = (LeaseObservation::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        // The times in the Lease are from another clock and are ignored: here they are long past.
        assert!(!observation.may_take(&spec("other", 1), start));
        assert!(!observation.may_take(&spec("other", 1), at(15)));
        assert!(!observation.may_take(&spec("other", 2), at(16)), "it was renewed");
        assert!(!observation.may_take(&spec("other", 2), at(31)));
        assert!(observation.may_take(&spec("other", 2), at(32)));
        assert!(!observation.may_take(&spec("third", 2), at(33)), "another candidate was faster");
    }

    #[test]
    fn only_a_process_of_the_same_pod_takes_the_lease_early() {
        let identity = |pod: Option<&str>| Identity::new("host", pod);
        let (before, restarted) = (identity(Some("pod-1")), identity(Some("pod-1")));
        assert_ne!(before.holder, restarted.holder);
        assert!(restarted.is_earlier_process(&before.holder));
        assert!(!restarted.is_earlier_process(&restarted.holder));
        for other in [identity(Some("pod-10")), identity(Some("pod")), identity(None), identity(Some(""))] {
            assert!(!restarted.is_earlier_process(&other.holder), "{other:?}");
            assert!(!other.is_earlier_process(&restarted.holder), "{other:?}");
        }
        assert!(!identity(None).is_earlier_process(&identity(None).holder), "it is not known to have ended");
    }

    #[test]
    fn a_leadership_ends_by_itself_before_others_may_take_over() {
        let start = Instant::now();
        let (leadership, at) = (Leadership::new(1, start), |seconds| start + Duration::from_secs(seconds));
        assert!(leadership.is_held_at(at(9)));
        assert!(!leadership.is_held_at(at(10)));
        leadership.extend(at(8));
        assert!(leadership.is_held_at(at(17)));
        assert!(!leadership.is_held_at(at(18)));
        assert!(HELD_FOR + ATTEMPT < DURATION);
    }
}
