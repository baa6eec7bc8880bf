//! The real binaries, run as processes.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::PATIENCE;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A running process. It is killed when dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    /// The port it was given: the operations port of a controller, the public port of an api.
    pub(crate) port: u16,
}

/// Both binaries of the workspace are built into one directory.
fn command(binary: &str, arguments: &[&str], environment: &[(String, String)]) -> Command {
    let path = Path::new(env!("CARGO_BIN_EXE_grapnel-controller")).with_file_name(binary);
    assert!(path.exists(), "{} is not built: run cargo build --workspace first", path.display());
    let mut command = Command::new(path);
    command.args(arguments).env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

pub(crate) fn run_to_end(binary: &str, arguments: &[&str], environment: &[(String, String)]) {
    let output = command(binary, arguments, environment).output().expect("it starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a program to its end; returns whether it succeeded, and all of its output.
pub(crate) fn try_run(binary: &str, arguments: &[&str], environment: &[(String, String)]) -> (bool, String) {
    let output = command(binary, arguments, environment).output().expect("it starts");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&printed).into_owned())
}

impl Process {
    pub(crate) fn start(
        binary: &str,
        arguments: &[&str],
        environment: &[(String, String)],
        directory: &Path,
        port: u16,
    ) -> Self {
        let log = directory.join(format!("{binary}-{}.log", NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = File::create(&log).expect("create a log file");
        let mut command = command(binary, arguments, environment);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().expect("it starts");
        Self { child, log, port }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
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

    /// Sends SIGKILL, so that nothing is finished or logged.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kill the process");
        self.child.wait().expect("wait for the process");
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill");
        assert!(status.success(), "kill -s {name} {pid}");
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("ask for the process").is_some()
    }

    pub(crate) async fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for the process") {
                return status;
            }
            assert!(Instant::now() < deadline, "the process did not end; its log:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Returns the resident memory in megabytes.
    pub(crate) fn memory_mb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() / 1024
    }

    /// Returns the sum of the counters of a name whose labels contain all of `labels` and none of `without`.
    pub(crate) async fn counter(&self, name: &str, labels: &[&str], without: &[&str]) -> u64 {
        let url = format!("http://127.0.0.1:{}/metrics", self.port);
        let text = reqwest::get(url).await.expect("the operations port").text().await.expect("a text");
        let matches = |line: &&str| {
            line.starts_with(name)
                && labels.iter().all(|label| line.contains(label))
                && !without.iter().any(|label| line.contains(label))
        };
        let number = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok());
        text.lines().filter(matches).filter_map(number).map(|number| number as u64).sum()
    }

    /// Returns the number of requests that may change something at the API server, except renewals of the Lease.
    pub(crate) async fn api_writes(&self) -> u64 {
        let name = "grapnel_controller_api_requests_total";
        self.counter(name, &[], &["verb=\"get\"", "resource=\"leases\""]).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        if self.child.kill().is_ok() && self.child.wait().is_err() {
            eprintln!("cannot wait for a process");
        }
    }
}

/// Returns a port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// Prints the end of every log, for a failed test.
pub(crate) fn show_logs(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {}", path.display());
            for line in &lines[lines.len().saturating_sub(40)..] {
                eprintln!("{line}");
            }
        }
    }
}
