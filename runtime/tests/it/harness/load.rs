//! Load with an exact ledger, while a test disturbs the system.

use std::time::Duration;

use grapnel_loadtest::{Amount, Config, Handle, Pace, Provider, Report, Run, SinkConfig, Target};
use grapnel_testing::{ACME_SECRET, WAIT_TIMEOUT};
use tokio::task::JoinHandle;

use super::{Platform, acme_integration};

/// Events a second: enough that something is in flight at any moment, and few enough for many parallel tests.
const RATE: u32 = 200;

/// The share of events whose first delivery the sink refuses, so that the dispatcher has retries to queue at any moment.
const FAIL_PERCENT: u8 = 5;

/// The time after the last arrival in which a duplicate delivery would arrive.
const LINGER: Duration = Duration::from_secs(2);

/// A load generator whose sink listens, and which has not sent anything yet.
pub(crate) struct Load(Run);

impl Load {
    pub(crate) fn new(platform: &Platform) -> Self {
        let target = Target::parse(&platform.url("/api/v1/webhooks/acme")).expect("a URL");
        let config = Config {
            pace: Pace::Open { rate_per_second: RATE, max_in_flight: 64 },
            sink: Some(SinkConfig { fail_percent: FAIL_PERCENT, ..SinkConfig::default() }),
            settle: WAIT_TIMEOUT,
            // A datastore that starts on a busy machine may take a while.
            unreachable_limit: WAIT_TIMEOUT * 10,
            linger: LINGER,
            retry_unknown: true,
            ..Config::new(target, Provider::Acme, ACME_SECRET.into(), Amount::Time(WAIT_TIMEOUT * 10))
        };
        Self(Run::start(config).expect("a load generator"))
    }

    /// Returns an Integration that delivers to the sink.
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

/// A load generator that sends.
pub(crate) struct Running {
    handle: Handle,
    report: JoinHandle<anyhow::Result<Report>>,
}

impl Running {
    /// Waits until this number of further events was accepted.
    pub(crate) async fn accepts(&self, more: u64) {
        let enough = self.handle.progress().accepted + more;
        let reached = self.handle.reaches(WAIT_TIMEOUT, |progress| progress.accepted >= enough).await;
        assert!(reached, "no further events are accepted: {:?}", self.handle.progress());
    }

    /// Waits until this number of further events was delivered.
    pub(crate) async fn delivers(&self, more: u64) {
        let enough = self.handle.progress().delivered + more;
        let reached = self.handle.reaches(WAIT_TIMEOUT, |progress| progress.delivered >= enough).await;
        assert!(reached, "no further events are delivered: {:?}", self.handle.progress());
    }

    pub(crate) fn duplicates(&self) -> u64 {
        self.handle.progress().duplicate_deliveries
    }

    /// Stops sending, waits until everything has arrived, and returns the ledger; fails if an event is lost or was never sent.
    pub(crate) async fn end(self) -> Report {
        self.handle.stop();
        let report = self.report.await.expect("no panic").expect("a report");
        assert!(report.ok, "{report}");
        report
    }
}

/// Returns the number of deliveries after the first of their event.
pub(crate) fn duplicates(report: &Report) -> u64 {
    report.deliveries.as_ref().map_or(0, |deliveries| deliveries.duplicate_deliveries)
}
