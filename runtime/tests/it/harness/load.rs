//! Load with an exact ledger: the probe, beside whatever a test does to the system meanwhile.

use std::time::Duration;

use grapnel_loadtest::{Amount, Config, Handle, Pace, Provider, Report, Run, SinkConfig, Target};
use tokio::task::JoinHandle;

use super::{ACME_SECRET, PATIENCE, Platform, acme_integration};

/// Events a second: enough that something is under way at any moment, and little enough for many tests side by side.
const RATE: u32 = 200;

/// Events whose first delivery the sink refuses, so that the dispatcher has retries to queue at any moment.
const FAIL_PERCENT: u8 = 5;

/// What the sink answered for is delivered again only this long after everything had arrived.
const LINGER: Duration = Duration::from_secs(2);

/// A probe whose sink listens, and which has not sent anything.
pub(crate) struct Load(Run);

impl Load {
    pub(crate) fn new(platform: &Platform) -> Self {
        let target = Target::parse(&platform.url("/api/v1/webhooks/acme")).expect("a URL");
        let config = Config {
            pace: Pace::Open { rate_per_second: RATE, max_in_flight: 64 },
            sink: Some(SinkConfig { fail_percent: FAIL_PERCENT, ..SinkConfig::default() }),
            settle: PATIENCE,
            // A datastore that starts on a busy machine may take a while.
            unreachable_limit: PATIENCE * 10,
            linger: LINGER,
            retry_unknown: true,
            ..Config::new(target, Provider::Acme, ACME_SECRET.into(), Amount::Time(PATIENCE * 10))
        };
        Self(Run::start(config).expect("a probe"))
    }

    /// An Integration that delivers to the sink.
    pub(crate) fn integration(&self) -> String {
        let sink = self.0.sink_addr().expect("a sink");
        acme_integration(&[format!(
            "{{name: orders, url: 'http://{sink}/', timeoutSeconds: 5, \
             retry: {{maxAttempts: 20, initialDelaySeconds: 1, maxDelaySeconds: 2}}}}"
        )])
    }

    /// Sends until [`Running::end`].
    pub(crate) fn begin(self) -> Running {
        let handle = self.0.handle();
        Running { handle, report: tokio::spawn(self.0.finish()) }
    }
}

/// A probe at work.
pub(crate) struct Running {
    handle: Handle,
    report: JoinHandle<anyhow::Result<Report>>,
}

impl Running {
    /// Waits until so many more events were accepted.
    pub(crate) async fn accepts(&self, more: u64) {
        let enough = self.handle.progress().accepted + more;
        let reached = self.handle.reaches(PATIENCE, |progress| progress.accepted >= enough).await;
        assert!(reached, "nothing is accepted any more: {:?}", self.handle.progress());
    }

    /// Waits until so many more events were delivered.
    pub(crate) async fn delivers(&self, more: u64) {
        let enough = self.handle.progress().delivered + more;
        let reached = self.handle.reaches(PATIENCE, |progress| progress.delivered >= enough).await;
        assert!(reached, "nothing is delivered any more: {:?}", self.handle.progress());
    }

    pub(crate) fn duplicates(&self) -> u64 {
        self.handle.progress().duplicate_deliveries
    }

    /// Stops sending, lets everything arrive, and answers a ledger in which nothing is lost and nothing too much.
    pub(crate) async fn end(self) -> Report {
        self.handle.stop();
        let report = self.report.await.expect("no panic").expect("a report");
        assert!(report.ok, "{report}");
        report
    }
}

/// Deliveries beyond the first of an event.
pub(crate) fn duplicates(report: &Report) -> u64 {
    report.deliveries.as_ref().map_or(0, |deliveries| deliveries.duplicate_deliveries)
}
