//! The programs of an administrator: helm, kubectl and the scripts of this checkout.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use super::{Node, variable};

/// Longer than any of them takes by its own deadlines.
const LIMIT: Duration = Duration::from_secs(600);

impl Node {
    /// Runs a program to its end and returns its standard output, or both outputs as the error. Both are appended to the
    /// log of this name.
    pub(crate) fn try_run(&self, log: &str, program: &str, arguments: &[&str]) -> Result<String, String> {
        self.try_run_command(log, Command::new("timeout").arg(LIMIT.as_secs().to_string()).arg(program).args(arguments))
    }

    pub(crate) fn try_run_command(&self, log: &str, command: &mut Command) -> Result<String, String> {
        let result = command.output().expect("the program starts");
        let stdout = String::from_utf8_lossy(&result.stdout).into_owned();
        let both = format!("{stdout}{}", String::from_utf8_lossy(&result.stderr));
        let path = self.run_dir.join(log).with_extension("log");
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("open a log");
        file.write_all(both.as_bytes()).expect("write to a log");
        if result.status.success() { Ok(stdout) } else { Err(both) }
    }

    /// Runs helm, which must succeed.
    pub(crate) fn helm(&self, arguments: &[&str]) {
        self.helm_of("HELM", arguments);
    }

    /// Runs the helm that a variable names, which must succeed.
    pub(crate) fn helm_of(&self, variable_name: &str, arguments: &[&str]) -> String {
        let result = self.try_run("helm", &variable(variable_name), arguments);
        result.unwrap_or_else(|error| panic!("helm {} failed: {error}", arguments[0]))
    }

    /// Runs kubectl as the administrator, which must succeed, and returns its output.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap_or_else(|error| panic!("kubectl {arguments:?} failed: {error}"))
    }

    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        self.try_run("kubectl", &variable("KUBECTL"), &[&["--request-timeout", "30s"], arguments].concat())
    }

    /// Runs `scripts/cluster` on the cluster under test.
    pub(crate) fn cluster_script(&self, arguments: &[&str]) {
        self.script("GRAPNEL_CLUSTER", "GRAPNEL_CLUSTER_STATE", arguments);
    }

    /// Runs `scripts/services` on the datastores outside the cluster.
    pub(crate) fn services_script(&self, arguments: &[&str]) {
        self.script("GRAPNEL_SERVICES", "GRAPNEL_SERVICES_STATE", arguments);
    }

    fn script(&self, script: &str, state: &str, arguments: &[&str]) {
        let arguments = [&["--state", &variable(state)], arguments].concat();
        let result = self.try_run("scripts", &variable(script), &arguments);
        result.unwrap_or_else(|error| panic!("{arguments:?} failed: {error}"));
    }
}
