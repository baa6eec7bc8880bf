//! The sending side: lanes that take numbers from the plan and carry them to the target, on a thread of its own.
//!
//! A lane is one client with one HTTP/1.1 connection. It drives the connection itself, so dropping a lane drops
//! whatever it was doing. A number is marked in the ledger before its first byte can leave, and the mark is undone
//! only when the connection hands the request back untouched; everything in between that has no answer is unknown.

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

use super::config::{Config, Target};
use super::connection::{Connection, SendFailure};
use super::ledger::Ledger;
use super::plan::{Plan, StopReason, Turn};
use super::report::latency_histogram;
use super::template::{Composer, Message, Template};
use super::word::Answer;

/// Between attempts to connect: doubled from the first to the last.
const CONNECT_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// Between attempts to send an event whose fate is unknown.
const RESEND_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// A `Retry-After` beyond this is not waited for: the settling time is limited.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);
const NOT_FAILING: u64 = u64::MAX;

/// When promises were made, and how long after their events were due.
pub(crate) struct Promises {
    pub(crate) latency_us: Histogram<u64>,
    pub(crate) last: Option<Instant>,
}

/// What the lanes of a run share.
pub(crate) struct Sending {
    ledger: Arc<Ledger>,
    pub(crate) plan: Plan,
    template: Template,
    target: Target,
    request_timeout: Duration,
    unreachable_limit: Duration,
    retry_unknown: bool,
    origin: Instant,
    /// Milliseconds from the origin to the first failure since the last success.
    failing_since_ms: AtomicU64,
    pub(crate) connect_failures: AtomicU64,
    pub(crate) first_sent: OnceLock<Instant>,
    promises: Mutex<Promises>,
}

impl Sending {
    /// The plan's clock starts here.
    pub(crate) fn new(config: &Config, template: Template, ledger: Arc<Ledger>) -> anyhow::Result<Sending> {
        Ok(Sending {
            ledger,
            plan: Plan::start(config.amount, config.pace),
            template,
            target: config.target.clone(),
            request_timeout: config.request_timeout,
            unreachable_limit: config.unreachable_limit,
            retry_unknown: config.retry_unknown,
            origin: Instant::now(),
            failing_since_ms: AtomicU64::new(NOT_FAILING),
            connect_failures: AtomicU64::new(0),
            first_sent: OnceLock::new(),
            promises: Mutex::new(Promises { latency_us: latency_histogram()?, last: None }),
        })
    }

    /// A panic elsewhere leaves these figures usable.
    pub(crate) fn promises(&self) -> MutexGuard<'_, Promises> {
        self.promises.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note_success(&self) {
        if self.failing_since_ms.load(Ordering::Relaxed) != NOT_FAILING {
            self.failing_since_ms.store(NOT_FAILING, Ordering::Relaxed);
        }
    }

    /// Ends the run when there has been nothing but failures for too long.
    fn note_failure(&self) {
        let now_ms = self.elapsed_ms();
        let since = &self.failing_since_ms;
        let since_ms = match since.compare_exchange(NOT_FAILING, now_ms, Ordering::Relaxed, Ordering::Relaxed)
        {
            Ok(_) => now_ms,
            Err(earlier_ms) => earlier_ms,
        };
        if u128::from(now_ms.saturating_sub(since_ms)) > self.unreachable_limit.as_millis() {
            self.plan.stop(StopReason::Unreachable);
        }
    }

    fn note_connect_failure(&self) {
        self.connect_failures.fetch_add(1, Ordering::Relaxed);
        self.note_failure();
    }

    /// When events are sent until they are accepted, a connection alone, or "later" for ever, is no success.
    fn is_worth_a_resend(&self, answer: Answer) -> bool {
        self.retry_unknown && answer.is_worth_a_resend()
    }
}

/// Runs all lanes on a thread of their own. The receiver completes when every lane has ended, or soon after `abandon`
/// is cancelled, which drops what is in flight.
///
/// # Errors
/// When a thread cannot be started.
pub(crate) fn start(
    sending: Arc<Sending>,
    abandon: CancellationToken,
) -> anyhow::Result<oneshot::Receiver<anyhow::Result<()>>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("build the senders' runtime")?;
    let (report_ended, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("probe-pace".to_owned())
        .spawn({
            let sending = Arc::clone(&sending);
            move || sending.plan.pace()
        })
        .context("start the pacing thread")?;
    std::thread::Builder::new()
        .name("probe-send".to_owned())
        .spawn(move || {
            let outcome = runtime.block_on(async {
                tokio::select! {
                    outcome = run_lanes(&sending) => outcome,
                    () = abandon.cancelled() => Ok(()),
                }
            });
            sending.plan.stop(StopReason::Completed);
            drop(runtime);
            // Nobody may be waiting.
            report_ended.send(outcome).ok();
        })
        .context("start the senders' thread")?;
    Ok(ended)
}

async fn run_lanes(sending: &Arc<Sending>) -> anyhow::Result<()> {
    let (first, most) = sending.plan.lanes();
    let mut lanes = JoinSet::new();
    let mut opened = 0;
    while opened < first {
        opened += 1;
        lanes.spawn(Lane::run(Arc::clone(sending)));
    }
    loop {
        tokio::select! {
            ended = lanes.join_next() => match ended {
                None => return Ok(()),
                Some(outcome) => outcome.context("a lane failed")??,
            },
            short = sending.plan.short_of_lanes(), if opened < most => {
                let more = u32::try_from(short).unwrap_or(u32::MAX).min(most - opened);
                for _ in 0..more {
                    opened += 1;
                    lanes.spawn(Lane::run(Arc::clone(sending)));
                }
            }
        }
    }
}

/// How one attempt ended for its lane.
enum Attempt {
    Answered(Answer, Option<Duration>),
    /// It never left, and it will not any more.
    GivenUp,
}

struct Lane<'a> {
    sending: &'a Sending,
    connection: Option<Connection>,
    connect_pause: Pause,
}

impl Lane<'_> {
    async fn run(sending: Arc<Sending>) -> anyhow::Result<()> {
        let wake = Arc::new(Notify::new());
        let mut composer = sending.template.composer();
        let mut lane =
            Lane { sending: &sending, connection: None, connect_pause: Pause::new(CONNECT_PAUSES) };
        // Connect first: while the target is down, no number is used up.
        while lane.connect(|| sending.plan.is_over()).await {
            let Some(turn) = sending.plan.next(&wake).await else { break };
            lane.carry(turn, &mut composer).await?;
        }
        Ok(())
    }

    /// Sends one event until its fate is known, as far as this run's rules go.
    async fn carry(&mut self, turn: Turn, composer: &mut Composer<'_>) -> anyhow::Result<()> {
        let sending = self.sending;
        let message = composer.compose(turn.number, Instant::now())?;
        let mut resend_pause = Pause::new(RESEND_PAUSES);
        loop {
            let Attempt::Answered(answer, retry_after) = self.attempt(turn, &message).await? else {
                return Ok(());
            };
            if !sending.is_worth_a_resend(answer) {
                return Ok(());
            }
            sending.note_failure();
            let pause = resend_pause.next().max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER));
            tokio::time::sleep(pause).await;
            if sending.plan.is_interrupted() {
                return Ok(());
            }
        }
    }

    /// One request, with its mark in the ledger and its answer there too.
    async fn attempt(&mut self, turn: Turn, message: &Message) -> anyhow::Result<Attempt> {
        let sending = self.sending;
        loop {
            if !self.connect(|| sending.plan.is_stopped()).await {
                return Ok(Attempt::GivenUp);
            }
            let Some(mut connection) = self.connection.take() else { continue };
            let request = sending.template.request(message);
            sending.first_sent.get_or_init(|| turn.scheduled);
            let before =
                sending.ledger.begin(turn.number, turn.scheduled).context("send a number of this run")?;
            let response = match timeout(sending.request_timeout, connection.send(request)).await {
                Ok(Ok(response)) => response,
                Ok(Err(SendFailure::NotSent)) => {
                    sending.ledger.take_back(turn.number, before);
                    if connection.is_fresh() {
                        sending.note_connect_failure();
                        tokio::time::sleep(self.connect_pause.next()).await;
                    }
                    continue;
                }
                Ok(Err(SendFailure::Broken)) | Err(_) => {
                    sending.ledger.answered(turn.number, Answer::None);
                    return Ok(Attempt::Answered(Answer::None, None));
                }
            };
            let answer = Answer::Status(response.status().as_u16());
            sending.ledger.answered(turn.number, answer);
            if answer.is_promise() {
                let now = Instant::now();
                let latency = now.saturating_duration_since(turn.scheduled).as_micros();
                let mut promises = sending.promises();
                promises.last = Some(now);
                promises.latency_us.saturating_record(u64::try_from(latency).unwrap_or(u64::MAX));
            }
            if !sending.is_worth_a_resend(answer) {
                sending.note_success();
            }
            self.connect_pause = Pause::new(CONNECT_PAUSES);
            let retry_after = retry_after(response.headers());
            // The event's fate is sealed; the rest is about using the connection again.
            if timeout(sending.request_timeout, connection.drain(response)).await.is_ok_and(|drained| drained)
            {
                self.connection = Some(connection);
            }
            return Ok(Attempt::Answered(answer, retry_after));
        }
    }

    /// Makes sure that there is a connection. False: there is none and `give_up` says that none is wanted any more.
    async fn connect(&mut self, give_up: impl Fn() -> bool) -> bool {
        loop {
            if self.connection.as_ref().is_some_and(|connection| !connection.is_closed()) {
                return true;
            }
            if give_up() {
                return false;
            }
            match timeout(self.sending.request_timeout, Connection::open(&self.sending.target)).await {
                Ok(Ok(connection)) => {
                    if !self.sending.retry_unknown {
                        self.sending.note_success();
                    }
                    self.connection = Some(connection);
                    return true;
                }
                Ok(Err(_)) | Err(_) => {
                    self.sending.note_connect_failure();
                    tokio::time::sleep(self.connect_pause.next()).await;
                }
            }
        }
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Waits that double.
struct Pause {
    next: Duration,
    longest: Duration,
}

impl Pause {
    fn new((first, longest): (Duration, Duration)) -> Pause {
        Pause { next: first, longest }
    }

    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }
}
