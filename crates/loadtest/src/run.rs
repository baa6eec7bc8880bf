//! One run from start to report: start the sink, send, wait for the rest, count.
//!
//! Every wait is bounded. The target must be reachable at the start, and each request has a deadline. The settling time bounds
//! both the requests and resends that are in flight after the last number, and the wait for missing deliveries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::finished_run::FinishedRun;
use crate::config::{Config, RunId, Target};
use crate::event_body::EventBody;
use crate::ledger::{Ledger, Progress};
use crate::process;
use crate::report::{Report, SettleOutcome};
use crate::request_template::RequestTemplate;
use crate::schedule::{Schedule, StopReason};
use crate::sender::{self, SenderState};
use crate::sink::{Recorder, Sink};

mod finished_run;

/// How long a target that is starting may take to accept the first connection.
const FIRST_CONNECTION_LIMIT: Duration = Duration::from_secs(10);
const FIRST_CONNECTION_PAUSE: Duration = Duration::from_millis(100);

/// How often the counters are read while waiting for them.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A run whose sink is listening and which has not sent anything.
pub struct Run {
    config: Config,
    sink: Option<Sink>,
    template: RequestTemplate,
    handle: Handle,
}

/// Observes and controls a run from outside.
#[derive(Clone)]
pub struct Handle {
    ledger: Arc<Ledger>,
    stop: CancellationToken,
    cut: CancellationToken,
    sending_over: Arc<AtomicBool>,
}

impl Handle {
    /// Returns the counters of this moment.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.ledger.progress()
    }

    /// Waits until the counters satisfy `condition`. Returns false if they do not before the deadline.
    pub async fn reaches(&self, deadline: Duration, condition: impl Fn(Progress) -> bool) -> bool {
        let reached = async {
            while !condition(self.progress()) {
                sleep(POLL_INTERVAL).await;
            }
        };
        timeout(deadline, reached).await.is_ok()
    }

    /// Stops sender_state, waits for the rest, and ends the run.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends the run immediately, without waiting for answers and deliveries.
    pub fn cut(&self) {
        self.stop.cancel();
        self.cut.cancel();
    }

    /// Whether sender_state is over, and the run only waits.
    #[must_use]
    pub fn is_sending_over(&self) -> bool {
        self.sending_over.load(Ordering::Acquire)
    }
}

impl Run {
    /// Checks the secrets and starts the sink.
    ///
    /// # Errors
    /// When a secret cannot be used or the sink cannot listen.
    pub fn start(config: Config) -> anyhow::Result<Run> {
        let template = RequestTemplate::new(&config)?;
        let ledger = Arc::new(Ledger::new(Schedule::limit(config.amount, config.pace)));
        let sink = match &config.sink {
            None => None,
            Some(sink) => {
                let body = EventBody::new(config.provider, &config.run_id, config.body_bytes)?;
                let recorder = Recorder::Run(Arc::clone(&ledger));
                Some(Sink::start(sink.clone(), body, config.body_bytes, recorder)?)
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

    /// Returns the address where deliveries are received.
    #[must_use]
    pub fn sink_addr(&self) -> Option<SocketAddr> {
        self.sink.as_ref().map(Sink::addr)
    }

    /// Returns the id that is part of each event id of this run.
    #[must_use]
    pub fn run_id(&self) -> &RunId {
        &self.config.run_id
    }

    /// Returns a handle for use during [`Run::finish`].
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Sends, waits and reports.
    ///
    /// # Errors
    /// When the target is unreachable at the start, or a part of the load test itself fails.
    pub async fn finish(self) -> anyhow::Result<Report> {
        let Run { config, sink, template, handle } = self;
        let (started_at, cpu_before) = (Timestamp::now(), process::own_cpu_time());
        let sink_addr = sink.as_ref().map(Sink::addr);
        wait_until_reachable(&config.target, &handle.stop).await?;

        let sender_state = Arc::new(SenderState::new(&config, template, Arc::clone(&handle.ledger))?);
        let backlog = send_all(&sender_state, &config, &handle).await?;
        let waited_from = Instant::now();
        let settled = settle(&config, &handle, sink.is_some()).await;
        let settle_time = waited_from.elapsed();
        let sink_state = match sink {
            None => None,
            Some(sink) => Some(sink.stop().await?),
        };

        let finished = FinishedRun {
            started_at,
            cpu: cpu_before.zip(process::own_cpu_time()).map(|(before, after)| after.saturating_sub(before)),
            backlog,
            settled,
            settle_time,
            totals: handle.ledger.totals(),
        };
        let mut report = finished.report(&config, &sender_state, sink_state.as_deref().zip(sink_addr));
        report.find_faults();
        Ok(report)
    }
}

/// Waits until the target can be connected to.
async fn wait_until_reachable(target: &Target, stop: &CancellationToken) -> anyhow::Result<()> {
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
            () = stop.cancelled() => bail!("stopped before {target} was reachable: {failure}"),
            () = sleep(FIRST_CONNECTION_PAUSE) => {}
        }
    }
}

/// Sends everything, and returns the number of outstanding deliveries at the time when the last number was handed out. When
/// it returns, no request is in flight.
async fn send_all(sender_state: &Arc<SenderState>, config: &Config, handle: &Handle) -> anyhow::Result<u64> {
    let abandon = CancellationToken::new();
    let _abandon_with_this_future = abandon.clone().drop_guard();
    let mut ended = sender::start(Arc::clone(sender_state), abandon.clone())?;
    let ended_early = tokio::select! {
        () = sender_state.schedule.over() => None,
        () = handle.stop.cancelled() => {
            sender_state.schedule.stop(StopReason::Interrupted);
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
                sender_state.schedule.stop(StopReason::Interrupted);
                handle.cut.cancelled().await;
            };
            tokio::select! {
                outcome = &mut ended => outcome,
                () = sleep(config.settle.max(config.request_timeout)) => abandon_requests(&abandon, ended).await,
                () = stop_resending => abandon_requests(&abandon, ended).await,
            }
        }
    };
    outcome.context("the sender's thread ended early")??;
    Ok(backlog)
}

type SenderResult = Result<anyhow::Result<()>, tokio::sync::oneshot::error::RecvError>;

/// Drops the requests in flight, and waits for the end of the sender.
async fn abandon_requests(
    abandon: &CancellationToken,
    ended: tokio::sync::oneshot::Receiver<anyhow::Result<()>>,
) -> SenderResult {
    abandon.cancel();
    ended.await
}

/// Waits until everything that was accepted has arrived, and then for deliveries that should not arrive.
async fn settle(config: &Config, handle: &Handle, has_sink: bool) -> SettleOutcome {
    if !has_sink {
        return SettleOutcome::Complete;
    }
    tokio::select! {
        arrived = handle.reaches(config.settle, |progress| progress.outstanding == 0) => {
            if !arrived {
                return SettleOutcome::TimedOut;
            }
        }
        () = handle.cut.cancelled() => return SettleOutcome::Cut,
    }
    tokio::select! {
        () = sleep(config.linger) => {}
        () = handle.cut.cancelled() => {}
    }
    SettleOutcome::Complete
}
