//! The release of the chart under test.

use super::{Node, PATIENCE, PLATFORM, checkout};

pub(crate) const RELEASE: &str = "grapnel";

/// How long `helm uninstall` may take; workers are drained before it ends.
const UNINSTALL_TIMEOUT: &str = "160s";

impl Node {
    /// Installs the chart with datastores outside the cluster, or upgrades to the same values and those given here. The
    /// definition may belong to a release in another namespace.
    pub(crate) fn install_release(&self, more: &[&str]) {
        let (chart, patience) = (chart(), patience());
        let values = self.values.to_str().expect("a path in UTF-8");
        let arguments = [
            "upgrade", "--take-ownership", "--install", RELEASE, &chart, "--namespace", PLATFORM, "--values", values,
            "--wait", "--timeout", &patience,
        ];
        self.helm(&[&arguments, more].concat());
    }

    /// Uninstalls the release, which may be missing if `more` says so.
    pub(crate) fn uninstall_release(&self, more: &[&str]) {
        let arguments = ["uninstall", RELEASE, "--namespace", PLATFORM, "--wait", "--timeout", UNINSTALL_TIMEOUT];
        self.helm(&[&arguments, more].concat());
    }
}

pub(crate) fn chart() -> String {
    checkout("charts/grapnel").to_str().expect("a path in UTF-8").to_owned()
}

/// The usual deadline, as helm reads it.
pub(crate) fn patience() -> String {
    format!("{}s", PATIENCE.as_secs())
}
