//! One run from start to report: bind the sink, send, let the rest arrive, count.
//!
//! Waiting is bounded everywhere: the target must be reachable at the start, requests have a deadline, requests and
//! resends still under way after the last number have the settling time, and so has what was accepted and is missing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::config::{Config, Pace, RunId, Target};
use super::ledger::{Ledger, Progress};
use super::plan::{Plan, StopReason};
use super::report::{ConfigEcho, Deliveries, Latencies, Percentiles, Rates, Report, Settled, per_second};
use super::send::{self, Sending};
use super::sink::{Reception, Sink};
use super::tally::Tally;
use super::template::{Template, Text};

/// A target that is only just starting may take so long to answer the first connection.
const FIRST_CONNECTION_LIMIT: Duration = Duration::from_secs(10);
const FIRST_CONNECTION_PAUSE: Duration = Duration::from_millis(100);

/// How often someone who waits for the counters looks at them.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A run whose sink is bound and which has not sent anything.
pub struct Run {
    config: Config,
    sink: Option<Sink>,
    template: Template,
    handle: Handle,
}

/// Watches and steers a run from outside.
#[derive(Clone)]
pub struct Handle {
    ledger: Arc<Ledger>,
    stop: CancellationToken,
    cut: CancellationToken,
    sending_over: Arc<AtomicBool>,
}

impl Handle {
    /// The counters of this moment.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.ledger.progress()
    }

    /// Waits until the counters satisfy `condition`. False: they did not before the deadline.
    pub async fn reaches(&self, deadline: Duration, condition: impl Fn(Progress) -> bool) -> bool {
        let reached = async {
            while !condition(self.progress()) {
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(deadline, reached).await.is_ok()
    }

    /// Sends nothing new, lets the rest arrive, and ends the run.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends the run at once: what has not arrived counts as it stands.
    pub fn cut(&self) {
        self.stop.cancel();
        self.cut.cancel();
    }

    /// Whether the run only waits for what is under way.
    #[must_use]
    pub fn is_sending_over(&self) -> bool {
        self.sending_over.load(Ordering::Acquire)
    }
}

impl Run {
    /// Checks the secrets and binds the sink.
    ///
    /// # Errors
    /// When a secret cannot be used or the sink cannot listen.
    pub fn start(config: Config) -> anyhow::Result<Run> {
        let template = Template::new(&config)?;
        let ledger = Arc::new(Ledger::new(Plan::limit(config.amount, config.pace)));
        let sink = match &config.sink {
            None => None,
            Some(sink) => {
                let text = Text::new(config.provider, &config.run_id, config.body_bytes)?;
                Some(Sink::start(sink.clone(), text, config.body_bytes, Arc::clone(&ledger))?)
            }
        };
        let handle = Handle {
            ledger,
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            sending_over: Arc::new(AtomicBool::new(false)),
        };
        Ok(Run { config, sink, template, handle })
    }

    /// Where deliveries are received.
    #[must_use]
    pub fn sink_addr(&self) -> Option<SocketAddr> {
        self.sink.as_ref().map(Sink::addr)
    }

    /// Part of the id of each event of this run.
    #[must_use]
    pub fn run_id(&self) -> &RunId {
        &self.config.run_id
    }

    /// For use while [`Run::finish`] is at work.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Sends, settles and reports.
    ///
    /// # Errors
    /// When the target cannot be reached at the start, or when a part of the probe itself fails.
    pub async fn finish(self) -> anyhow::Result<Report> {
        let Run { config, sink, template, handle } = self;
        let (started_at, cpu_before) = (Timestamp::now(), cpu_time());
        let sink_addr = sink.as_ref().map(Sink::addr);
        reach(&config.target, &handle.stop).await?;

        let sending = Arc::new(Sending::new(&config, template, Arc::clone(&handle.ledger))?);
        let backlog = send_all(&sending, &config, &handle).await?;
        let waited_from = Instant::now();
        let settled = settle(&config, &handle, sink.is_some()).await;
        let settle_time = waited_from.elapsed();
        let reception = match sink {
            None => None,
            Some(sink) => Some(sink.stop().await?),
        };

        let ended = Ended {
            started_at,
            cpu: cpu_before.zip(cpu_time()).map(|(before, after)| after.saturating_sub(before)),
            backlog,
            settled,
            settle_time,
            tally: handle.ledger.tally(),
        };
        let mut report = ended.report(&config, &sending, reception.as_deref().zip(sink_addr));
        report.judge();
        Ok(report)
    }
}

/// What is known when everything has stopped.
struct Ended {
    started_at: Timestamp,
    cpu: Option<Duration>,
    backlog: u64,
    settled: Settled,
    settle_time: Duration,
    tally: Tally,
}

impl Ended {
    fn report(self, config: &Config, sending: &Sending, sink: Option<(&Reception, SocketAddr)>) -> Report {
        let rates = self.rates(config, sending, sink.map(|(reception, _)| reception));
        let accept = Percentiles::of(&sending.promises().latency_us);
        let end_to_end = sink.map(|(reception, _)| Percentiles::of(&reception.arrivals().latency_us));
        let deliveries = sink.map(|(reception, addr)| self.deliveries(config, reception, addr));
        let tally = self.tally;
        Report {
            run_id: config.run_id.as_str().to_owned(),
            config: ConfigEcho::of(config),
            started_at: format!("{:.3}", self.started_at),
            ended_at: format!("{:.3}", Timestamp::now()),
            stop_reason: sending.plan.stop_reason(),
            ok: false,
            faults: Vec::new(),
            sent: tally.sent,
            requests: tally.requests,
            scheduled_not_sent: sending.plan.scheduled().saturating_sub(tally.sent),
            accepted: tally.accepted,
            duplicates_answered: tally.duplicates_answered,
            duplicates_unexplained: tally.duplicates_unexplained,
            refused: tally.refused,
            unknown: tally.unknown,
            answers: tally.answers,
            attempts_without_answer: tally.attempts_without_answer,
            connect_failures: sending.connect_failures.load(Ordering::Acquire),
            deliveries,
            rates,
            latency_ms: Latencies { accept, end_to_end },
            cpu_seconds: self.cpu.map(|time| time.as_secs_f64()),
        }
    }

    fn rates(&self, config: &Config, sending: &Sending, reception: Option<&Reception>) -> Rates {
        let promised = self.tally.accepted + self.tally.duplicates_answered;
        let sending_time = match (sending.first_sent.get(), sending.promises().last) {
            (Some(first), Some(last)) => last.saturating_duration_since(*first),
            _ => Duration::ZERO,
        };
        let delivering_time = reception.and_then(|reception| {
            let arrivals = reception.arrivals();
            Some(arrivals.last?.saturating_duration_since(arrivals.first?))
        });
        // What is under way at any moment is no backlog: a request of each client, or a tenth of a second's worth.
        let under_way = match config.pace {
            Pace::Closed { clients } => clients,
            Pace::Open { rate_per_second, .. } => rate_per_second / 10,
        };
        Rates {
            sending_seconds: sending_time.as_secs_f64(),
            accepted_per_second: per_second(promised, sending_time).unwrap_or(0.0),
            delivering_seconds: delivering_time.map(|time| time.as_secs_f64()),
            delivered_per_second: delivering_time.and_then(|time| per_second(self.tally.delivered, time)),
            backlog_at_end_of_sending: reception.map(|_| self.backlog),
            kept_level: reception.map(|_| self.backlog <= (promised / 20).max(u64::from(under_way))),
        }
    }

    fn deliveries(&self, config: &Config, reception: &Reception, addr: SocketAddr) -> Deliveries {
        let (tally, counts) = (&self.tally, &reception.counts);
        let verified = config.sink.as_ref().is_some_and(|sink| sink.signing_key.is_some());
        let count = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        Deliveries {
            sink_addr: addr.to_string(),
            delivered: tally.delivered,
            delivered_twice_or_more: tally.delivered_twice_or_more,
            duplicate_deliveries: tally.duplicate_deliveries,
            lost: tally.lost,
            lost_numbers: tally.lost_numbers.clone(),
            phantom: tally.phantom,
            phantom_numbers: tally.phantom_numbers.clone(),
            unknown_delivered: tally.unknown_delivered,
            bad_signatures: verified.then(|| count(&counts.bad_signatures)),
            altered: count(&counts.altered),
            reencoded: count(&counts.reencoded),
            foreign: count(&counts.foreign),
            unreadable: count(&counts.unreadable),
            other_requests: count(&counts.other_requests),
            failed_on_purpose: tally.failed_on_purpose,
            settled: self.settled,
            settle_seconds: self.settle_time.as_secs_f64(),
        }
    }
}

/// Waits until the target can be connected to.
async fn reach(target: &Target, stop: &CancellationToken) -> anyhow::Result<()> {
    let deadline = Instant::now() + FIRST_CONNECTION_LIMIT;
    loop {
        let failure = match timeout(FIRST_CONNECTION_LIMIT, TcpStream::connect(target.address())).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        if Instant::now() >= deadline {
            bail!("cannot connect to {target}: {failure}");
        }
        tokio::select! {
            () = stop.cancelled() => bail!("stopped before {target} could be reached: {failure}"),
            () = sleep(FIRST_CONNECTION_PAUSE) => {}
        }
    }
}

/// Sends everything and returns what was in the queue when the last number had been handed out. When it returns,
/// nothing is in flight any more.
async fn send_all(sending: &Arc<Sending>, config: &Config, handle: &Handle) -> anyhow::Result<u64> {
    let abandon = CancellationToken::new();
    let _abandoned_with_this_future = abandon.clone().drop_guard();
    let mut ended = send::start(Arc::clone(sending), abandon.clone())?;
    let ended_early = tokio::select! {
        () = sending.plan.over() => None,
        () = handle.stop.cancelled() => {
            sending.plan.stop(StopReason::Interrupted);
            None
        }
        outcome = &mut ended => Some(outcome),
    };
    handle.sending_over.store(true, Ordering::Release);
    let backlog = handle.ledger.progress().outstanding;
    let outcome = match ended_early {
        Some(outcome) => outcome,
        None => {
            let stop_resending = async {
                handle.stop.cancelled().await;
                sending.plan.stop(StopReason::Interrupted);
                handle.cut.cancelled().await;
            };
            tokio::select! {
                outcome = &mut ended => outcome,
                () = sleep(config.settle.max(config.request_timeout)) => abandoned(&abandon, ended).await,
                () = stop_resending => abandoned(&abandon, ended).await,
            }
        }
    };
    outcome.context("the senders' thread ended early")??;
    Ok(backlog)
}

type Outcome = Result<anyhow::Result<()>, tokio::sync::oneshot::error::RecvError>;

async fn abandoned(
    abandon: &CancellationToken,
    ended: tokio::sync::oneshot::Receiver<anyhow::Result<()>>,
) -> Outcome {
    abandon.cancel();
    ended.await
}

/// Waits until everything that was accepted has arrived, and then watches for what should not.
async fn settle(config: &Config, handle: &Handle, has_sink: bool) -> Settled {
    if !has_sink {
        return Settled::Complete;
    }
    tokio::select! {
        arrived = handle.reaches(config.settle, |progress| progress.outstanding == 0) => {
            if !arrived {
                return Settled::TimedOut;
            }
        }
        () = handle.cut.cancelled() => return Settled::Cut,
    }
    tokio::select! {
        () = sleep(config.linger) => {}
        () = handle.cut.cancelled() => {}
    }
    Settled::Complete
}

/// User and system time of this process. Linux only; elsewhere `None`.
fn cpu_time() -> Option<Duration> {
    /// Fixed for user space on every architecture that matters.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may contain anything; utime and stime are fields 14 and 15, it is the second.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}
