//! The sender: lanes that take numbers from the schedule and send them to the target, on a thread of their own.
//!
//! A lane is one client with one HTTP/1.1 connection. It drives the connection itself, so dropping a lane cancels
//! everything it does. A number is recorded in the ledger before its first byte can leave, and the record is undone
//! only if the connection returns the request unsent; any other request without an answer is unknown.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use http::HeaderMap;
use http::header::RETRY_AFTER;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Target};
use crate::connection::{Connection, SendFailure};
use crate::latency::latency_histogram;
use crate::ledger::{Answer, Ledger};
use crate::request_template::{EventComposer, RequestTemplate, SignedEvent};
use crate::schedule::{Schedule, ScheduledEvent, StopReason};

/// First and longest pause between attempts to connect; each is twice the previous one.
const CONNECT_BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// First and longest pause before an event is sent again.
const RESEND_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// The longest `Retry-After` that is respected, because the time for resends is limited.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);
const NOT_FAILING: u64 = u64::MAX;

/// When events were accepted, and how long after they were due.
pub(crate) struct AcceptanceStats {
    pub(crate) latency_us: Histogram<u64>,
    pub(crate) last: Option<Instant>,
}

/// The state that the lanes of a run share.
pub(crate) struct SenderState {
    ledger: Arc<Ledger>,
    pub(crate) schedule: Schedule,
    template: RequestTemplate,
    /// Events in each request.
    elements: u64,
    target: Target,
    request_timeout: Duration,
    unreachable_limit: Duration,
    retry_unknown: bool,
    origin: Instant,
    /// Milliseconds from the origin to the first failure after the last success.
    failing_since_ms: AtomicU64,
    pub(crate) connect_failures: AtomicU64,
    pub(crate) first_sent: OnceLock<Instant>,
    acceptances: Mutex<AcceptanceStats>,
}

impl SenderState {
    /// Starts the clock of the schedule.
    pub(crate) fn new(
        config: &Config,
        template: RequestTemplate,
        ledger: Arc<Ledger>,
    ) -> anyhow::Result<SenderState> {
        Ok(SenderState {
            ledger,
            schedule: Schedule::start(config.amount, config.pace, config.elements),
            template,
            elements: u64::from(config.elements),
            target: config.target.clone(),
            request_timeout: config.request_timeout,
            unreachable_limit: config.unreachable_limit,
            retry_unknown: config.retry_unknown,
            origin: Instant::now(),
            failing_since_ms: AtomicU64::new(NOT_FAILING),
            connect_failures: AtomicU64::new(0),
            first_sent: OnceLock::new(),
            acceptances: Mutex::new(AcceptanceStats { latency_us: latency_histogram()?, last: None }),
        })
    }

    /// These figures are usable after a panic elsewhere.
    pub(crate) fn acceptances(&self) -> MutexGuard<'_, AcceptanceStats> {
        self.acceptances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn record_success(&self) {
        if self.failing_since_ms.load(Ordering::Relaxed) != NOT_FAILING {
            self.failing_since_ms.store(NOT_FAILING, Ordering::Relaxed);
        }
    }

    /// Ends the run when there have been nothing but failures for too long.
    fn record_failure(&self) {
        let now_ms = self.elapsed_ms();
        let since = &self.failing_since_ms;
        let since_ms = match since.compare_exchange(NOT_FAILING, now_ms, Ordering::Relaxed, Ordering::Relaxed)
        {
            Ok(_) => now_ms,
            Err(earlier_ms) => earlier_ms,
        };
        if u128::from(now_ms.saturating_sub(since_ms)) > self.unreachable_limit.as_millis() {
            self.schedule.stop(StopReason::Unreachable);
        }
    }

    fn record_connect_failure(&self) {
        self.connect_failures.fetch_add(1, Ordering::Relaxed);
        self.record_failure();
    }

    /// The numbers of the events in a request.
    fn numbers(&self, event: ScheduledEvent) -> std::ops::Range<u64> {
        event.number..event.number + self.elements
    }

    fn record_answer(&self, event: ScheduledEvent, answer: Answer) {
        self.numbers(event).for_each(|number| self.ledger.record_answer(number, answer));
    }

    /// Whether the event is sent again after this answer. Such an answer is not a success: a target that only postpones events
    /// must not keep the run alive.
    fn needs_resend(&self, answer: Answer) -> bool {
        self.retry_unknown && answer.is_worth_a_resend()
    }
}

/// Runs all lanes on a thread of their own. The receiver completes when every lane has ended, or soon after `abandon`
/// is cancelled, which drops the requests in flight.
///
/// # Errors
/// When a thread cannot be started.
pub(crate) fn start(
    sender: Arc<SenderState>,
    abandon: CancellationToken,
) -> anyhow::Result<oneshot::Receiver<anyhow::Result<()>>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("build the sender's runtime")?;
    let (report_ended, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("loadtest-pace".to_owned())
        .spawn({
            let sender = Arc::clone(&sender);
            move || sender.schedule.pace()
        })
        .context("start the pacing thread")?;
    std::thread::Builder::new()
        .name("loadtest-send".to_owned())
        .spawn(move || {
            let outcome = runtime.block_on(async {
                tokio::select! {
                    outcome = run_lanes(&sender) => outcome,
                    () = abandon.cancelled() => Ok(()),
                }
            });
            sender.schedule.stop(StopReason::Completed);
            drop(runtime);
            // The receiver may have been dropped.
            report_ended.send(outcome).ok();
        })
        .context("start the sender's thread")?;
    Ok(ended)
}

async fn run_lanes(sender: &Arc<SenderState>) -> anyhow::Result<()> {
    let (first, most) = sender.schedule.lanes();
    let mut lanes = JoinSet::new();
    let mut opened = 0;
    while opened < first {
        opened += 1;
        lanes.spawn(SenderLane::run(Arc::clone(sender)));
    }
    loop {
        tokio::select! {
            ended = lanes.join_next() => match ended {
                None => return Ok(()),
                Some(outcome) => outcome.context("a lane failed")??,
            },
            missing = sender.schedule.missing_lanes(), if opened < most => {
                let more = u32::try_from(missing).unwrap_or(u32::MAX).min(most - opened);
                for _ in 0..more {
                    opened += 1;
                    lanes.spawn(SenderLane::run(Arc::clone(sender)));
                }
            }
        }
    }
}

/// The outcome of an attempt to send a request.
enum RequestOutcome {
    Answered(Answer, Option<Duration>),
    /// The request has not left and will not leave.
    GivenUp,
}

/// One client of the run.
struct SenderLane<'a> {
    sender: &'a SenderState,
    connection: Option<Connection>,
    connect_backoff: DoublingBackoff,
}

impl SenderLane<'_> {
    async fn run(sender: Arc<SenderState>) -> anyhow::Result<()> {
        let wake = Arc::new(Notify::new());
        let mut composer = sender.template.composer();
        let mut lane = SenderLane {
            sender: &sender,
            connection: None,
            connect_backoff: DoublingBackoff::new(CONNECT_BACKOFF),
        };
        // The lane connects first, so that no number is used up while the target is down.
        while lane.connect(|| sender.schedule.is_over()).await {
            let Some(event) = sender.schedule.next(&wake).await else { break };
            lane.send(event, &mut composer).await?;
        }
        Ok(())
    }

    /// Sends one request, and sends it again as long as the configuration requires.
    async fn send(&mut self, event: ScheduledEvent, composer: &mut EventComposer<'_>) -> anyhow::Result<()> {
        let sender = self.sender;
        let content = composer.compose(sender.numbers(event), Instant::now())?;
        let mut resend_backoff = DoublingBackoff::new(RESEND_BACKOFF);
        loop {
            let RequestOutcome::Answered(answer, retry_after) = self.attempt(event, &content).await? else {
                return Ok(());
            };
            if !sender.needs_resend(answer) {
                return Ok(());
            }
            sender.record_failure();
            let pause = resend_backoff.next().max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER));
            tokio::time::sleep(pause).await;
            if sender.schedule.is_interrupted() {
                return Ok(());
            }
        }
    }

    /// Sends one request, and records both the request and its answer in the ledger.
    async fn attempt(
        &mut self,
        event: ScheduledEvent,
        content: &SignedEvent,
    ) -> anyhow::Result<RequestOutcome> {
        let sender = self.sender;
        loop {
            if !self.connect(|| sender.schedule.is_stopped()).await {
                return Ok(RequestOutcome::GivenUp);
            }
            let Some(mut connection) = self.connection.take() else { continue };
            let request = sender.template.request(content);
            sender.first_sent.get_or_init(|| event.scheduled);
            let before = sender.numbers(event).map(|number| sender.ledger.begin(number, event.scheduled));
            let before: Vec<_> = before.collect::<Option<_>>().context("send a number of this run")?;
            let response = match timeout(sender.request_timeout, connection.send(request)).await {
                Ok(Ok(response)) => response,
                Ok(Err(SendFailure::NotSent)) => {
                    for (number, before) in sender.numbers(event).zip(before) {
                        sender.ledger.undo_begin(number, before);
                    }
                    if connection.is_fresh() {
                        sender.record_connect_failure();
                        tokio::time::sleep(self.connect_backoff.next()).await;
                    }
                    continue;
                }
                Ok(Err(SendFailure::Broken)) | Err(_) => {
                    sender.record_answer(event, Answer::None);
                    return Ok(RequestOutcome::Answered(Answer::None, None));
                }
            };
            let answer = Answer::Status(response.status().as_u16());
            sender.record_answer(event, answer);
            if answer.is_acceptance() {
                let now = Instant::now();
                let latency = now.saturating_duration_since(event.scheduled).as_micros();
                let mut acceptances = sender.acceptances();
                acceptances.last = Some(now);
                acceptances.latency_us.saturating_record(u64::try_from(latency).unwrap_or(u64::MAX));
            }
            if !sender.needs_resend(answer) {
                sender.record_success();
            }
            self.connect_backoff = DoublingBackoff::new(CONNECT_BACKOFF);
            let retry_after = retry_after(response.headers());
            // The answer is recorded; the rest only decides whether the connection can be used again.
            if timeout(sender.request_timeout, connection.drain(response)).await.is_ok_and(|drained| drained)
            {
                self.connection = Some(connection);
            }
            return Ok(RequestOutcome::Answered(answer, retry_after));
        }
    }

    /// Makes sure that there is a connection. Returns false if there is none and `give_up` says that none is needed.
    async fn connect(&mut self, give_up: impl Fn() -> bool) -> bool {
        loop {
            if self.connection.as_ref().is_some_and(|connection| !connection.is_closed()) {
                return true;
            }
            if give_up() {
                return false;
            }
            match timeout(self.sender.request_timeout, Connection::open(&self.sender.target)).await {
                Ok(Ok(connection)) => {
                    if !self.sender.retry_unknown {
                        self.sender.record_success();
                    }
                    self.connection = Some(connection);
                    return true;
                }
                Ok(Err(_)) | Err(_) => {
                    self.sender.record_connect_failure();
                    tokio::time::sleep(self.connect_backoff.next()).await;
                }
            }
        }
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Pauses that double up to a limit.
struct DoublingBackoff {
    next: Duration,
    longest: Duration,
}

impl DoublingBackoff {
    fn new((first, longest): (Duration, Duration)) -> DoublingBackoff {
        DoublingBackoff { next: first, longest }
    }

    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }
}
