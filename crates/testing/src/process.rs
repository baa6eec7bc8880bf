//! The real programs, run as processes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::environment::{Environment, next_number};
use crate::wait::{WAIT_TIMEOUT, wait_until};

/// The lines that are printed of each log of a failed test.
const PRINTED_LINES: usize = 40;

/// A running program, whose log goes to a file. It is killed when dropped.
pub struct TestProcess {
    child: Child,
    log: PathBuf,
}

impl TestProcess {
    /// Starts a program that runs until it is stopped.
    pub fn start(program: &Path, arguments: &[&str], environment: &Environment, directory: &Path) -> Self {
        let name = program.file_name().expect("a program").to_string_lossy();
        // A role, or a file.
        let first = Path::new(arguments.first().copied().unwrap_or_default());
        let role = first.file_name().unwrap_or_default().to_string_lossy();
        let log = directory.join(format!("{name}-{role}-{}.log", next_number()));
        let file = File::create(&log).expect("create a log file");
        let mut command = command(program, arguments, environment);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn();
        Self { child: child.expect("the program starts"), log }
    }

    pub fn log(&self) -> String {
        // Tests send bytes that are not UTF-8, and they may appear here.
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub async fn wait_for_log(&self, text: &str) {
        wait_until(&format!("{text:?} in the log"), async || self.log().contains(text)).await;
    }

    /// Returns the resident memory in KiB, without that of the program's file, which is large in a debug build.
    pub fn allocated_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Sends SIGKILL, so that nothing is finished or logged.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill the process");
        self.child.wait().expect("wait for the process");
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill");
        assert!(status.success(), "kill -s {name} {pid}");
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait().await
    }

    /// Waits for the end; fails after [`WAIT_TIMEOUT`].
    pub async fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for the process") {
                return status;
            }
            assert!(Instant::now() < deadline, "the process did not end; its log:\n{}", self.log());
            sleep(Duration::from_millis(25)).await;
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("read the state of the process").is_none()
    }
}

impl Drop for TestProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        if self.child.kill().is_ok() && self.child.wait().is_err() {
            eprintln!("cannot wait for a process");
        }
    }
}

/// Runs a program to its end; fails after [`WAIT_TIMEOUT`].
pub async fn run_to_end(program: &Path, arguments: &[&str], environment: &Environment) -> Output {
    let mut command = command(program, arguments, environment);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("the program starts");
    let pid = child.id().to_string();
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    match timeout(WAIT_TIMEOUT, ended).await {
        Ok(output) => output.expect("no panic").expect("its output"),
        Err(_elapsed) => {
            // Otherwise the end of the test would wait for it.
            let killed = Command::new("kill").args(["-s", "KILL", &pid]).status();
            panic!("{arguments:?} did not end (killed: {killed:?})");
        }
    }
}

/// Prints the end of every log in a directory, for a failed test.
pub fn print_logs(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {}", path.display());
            for line in &lines[lines.len().saturating_sub(PRINTED_LINES)..] {
                eprintln!("{line}");
            }
        }
    }
}

fn command(program: &Path, arguments: &[&str], environment: &Environment) -> Command {
    assert!(program.exists(), "{} is not built: run cargo build --workspace first", program.display());
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment.variables());
    command
}
