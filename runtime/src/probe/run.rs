//! One run from start to report: bind the sink, send, let the rest arrive, count.
//!
//! Waiting is bounded everywhere: the target must be reachable at the start, requests have a deadline, requests and
//! resends still under way after the last number have the settling time, and so has what was accepted and is missing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::config::{Config, Pace, RunId, Target};
use super::ledger::{Ledger, Progress};
use super::plan::Plan;
use super::report::{ConfigEcho, Deliveries, Latencies, Percentiles, Rates, Report, Settled, per_second};
use super::send::{self, Sending};
use super::sink::{Reception, Sink};
use super::template::{Template, Text};

/// A target that is only just starting may take so long to answer the first connection.
const FIRST_CONNECTION_LIMIT: Duration = Duration::from_secs(10);
const FIRST_CONNECTION_PAUSE: Duration = Duration::from_millis(100);

/// How often the settling looks whether anything is still missing.
const SETTLE_TICK: Duration = Duration::from_millis(5);

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
                let text = Text::new(config.provider, &config.run_id, config.body_bytes);
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

        let tally = handle.ledger.tally();
        let promises = sending.promises.lock().unwrap_or_else(PoisonError::into_inner);
        let promised = tally.accepted + tally.duplicates_answered;
        let sending_time = match (sending.first_sent.get(), promises.last) {
            (Some(first), Some(last)) => last.saturating_duration_since(*first),
            _ => Duration::ZERO,
        };
        let mut rates = Rates {
            sending_seconds: sending_time.as_secs_f64(),
            accepted_per_second: per_second(promised, sending_time).unwrap_or(0.0),
            delivering_seconds: None,
            delivered_per_second: None,
            backlog_at_end_of_sending: None,
            kept_level: None,
        };
        let mut latency_ms = Latencies { accept: Percentiles::of(&promises.latency_us), end_to_end: None };
        let deliveries = reception.zip(sink_addr).map(|(reception, addr)| {
            let in_flight = match config.pace {
                Pace::Closed { clients } => clients,
                Pace::Open { max_in_flight, .. } => max_in_flight,
            };
            let level = (promised / 20).max(u64::from(in_flight));
            rates.backlog_at_end_of_sending = Some(backlog);
            rates.kept_level = Some(backlog <= level);
            fill_arrivals(&reception, &mut rates, &mut latency_ms, tally.delivered);
            let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Acquire);
            let counts = &reception.counts;
            let verified = config.sink.as_ref().is_some_and(|sink| sink.signing_key.is_some());
            Deliveries {
                sink_addr: addr.to_string(),
                delivered: tally.delivered,
                delivered_twice_or_more: tally.delivered_twice_or_more,
                duplicate_deliveries: tally.duplicate_deliveries,
                lost: tally.lost,
                lost_numbers: tally.lost_numbers,
                phantom: tally.phantom,
                phantom_numbers: tally.phantom_numbers,
                unknown_delivered: tally.unknown_delivered,
                bad_signatures: verified.then(|| count(&counts.bad_signatures)),
                altered: count(&counts.altered),
                reencoded: count(&counts.reencoded),
                foreign: count(&counts.foreign),
                unreadable: count(&counts.unreadable),
                other_requests: count(&counts.other_requests),
                failed_on_purpose: tally.failed_on_purpose,
                settled,
                settle_seconds: settle_time.as_secs_f64(),
            }
        });
        let mut report = Report {
            run_id: config.run_id.as_str().to_owned(),
            config: ConfigEcho::of(&config),
            started_at: format!("{started_at:.3}"),
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
            latency_ms,
            cpu_seconds: cpu_before
                .zip(cpu_time())
                .map(|(before, after)| after.saturating_sub(before).as_secs_f64()),
        };
        report.judge();
        Ok(report)
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
            sending.plan.stop(super::plan::StopReason::Interrupted);
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
                sending.plan.stop(super::plan::StopReason::Interrupted);
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
    let arrived = async {
        while handle.progress().outstanding > 0 {
            sleep(SETTLE_TICK).await;
        }
    };
    tokio::select! {
        () = arrived => {}
        () = sleep(config.settle) => return Settled::TimedOut,
        () = handle.cut.cancelled() => return Settled::Cut,
    }
    tokio::select! {
        () = sleep(config.linger) => {}
        () = handle.cut.cancelled() => {}
    }
    Settled::Complete
}

fn fill_arrivals(reception: &Reception, rates: &mut Rates, latency_ms: &mut Latencies, delivered: u64) {
    let arrivals = reception.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
    latency_ms.end_to_end = Some(Percentiles::of(&arrivals.latency_us));
    if let (Some(first), Some(last)) = (arrivals.first, arrivals.last) {
        let time = last.saturating_duration_since(first);
        rates.delivering_seconds = Some(time.as_secs_f64());
        rates.delivered_per_second = per_second(delivered, time);
    }
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
