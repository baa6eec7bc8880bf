//! The release of the chart under test.

use super::{Node, PATIENCE, PLATFORM, checkout};

pub(crate) const RELEASE: &str = "grapnel";

/// How long `helm uninstall` may take; workers are drained before it ends.
const UNINSTALL_TIMEOUT: &str = "160s";

impl Node {
    /// Installs the chart with datastores outside the cluster, or upgrades to the same values and those given here. The
    /// definition may belong to a release in another namespace.
    pub(crate) fn install_release(&self, more: &[&str]) {
        let line = format!(
            "upgrade --install {RELEASE} --namespace {PLATFORM} --take-ownership --wait --timeout {}",
            patience()
        );
        let values = self.values.to_str().expect("a path in UTF-8");
        self.helm(&line, &[&[&chart(), "--values", values], more].concat());
    }

    /// Uninstalls the release with one of the helms.
    pub(crate) fn uninstall_release(&self, helm: &str, more: &[&str]) {
        let line = format!("uninstall {RELEASE} --namespace {PLATFORM} --wait --timeout {UNINSTALL_TIMEOUT}");
        self.helm_of(helm, &line, more);
    }

    /// Runs `helm test` with one of the helms.
    pub(crate) fn test_release(&self, helm: &str) {
        let line = format!("test {RELEASE} --namespace {PLATFORM} --timeout {}", patience());
        self.helm_of(helm, &line, &[]);
    }
}

pub(crate) fn chart() -> String {
    checkout("charts/grapnel").to_str().expect("a path in UTF-8").to_owned()
}

/// The usual deadline, as helm reads it.
pub(crate) fn patience() -> String {
    format!("{}s", PATIENCE.as_secs())
}
