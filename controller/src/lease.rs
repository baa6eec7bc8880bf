//! Who of several replicas writes: the holder of a Lease, and only until a deadline of its own.
//!
//! What always holds: a write of the Lease names the resourceVersion that it is based on, so two candidates cannot both
//! take it; a candidate trusts its own clock alone and counts from when it saw the Lease change; the holder stops
//! acting before the others may start, also when it cannot reach the API server or was frozen meanwhile, because
//! [`Lead::is_held`] compares with a local deadline that only a successful renewal moves. Every acquisition has a higher
//! number than all before it; rows are fenced by that number, so even a write under way comes too late. A process that
//! is restarted in its pod does not wait for the one before, which has ended.

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

/// How long others wait for a holder that they hear nothing of.
const DURATION: Duration = Duration::from_secs(15);

/// How long a holder goes on after the start of its last successful renewal: less than [`DURATION`], so that it has
/// stopped before another one starts.
const HELD_FOR: Duration = Duration::from_secs(10);

/// How often the holder renews.
const RENEW_EVERY: Duration = Duration::from_secs(4);

/// How often a failed renewal is repeated, and how often a candidate looks.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Less than anyone notices, and enough for a clock to have moved on.
const MOMENT: Duration = Duration::from_millis(20);

/// One attempt; several fit into [`HELD_FOR`], so a single slow call loses nothing.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The proof of being the one that may write.
#[derive(Debug, Clone)]
pub struct Lead {
    /// The number of this acquisition: higher than that of every one before.
    pub epoch: i64,
    since: Instant,
    held_until_ms: Arc<AtomicU64>,
}

impl Lead {
    fn new(epoch: i64, since: Instant) -> Self {
        let lead = Self { epoch, since, held_until_ms: Arc::default() };
        lead.extend(since);
        lead
    }

    fn extend(&self, renewal_began: Instant) {
        let until = renewal_began.saturating_duration_since(self.since) + HELD_FOR;
        self.held_until_ms.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
    }

    fn held_until(&self) -> Instant {
        self.since + Duration::from_millis(self.held_until_ms.load(Ordering::Acquire))
    }

    /// Whether this process may still write.
    pub fn is_held(&self) -> bool {
        self.is_held_at(Instant::now())
    }

    fn is_held_at(&self, now: Instant) -> bool {
        now < self.held_until()
    }
}

/// What a candidate has seen of the Lease, by its own clock.
#[derive(Debug, Default)]
struct Seen {
    /// Holder and renewal time: what changes whenever the holder lives.
    last: Option<(String, Option<MicroTime>)>,
    since: Option<Instant>,
    free_at: Option<Instant>,
}

impl Seen {
    /// Whether the Lease may be taken: nobody holds it, or it has not changed for its duration since it was first seen so.
    fn may_take(&mut self, spec: &LeaseSpec, now: Instant) -> bool {
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder.is_empty() {
            return true;
        }
        let seen = (holder, spec.renew_time.clone());
        if self.last.as_ref() != Some(&seen) {
            (self.last, self.since) = (Some(seen), Some(now));
        }
        let seconds = spec.lease_duration_seconds.unwrap_or_default();
        let duration = u64::try_from(seconds).map_or(DURATION, Duration::from_secs).max(DURATION);
        self.free_at = self.since.map(|since| since + duration);
        self.free_at.is_some_and(|free_at| now > free_at)
    }

    /// When to look again: soon, and right after the Lease has run out.
    fn next_look(&self, now: Instant) -> Duration {
        let runs_out = self.free_at.map(|free_at| free_at.saturating_duration_since(now) + MOMENT);
        runs_out.map_or(RETRY_EVERY, |runs_out| runs_out.min(RETRY_EVERY))
    }
}

/// The Lease as one replica uses it.
#[derive(Debug, Clone)]
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: Identity,
}

/// Who holds the Lease: a process of a replica.
#[derive(Debug, Clone)]
pub struct Identity {
    /// What the processes of one replica have in common. At most one of them runs at a time.
    replica: Option<String>,
    /// Different in every process, so that a restarted one takes the Lease anew, with a new epoch.
    holder: String,
}

impl Identity {
    /// `pod_uid` is the uid of the pod: its container is not started again before it has ended.
    pub fn new(host: &str, pod_uid: Option<&str>) -> Self {
        let replica = pod_uid.filter(|uid| !uid.is_empty()).map(|uid| format!("{host}_{uid}"));
        let process = Uuid::now_v7();
        let holder = format!("{}_{process}", replica.as_deref().unwrap_or(host));
        Self { replica, holder }
    }

    /// Whether the holder is a process of this replica that has ended.
    fn is_own_before(&self, holder: &str) -> bool {
        let Some(replica) = &self.replica else { return false };
        holder != self.holder && holder.strip_prefix(replica).is_some_and(|process| process.starts_with('_'))
    }
}

impl Elector {
    pub fn new(api: Api<Lease>, name: &str, identity: Identity) -> Self {
        Self { api, name: name.to_owned(), identity }
    }

    /// Waits until the Lease is this process's. The number is above `floor`, which is the highest that is in the
    /// database: a Lease that was deleted counts from the beginning.
    pub async fn acquire(&self, floor: impl AsyncFn() -> i64) -> (Lead, Lease) {
        let mut seen = Seen::default();
        loop {
            match timeout(ATTEMPT, self.api.get_opt(&self.name)).await {
                Ok(Ok(found)) => {
                    let spec = found.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
                    let holder = spec.holder_identity.as_deref().unwrap_or_default();
                    if self.identity.is_own_before(holder) || seen.may_take(&spec, Instant::now()) {
                        let before = i64::from(spec.lease_transitions.unwrap_or_default());
                        let epoch = before.max(floor().await).saturating_add(1);
                        let began = Instant::now();
                        if let Some(lease) = self.take(found, epoch).await {
                            return (Lead::new(epoch, began), lease);
                        }
                    }
                }
                Ok(Err(error)) => tracing::warn!(%error, "the Lease cannot be read"),
                Err(_) => tracing::warn!("the Lease was not read in time"),
            }
            sleep(seen.next_look(Instant::now())).await;
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
                tracing::warn!(%error, "the Lease cannot be taken");
                None
            }
            Err(_) => {
                tracing::warn!("the Lease was not taken in time");
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

    /// Renews until told to stop, when the Lease is given back; answers early when it was lost.
    pub async fn keep(&self, lead: &Lead, mut lease: Lease, stop: CancellationToken) -> Kept {
        let mut next = RENEW_EVERY;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.release(lead, lease).await;
                    return Kept::Released;
                }
                () = sleep_until(lead.held_until()) => return Kept::Lost,
                () = sleep(next) => {}
            }
            next = RETRY_EVERY;
            let began = Instant::now();
            let acquired = lease.spec.as_ref().and_then(|spec| spec.acquire_time.clone());
            let renewed = Lease { spec: Some(self.spec(lead.epoch, acquired)), ..lease.clone() };
            match self.put(&renewed).await {
                // A process that was frozen during the call must not extend what has run out meanwhile.
                Ok(Ok(written)) if lead.is_held() => {
                    lead.extend(began);
                    lease = written;
                    next = RENEW_EVERY;
                }
                Ok(Ok(_)) => return Kept::Lost,
                Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_not_found() => {
                    match self.read_own().await {
                        Reread::Own(current) => lease = *current,
                        Reread::Others => return Kept::Lost,
                        Reread::Unknown => {}
                    }
                }
                Ok(Err(error)) => tracing::warn!(%error, "the Lease cannot be renewed"),
                Err(_) => tracing::warn!("the Lease was not renewed in time"),
            }
        }
    }

    async fn read_own(&self) -> Reread {
        match timeout(ATTEMPT, self.api.get_opt(&self.name)).await {
            Ok(Ok(Some(lease))) => {
                let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
                if holder == Some(&self.identity.holder) {
                    Reread::Own(Box::new(lease))
                } else {
                    Reread::Others
                }
            }
            Ok(Ok(None)) => Reread::Others,
            Ok(Err(_)) | Err(_) => Reread::Unknown,
        }
    }

    async fn release(&self, lead: &Lead, lease: Lease) {
        if !lead.is_held() {
            return;
        }
        let mut spec = self.spec(lead.epoch, None);
        spec.holder_identity = Some(String::new());
        match self.put(&Lease { spec: Some(spec), ..lease }).await {
            Ok(Ok(_)) => tracing::info!("released the Lease"),
            Ok(Err(error)) => tracing::warn!(%error, "the Lease cannot be released; it runs out"),
            Err(_) => tracing::warn!("the Lease was not released in time; it runs out"),
        }
    }
}

enum Reread {
    Own(Box<Lease>),
    Others,
    Unknown,
}

/// How keeping the Lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Given back on request.
    Released,
    /// Another one has it, or it could not be renewed in time. Nothing may be written any more.
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
        assert!(Seen::default().may_take(&LeaseSpec::default(), Instant::now()));
        assert!(Seen::default().may_take(&spec("", 1), Instant::now()));
    }

    #[test]
    fn a_held_lease_is_taken_when_it_has_not_changed_for_its_duration() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        // The times in the Lease are of another clock and do not count: here they are long past.
        assert!(!seen.may_take(&spec("other", 1), start));
        assert!(!seen.may_take(&spec("other", 1), at(15)));
        assert!(!seen.may_take(&spec("other", 2), at(16)), "it was renewed");
        assert!(!seen.may_take(&spec("other", 2), at(31)));
        assert!(seen.may_take(&spec("other", 2), at(32)));
        assert!(!seen.may_take(&spec("third", 2), at(33)), "another one was faster");
    }

    #[test]
    fn only_a_process_of_the_same_pod_goes_before_the_others() {
        let identity = |pod: Option<&str>| Identity::new("host", pod);
        let (before, restarted) = (identity(Some("pod-1")), identity(Some("pod-1")));
        assert_ne!(before.holder, restarted.holder);
        assert!(restarted.is_own_before(&before.holder));
        assert!(!restarted.is_own_before(&restarted.holder));
        for other in [identity(Some("pod-10")), identity(Some("pod")), identity(None), identity(Some(""))] {
            assert!(!restarted.is_own_before(&other.holder), "{other:?}");
            assert!(!other.is_own_before(&restarted.holder), "{other:?}");
        }
        assert!(!identity(None).is_own_before(&identity(None).holder), "nothing tells that it has ended");
    }

    #[test]
    fn a_lead_ends_by_itself_before_others_may_take_over() {
        let start = Instant::now();
        let (lead, at) = (Lead::new(1, start), |seconds| start + Duration::from_secs(seconds));
        assert!(lead.is_held_at(at(9)));
        assert!(!lead.is_held_at(at(10)));
        lead.extend(at(8));
        assert!(lead.is_held_at(at(17)));
        assert!(!lead.is_held_at(at(18)));
        assert!(HELD_FOR + ATTEMPT < DURATION);
    }
}
