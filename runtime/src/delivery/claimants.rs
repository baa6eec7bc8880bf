//! Who claims, so that the deliveries of a dead worker need not wait for the end of their leases.
//!
//! A claimant is a session of this worker with PostgreSQL, which holds an advisory lock, together with a connection to RabbitMQ, which
//! has an exclusive queue. Others see both end, and then take its deliveries over (`dispatch/abandoned.rs`). What is connected anew
//! is another session or another connection, and another claimant has it: so an end that others have seen is final.
//!
//! As long as one of the two exists, nobody else gets the deliveries. Each is proven again and again, and when neither was for
//! [`LOST_AFTER`], others may have seen both end: the attempts under way are dropped, before anybody else may send them.
//!
//! Without a claimant, a claim runs to the end of its lease: when a connection is missing, or the right to declare the queue, or when a
//! pooler hands out sessions by the transaction.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use grapnel_core::error_chain::chain;
use grapnel_core::ids::{ClaimantId, IntegrationId};
use grapnel_platform::queue::{Presence, QueueConnection};
use grapnel_store::Database;
use grapnel_store::claimants::{self as rows, ClaimantRow, ClaimantSession, SessionState};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

mod link;

use self::link::Link;

/// A session and a connection of which neither was proven for this long count as lost: longer than a busy machine keeps a process waiting,
/// and shorter than who takes over waits.
pub(super) const LOST_AFTER: Duration = Duration::from_millis(2_500);

/// How often a session and a connection are proven.
const PROOF_PERIOD: Duration = Duration::from_millis(500);

/// How often losses are looked for.
const LOSS_POLL: Duration = Duration::from_millis(100);

/// How soon a session or a connection is made again, and after many failures.
const RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(10);

/// How often claimants that are not needed any more are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// How long a worker that starts waits for its first claimant.
const FIRST: Duration = Duration::from_secs(2);

/// Whose claims others can take over when both of its links have ended. It is needed as long as somebody has it.
#[derive(Debug)]
pub(super) struct Claimant {
    pub id: ClaimantId,
    session: Arc<Link<i64>>,
    presence: Arc<Link<String>>,
    lost: CancellationToken,
}

impl Claimant {
    /// Does some work. `None`: dropped it, since others may do it now.
    pub(super) async fn unless_lost<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.lost.run_until_cancelled(work).await
    }

    fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }
}

/// A handle that tells who claims now. All clones share it.
#[derive(Debug, Clone)]
pub(super) struct Claimants(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    current: ArcSwapOption<Claimant>,
    /// The current one, and earlier ones that may have deliveries.
    known: Mutex<Vec<Arc<Claimant>>>,
    first: CancellationToken,
}

impl Claimants {
    /// Returns the current claimant, if there is one.
    pub(super) fn current(&self) -> Option<Arc<Claimant>> {
        self.0.current.load_full().filter(|claimant| !claimant.is_lost())
    }

    /// Waits for the first claimant, but not for long: without one, deliveries are claimed all the same.
    pub(super) async fn wait_for_first(&self) {
        if timeout(FIRST, self.0.first.cancelled()).await.is_err() {
            tracing::warn!("claims run to the end of their leases if this worker is killed, for now");
        }
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Vec<Arc<Claimant>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task behind [`Claimants`].
#[derive(Debug)]
pub(super) struct ClaimantsTask {
    shared: Arc<Shared>,
    db: Database,
    queues: Arc<QueueConnection>,
    queue_prefix: String,
    only: Option<IntegrationId>,
}

/// Returns the claimants of a worker and the task that must run for them. `queues` is the connection that consumes.
pub(super) fn new(
    db: Database,
    queues: Arc<QueueConnection>,
    queue_prefix: String,
    only: Option<IntegrationId>,
) -> (Claimants, ClaimantsTask) {
    let shared = Arc::<Shared>::default();
    (Claimants(Arc::clone(&shared)), ClaimantsTask { shared, db, queues, queue_prefix, only })
}

type CurrentLink<T> = Option<Arc<Link<T>>>;

impl ClaimantsTask {
    /// Keeps a claimant until the token is cancelled, when nothing is claimed any more.
    pub(super) async fn run(self, stop: CancellationToken) {
        let ((session, its_session), (presence, its_presence)) = (watch::channel(None), watch::channel(None));
        let kept = async {
            tokio::join!(
                self.keep_session(session),
                self.keep_presence(presence),
                self.follow(its_session, its_presence),
                self.watch_losses(),
            )
        };
        stop.run_until_cancelled(kept).await;
        self.shared.current.store(None);
        let mut unused = Unused::default();
        unused.add(&mut self.shared.known());
        unused.report(&self.db).await;
    }

    /// Keeps a session with PostgreSQL.
    async fn keep_session(&self, current: watch::Sender<CurrentLink<i64>>) {
        let mut wait = RETRY;
        loop {
            let (number, began) = (rand::random(), Instant::now());
            match ClaimantSession::begin(&self.db, number).await {
                Ok(mut session) => {
                    wait = RETRY;
                    let link = Arc::new(Link::new(number, began));
                    current.send_replace(Some(Arc::clone(&link)));
                    let last = prove_session(&mut session, &link).await;
                    current.send_replace(None);
                    if last == Some(SessionState::Shared) {
                        tracing::warn!(
                            "the pooler before PostgreSQL hands out sessions by the transaction: if this worker is killed, its claims \
                             run to the end of their leases"
                        );
                        self.withdraw(&link).await;
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "no session for claimants");
                    wait = (wait * 2).min(MAX_RETRY);
                }
            }
            sleep(wait).await;
        }
    }

    /// Withdraws the claimants of a session that proves nothing.
    async fn withdraw(&self, session: &Arc<Link<i64>>) {
        let ids: Vec<_> = {
            let known = self.shared.known();
            known.iter().filter(|claimant| Arc::ptr_eq(&claimant.session, session)).map(|it| it.id).collect()
        };
        while let Err(error) = rows::remove(&self.db, &ids).await {
            tracing::warn!(error = %chain(&error), "claimants cannot be withdrawn");
            sleep(RETRY).await;
        }
    }

    /// Keeps a queue on the connection to RabbitMQ.
    async fn keep_presence(&self, current: watch::Sender<CurrentLink<String>>) {
        let mut wait = RETRY;
        loop {
            let began = Instant::now();
            let queue = grapnel_crds::names::presence_queue_name(&self.queue_prefix, rand::random());
            match Presence::declare(&self.queues, queue.clone()).await {
                Ok(presence) => {
                    wait = RETRY;
                    let link = Arc::new(Link::new(queue, began));
                    current.send_replace(Some(Arc::clone(&link)));
                    prove_presence(&presence, &link).await;
                    current.send_replace(None);
                }
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "no exclusive queue for claimants");
                    wait = (wait * 2).min(MAX_RETRY);
                }
            }
            sleep(wait).await;
        }
    }

    /// Makes a claimant of each new pair, and forgets those that have no deliveries any more.
    async fn follow(
        &self,
        mut session: watch::Receiver<CurrentLink<i64>>,
        mut presence: watch::Receiver<CurrentLink<String>>,
    ) {
        let mut unused = Unused::default();
        loop {
            let links = (session.borrow_and_update().clone(), presence.borrow_and_update().clone());
            let current = self.shared.current.load_full();
            match links {
                (Some(session), Some(presence)) if !is_of(current.as_deref(), &session, &presence) => {
                    self.shared.current.store(None);
                    self.register(session, presence).await;
                }
                (Some(_), Some(_)) => {}
                _ => self.shared.current.store(None),
            }
            drop(current);
            unused.add(&mut self.shared.known());
            unused.report(&self.db).await;
            tokio::select! {
                Ok(()) = session.changed() => {}
                Ok(()) = presence.changed() => {}
                () = sleep(HOUSEKEEPING) => {}
            }
        }
    }

    async fn register(&self, session: Arc<Link<i64>>, presence: Arc<Link<String>>) {
        let id = ClaimantId::generate();
        let row = ClaimantRow {
            id,
            session: *session.name(),
            presence: presence.name().clone(),
            integration_id: self.only,
            is_given_up: false,
        };
        if let Err(error) = rows::register(&self.db, &row).await {
            tracing::debug!(error = %chain(&error), "the claimant cannot be stored");
            return;
        }
        let claimant = Arc::new(Claimant { id, session, presence, lost: CancellationToken::new() });
        self.shared.known().push(Arc::clone(&claimant));
        self.shared.current.store(Some(claimant));
        self.shared.first.cancel();
    }

    /// Has the attempts of a claimant dropped when both of its links are lost.
    async fn watch_losses(&self) {
        loop {
            sleep(LOSS_POLL).await;
            let now = Instant::now();
            for claimant in self.shared.known().iter().filter(|claimant| !claimant.is_lost()) {
                if claimant.session.is_lost(now) && claimant.presence.is_lost(now) {
                    tracing::warn!("PostgreSQL and RabbitMQ are lost: attempts under way are dropped");
                    claimant.lost.cancel();
                }
            }
        }
    }
}

fn is_of(claimant: Option<&Claimant>, session: &Arc<Link<i64>>, presence: &Arc<Link<String>>) -> bool {
    claimant.is_some_and(|claimant| {
        Arc::ptr_eq(&claimant.session, session)
            && Arc::ptr_eq(&claimant.presence, presence)
            && !claimant.is_lost()
    })
}

/// Proves a session until it ends, and returns what it was then; `None`: it could not be asked.
async fn prove_session(session: &mut ClaimantSession, link: &Link<i64>) -> Option<SessionState> {
    loop {
        sleep(PROOF_PERIOD).await;
        let asked_at = Instant::now();
        match timeout(LOST_AFTER, session.check()).await {
            Ok(Ok(SessionState::Held)) => link.prove(asked_at),
            Ok(Ok(other)) => return Some(other),
            Ok(Err(error)) => {
                tracing::debug!(error = %chain(&error), "the session of the claimants has ended");
                return None;
            }
            Err(_elapsed) => return None,
        }
    }
}

/// Proves a connection until it ends.
async fn prove_presence(presence: &Presence, link: &Link<String>) {
    loop {
        sleep(PROOF_PERIOD).await;
        let asked_at = Instant::now();
        match timeout(LOST_AFTER, presence.check()).await {
            Ok(Ok(())) => link.prove(asked_at),
            Ok(Err(error)) => {
                tracing::debug!(error = %chain(&error), "the exclusive queue of the claimants is gone");
                return;
            }
            Err(_elapsed) => return,
        }
    }
}

/// Claimants that nobody has any more, until their rows say so.
#[derive(Debug, Default)]
struct Unused {
    /// Their deliveries are recorded.
    done: Vec<ClaimantId>,
    /// Their deliveries were dropped, and are for others to take over.
    lost: Vec<ClaimantId>,
}

impl Unused {
    /// Moves the claimants here that are only known.
    fn add(&mut self, known: &mut Vec<Arc<Claimant>>) {
        known.retain(|claimant| {
            let is_used = Arc::strong_count(claimant) > 1;
            match (is_used, claimant.is_lost()) {
                (true, _) => {}
                (false, true) => self.lost.push(claimant.id),
                (false, false) => self.done.push(claimant.id),
            }
            is_used
        });
    }

    async fn report(&mut self, db: &Database) {
        let (done, lost) = (!self.done.is_empty(), !self.lost.is_empty());
        if done && rows::remove(db, &self.done).await.is_ok() {
            self.done.clear();
        }
        if lost && rows::give_up(db, &self.lost).await.is_ok() {
            self.lost.clear();
        }
    }
}
