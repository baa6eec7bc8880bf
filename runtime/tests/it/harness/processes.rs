//! The real binary, as processes.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::PATIENCE;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A running role. It is killed when dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

fn command(arguments: &[&str], environment: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grapnel"));
    command.args(arguments).env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

pub(crate) async fn run_to_end(arguments: &[&str], environment: &[(String, String)]) -> Output {
    let mut command = command(arguments, environment);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("it starts");
    let pid = child.id().to_string();
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    match tokio::time::timeout(PATIENCE, ended).await {
        Ok(output) => output.expect("no panic").expect("its output"),
        Err(_) => {
            // Or the test would wait for it when it ends.
            let killed = Command::new("kill").args(["-s", "KILL", &pid]).status();
            panic!("{arguments:?} did not end (killed: {killed:?})");
        }
    }
}

impl Process {
    pub(crate) fn start(arguments: &[&str], environment: &[(String, String)], directory: &Path) -> Self {
        let log = directory.join(format!("{}-{}.log", arguments[0], NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = File::create(&log).expect("create a log file");
        let mut command = command(arguments, environment);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().expect("it starts");
        Self { child, log }
    }

    pub(crate) fn log(&self) -> String {
        // Lossy: a test that sends bytes which are no text may find them here.
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Memory that the process holds, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    pub(crate) async fn wait_for_log(&self, text: &str) {
        super::wait_for(&format!("{text:?} in the log"), || async { self.log().contains(text) }).await;
    }

    /// SIGKILL: nothing is drained, nothing is said.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kill the process");
        self.child.wait().expect("wait for the process");
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill");
        assert!(status.success(), "kill -s {name} {pid}");
    }

    /// SIGTERM, and how the process ended.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait().await
    }

    /// How the process ends that was asked to.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        self.wait().await
    }

    pub(crate) async fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for the process") {
                return status;
            }
            assert!(Instant::now() < deadline, "the process did not end; its log:\n{}", self.log());
            sleep(Duration::from_millis(25)).await;
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("look at the process").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        if self.child.kill().is_ok() && self.child.wait().is_err() {
            eprintln!("a process could not be waited for");
        }
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// Shows the end of every log, for a test that failed.
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
