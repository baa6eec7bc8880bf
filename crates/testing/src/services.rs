//! PostgreSQL, Redis and RabbitMQ: shared by the tests, or of one test alone.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

use crate::environment::unique_name;

/// How many tests may have services of their own at the same time: each has three servers, and a server takes long to
/// start on a machine that is busy with the others.
static OWN: Semaphore = Semaphore::const_new(2);

/// The URLs of the services, and the control of those that one test owns.
#[derive(Debug)]
pub struct TestServices {
    pub database_url: String,
    pub redis_url: String,
    pub rabbitmq_url: String,
    /// The management API of RabbitMQ.
    pub management_url: String,
    /// The state directory of `scripts/services`.
    state: PathBuf,
    /// Held for as long as one test owns them.
    own: Option<SemaphorePermit<'static>>,
}

impl TestServices {
    /// Returns the services that `scripts/test` started.
    pub fn shared() -> Self {
        let variable = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("{name} is not set: run scripts/test, or eval \"$(scripts/services env)\"")
            })
        };
        Self::with(variable, None)
    }

    /// Starts services for one test. They are stopped and removed when dropped.
    pub async fn own() -> Self {
        let permit = OWN.acquire().await.expect("a permit");
        let state = std::env::temp_dir().join(unique_name("grapnel-services"));
        run_script(&["up", "--in-memory"], &state);
        let exports = run_script(&["env"], &state);
        let variable = |name: &str| {
            let prefix = format!("export {name}=");
            let line = exports.lines().find_map(|line| line.strip_prefix(&prefix));
            line.unwrap_or_else(|| panic!("no {name} in {exports}")).trim_matches('\'').to_owned()
        };
        Self::with(variable, Some(permit))
    }

    fn with(variable: impl Fn(&str) -> String, own: Option<SemaphorePermit<'static>>) -> Self {
        Self {
            database_url: variable("DATABASE_URL"),
            redis_url: variable("REDIS_URL"),
            rabbitmq_url: variable("RABBITMQ_URL"),
            management_url: variable("RABBITMQ_MANAGEMENT_URL"),
            state: variable("GRAPNEL_SERVICES_STATE").into(),
            own,
        }
    }

    /// Returns whether they are removed as a whole, with all data.
    pub fn are_own(&self) -> bool {
        self.own.is_some()
    }

    /// Performs `start`, `stop`, `restart` or `kill` on one of `postgres`, `redis`, `rabbitmq`.
    pub async fn control(&self, action: &str, service: &str) {
        assert!(self.are_own(), "a test may control only services of its own");
        self.run([action, service]).await;
    }

    /// Runs RabbitMQ's tool, on services that are shared only for what concerns the test's own queues.
    pub async fn rabbitmqctl<const N: usize>(&self, arguments: [&str; N]) {
        self.run(["rabbitmqctl"].into_iter().chain(arguments)).await;
    }

    async fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) {
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let state = self.state.clone();
        // The rest of the test continues in the meantime.
        let done = tokio::task::spawn_blocking(move || run_script(&arguments, &state)).await;
        done.expect("the script succeeds");
    }

    pub fn database_url_of(&self, database: &str) -> String {
        let mut url = Url::parse(&self.database_url).expect("a URL");
        url.set_path(database);
        url.into()
    }
}

impl Drop for TestServices {
    fn drop(&mut self) {
        if self.are_own() {
            run_quietly(Command::new(script()).args(["down", "--state"]).arg(&self.state));
        }
    }
}

/// Runs a command that cleans up. A failure is only printed: the test may have failed for another reason.
pub(crate) fn run_quietly(command: &mut Command) {
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => eprintln!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => eprintln!("{error}"),
    }
}

fn run_script(arguments: &[impl AsRef<OsStr> + Debug], state: &Path) -> String {
    let output =
        Command::new(script()).args(arguments).arg("--state").arg(state).output().expect("scripts/services");
    assert!(
        output.status.success(),
        "scripts/services {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/services")
}
