//! The API server as its users access it: through kubectl.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use std::{env, thread};

use serde_json::Value;
use uuid::Uuid;

const DEFINITION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/grapnel-crds/templates");

/// The number of processes at the same time; each mostly waits for the server.
const PARALLEL: usize = 4;

/// Longer than any step takes, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The outcome of a kubectl command.
pub(crate) struct CommandOutput {
    pub(crate) succeeded: bool,
    pub(crate) output: String,
    /// Warnings and errors.
    pub(crate) stderr: String,
}

impl CommandOutput {
    /// Returns the output of a command that must succeed without a warning.
    pub(crate) fn output(self) -> String {
        assert!(self.succeeded && self.stderr.is_empty(), "{}", self.stderr);
        self.output
    }

    /// Returns the object that a command must print.
    pub(crate) fn object(self) -> Value {
        serde_json::from_str(&self.output()).expect("the output is JSON")
    }
}

/// Applies the definitions once for all tests.
static DEFINED: LazyLock<()> = LazyLock::new(|| {
    run(&["apply", "--server-side", "--force-conflicts", "-f", DEFINITION], "").output();
    for definition in ["crd/integrations.grapnel.dev", "crd/replays.grapnel.dev"] {
        run(&["wait", "--for=condition=Established", definition, "--timeout=60s"], "").output();
    }
    // The schemas that kubectl requests are published a moment after the definitions are established.
    for kind in ["integration", "greplay"] {
        eventually("the schema is published", || run(&["explain", kind], "").succeeded);
    }
});

/// A namespace of one test, deleted at its end.
pub(crate) struct Namespace(String);

impl Namespace {
    pub(crate) fn new() -> Self {
        assert!(
            env::var_os("KUBECONFIG").is_some(),
            "KUBECONFIG is not set; `scripts/test --only cluster` starts a cluster and runs these tests"
        );
        LazyLock::force(&DEFINED);
        let name = format!("grapnel-{}", Uuid::now_v7());
        run(&["create", "namespace", &name], "").output();
        Self(name)
    }

    /// Runs kubectl in this namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> CommandOutput {
        run(&[&["--namespace", &self.0], arguments].concat(), "")
    }

    /// Runs kubectl with an object of the tables, moved into this namespace.
    pub(crate) fn send(&self, arguments: &[&str], manifest: &str) -> CommandOutput {
        let mut object: Value = serde_json::from_str(manifest).expect("a manifest is JSON");
        object["metadata"]["namespace"] = self.0.as_str().into();
        run(&[arguments, &["-f", "-"]].concat(), &object.to_string())
    }

    /// Returns the path of an object in the API.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("/apis/grapnel.dev/v1alpha1/namespaces/{}/integrations/{name}", self.0)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run(&["delete", "namespace", &self.0, "--wait=false"], "");
    }
}

fn run(arguments: &[&str], input: &str) -> CommandOutput {
    let program = env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into());
    let mut child = Command::new(&program)
        .args(["--request-timeout=30s"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{} cannot be started: {error}", program.display()));
    // kubectl may exit before it has read all input, for example at a wrong flag; its output is then the answer.
    let _unread = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("kubectl ends");
    CommandOutput {
        succeeded: output.status.success(),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Checks every case and fails with all errors, not only with the first.
pub(crate) fn check_all<T: Sync>(cases: &[T], check: impl Fn(&T) -> Result<(), String> + Sync) {
    assert!(!cases.is_empty(), "there are cases");
    let check = &check;
    let problems: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = cases
            .chunks(cases.len().div_ceil(PARALLEL))
            .map(|cases| {
                scope.spawn(move || cases.iter().filter_map(|case| check(case).err()).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a check does not panic")).collect()
    });
    assert!(problems.is_empty(), "{} of {} cases:\n{}", problems.len(), cases.len(), problems.join("\n"));
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}
