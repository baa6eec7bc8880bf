//! The programs under test, each with the port that it was given.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use grapnel_testing::{Environment, TestProcess};

/// Returns the path of a program of the workspace: all of them are built into one directory.
pub(crate) fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_grapnel-controller")).with_file_name(name)
}

/// A running controller or api.
pub(crate) struct Process {
    process: TestProcess,
    /// The operations port of a controller, the public port of an api.
    pub(crate) port: u16,
}

impl Process {
    pub(crate) fn start(
        name: &str,
        arguments: &[&str],
        environment: &Environment,
        directory: &Path,
        port: u16,
    ) -> Self {
        Self { process: TestProcess::start(&program(name), arguments, environment, directory), port }
    }

    /// Returns whether it is the leader and its caches are filled.
    pub(crate) fn leads(&self) -> bool {
        self.log().contains("caches are filled")
    }

    /// Returns the status of a probe of the operations port; 0 if there is no response.
    pub(crate) async fn probe(&self, path: &str) -> u16 {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        reqwest::get(url).await.map_or(0, |answer| answer.status().as_u16())
    }

    /// Returns the memory that is allocated, in megabytes.
    pub(crate) fn memory_mb(&self) -> u64 {
        self.allocated_kib() / 1024
    }

    /// Returns the sum of counters: see [`counter`].
    pub(crate) async fn counter(&self, name: &str, labels: &[&str], without: &[&str]) -> u64 {
        counter(self.port, name, labels, without).await
    }

    /// Returns the number of requests that may change something at the API server, except renewals of the Lease.
    pub(crate) async fn api_writes(&self) -> u64 {
        let name = "grapnel_controller_api_requests_total";
        self.counter(name, &[], &["verb=\"get\"", "resource=\"leases\""]).await
    }
}

impl Deref for Process {
    type Target = TestProcess;

    fn deref(&self) -> &TestProcess {
        &self.process
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut TestProcess {
        &mut self.process
    }
}

/// Returns the sum of the counters of a name at an operations port, whose labels contain all of `labels` and none of `without`.
pub(crate) async fn counter(ops_port: u16, name: &str, labels: &[&str], without: &[&str]) -> u64 {
    let url = format!("http://127.0.0.1:{ops_port}/metrics");
    let text = reqwest::get(url).await.expect("the operations port").text().await.expect("a text");
    let matches = |line: &&str| {
        line.starts_with(name)
            && labels.iter().all(|label| line.contains(label))
            && !without.iter().any(|label| line.contains(label))
    };
    let number = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok());
    text.lines().filter(matches).filter_map(number).map(|number| number as u64).sum()
}
