//! The load generator next to the node: it numbers and signs webhooks, receives their deliveries, and keeps a ledger.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::integrations::secret_of;
use super::wait::wait_for;
use super::{Node, variable};

/// The arguments that come before those of a run. `GRAPNEL_PROBER` is the program.
const SUBCOMMAND: &[&str] = &["run"];

/// A running load generator. It is killed when dropped.
pub(crate) struct Prober {
    child: Child,
    ledger: PathBuf,
}

/// The result of a run, in JSON.
pub(crate) struct Ledger(Value);

impl Prober {
    /// Starts the load generator with an Integration of this name that delivers back to it.
    pub(crate) async fn start(node: &Node, name: &str, arguments: &[&str]) -> Self {
        let sink = free_address(&node.host_address);
        node.apply_acme(name, name, &format!("http://{sink}/")).await;
        node.wait_until_ready(name).await;
        let secret_file = node.run_dir.join("probe-secret");
        std::fs::write(&secret_file, secret_of(name)).expect("write the secret");
        let ledger = node.run_dir.join(format!("ledger-{name}.json"));
        let child = Command::new(variable("GRAPNEL_PROBER"))
            .args(SUBCOMMAND)
            .args([
                "--target",
                &format!("{}/webhooks/{name}", node.api),
                "--provider",
                "acme",
                "--secret-file",
            ])
            .arg(secret_file)
            .args(["--sink-addr", &sink, "--json"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(&ledger).expect("create the ledger"))
            .stderr(File::create(node.run_dir.join("probe.log")).expect("create a log"))
            .spawn()
            .expect("the load generator starts");
        Self { child, ledger }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the process can be waited for").is_some()
    }

    /// Stops sending. Deliveries are awaited before it ends.
    pub(crate) fn interrupt(&self) {
        let status = Command::new("kill").args(["-s", "INT", &self.child.id().to_string()]).status();
        assert!(status.expect("kill starts").success(), "the load generator has ended too early");
    }

    /// Waits until it has ended, and returns a ledger that adds up.
    pub(crate) async fn into_ledger(mut self, limit: Duration) -> Ledger {
        wait_for("the load generator to end", limit, async || Ok(self.has_ended())).await;
        let text = std::fs::read(&self.ledger).expect("read the ledger");
        let ledger = Ledger(serde_json::from_slice(&text).expect("the ledger is JSON"));
        assert_eq!(ledger.0["ok"], true, "the ledger does not add up: {}", ledger.0["faults"]);
        ledger
    }
}

impl Ledger {
    /// A count, by its JSON pointer.
    pub(crate) fn count(&self, pointer: &str) -> u64 {
        let count = self.0.pointer(pointer).and_then(Value::as_u64);
        count.with_context(|| format!("the ledger has no {pointer}")).expect("the ledger is complete")
    }

    /// All answers, by status code.
    pub(crate) fn answers(&self) -> &Value {
        &self.0["answers"]
    }

    /// The status codes of all answers.
    pub(crate) fn statuses(&self) -> Vec<&str> {
        let answers = self.answers().as_object().expect("answers by status code");
        answers.keys().map(String::as_str).collect()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        // It may have ended by itself.
        if self.child.kill().is_ok() && self.child.wait().is_err() {
            eprintln!("the load generator could not be stopped");
        }
    }
}

/// A port of this machine that was free a moment ago.
fn free_address(host: &str) -> String {
    let listener = TcpListener::bind((host, 0)).expect("a free port");
    listener.local_addr().expect("the port has a number").to_string()
}
