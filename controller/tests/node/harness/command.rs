//! The programs of an administrator: helm, kubectl and the scripts of this checkout.
//!
//! A command line is split at spaces. Arguments that may contain spaces follow it.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;

use super::{Node, variable};

/// Seconds that no program here takes, since each has shorter deadlines of its own.
const LIMIT: &str = "600";

impl Node {
    /// Runs helm, which must succeed.
    pub(crate) fn helm(&self, line: &str, more: &[&str]) -> String {
        self.helm_of("HELM", line, more)
    }

    /// Runs the helm that a variable names, which must succeed.
    pub(crate) fn helm_of(&self, name: &str, line: &str, more: &[&str]) -> String {
        let result = self.run("helm", &variable(name), line, more);
        result.unwrap_or_else(|error| panic!("helm {line}: {error}"))
    }

    /// Runs kubectl as the administrator, which must succeed, and returns its output.
    pub(crate) fn kubectl(&self, line: &str, more: &[&str]) -> String {
        self.try_kubectl(line, more).unwrap_or_else(|error| panic!("kubectl {line}: {error}"))
    }

    /// Runs kubectl as the administrator.
    pub(crate) fn try_kubectl(&self, line: &str, more: &[&str]) -> anyhow::Result<String> {
        self.run("kubectl", &variable("KUBECTL"), &format!("--request-timeout 30s {line}"), more)
    }

    /// Runs `scripts/cluster` on the cluster under test.
    pub(crate) fn cluster_script(&self, line: &str) {
        self.script("GRAPNEL_CLUSTER", "GRAPNEL_CLUSTER_STATE", line);
    }

    /// Runs `scripts/services` on the datastores outside the cluster.
    pub(crate) fn services_script(&self, line: &str) {
        self.script("GRAPNEL_SERVICES", "GRAPNEL_SERVICES_STATE", line);
    }

    fn script(&self, script: &str, state: &str, line: &str) {
        let result = self.run("scripts", &variable(script), line, &["--state", &variable(state)]);
        result.unwrap_or_else(|error| panic!("{script} {line}: {error}"));
    }

    /// Runs a program to its end. Its output goes to the log of this name.
    pub(crate) fn run(&self, log: &str, program: &str, line: &str, more: &[&str]) -> anyhow::Result<String> {
        // In the foreground it stays in the process group of the run.
        let mut command = Command::new("timeout");
        command.args(["--foreground", LIMIT, program]).args(line.split_whitespace()).args(more);
        self.run_command(log, &mut command)
    }

    /// Runs a command to its end and returns its standard output, or all of its output as the error.
    pub(crate) fn run_command(&self, log: &str, command: &mut Command) -> anyhow::Result<String> {
        let result = command.output().expect("the program starts");
        let output = String::from_utf8_lossy(&result.stdout).into_owned();
        let errors = String::from_utf8_lossy(&result.stderr);
        let path = self.run_dir.join(log).with_extension("log");
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("open a log");
        write!(file, "{output}{errors}").expect("write to a log");
        anyhow::ensure!(result.status.success(), "{}: {output}{errors}", result.status);
        Ok(output)
    }
}
