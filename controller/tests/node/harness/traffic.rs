//! Numbered traffic while everything under it is replaced, deleted and restarted.
//!
//! What a provider may rely on: an event that was answered with 2xx is delivered, and any other answer is an honest 503.

use std::time::Instant;

use super::Node;
use super::database::Database;
use super::output;
use super::prober::Prober;
use super::wait::{seconds, wait_for};

const NAME: &str = "prober";

/// Deliveries after which traffic counts as flowing again.
const FLOWING: u64 = 20;

pub(crate) struct Traffic<'a> {
    node: &'a Node,
    database: Database,
    prober: Prober,
}

impl<'a> Traffic<'a> {
    /// Starts the traffic and waits until deliveries arrive.
    pub(crate) async fn start(node: &'a Node, database: Database) -> Self {
        let arguments =
            ["--rate", "50", "--duration-seconds", "900", "--retry-unknown", "--settle-seconds", "120"];
        let prober = Prober::start(node, NAME, &arguments).await;
        let traffic = Self { node, database, prober };
        traffic.wait_until_flowing("the start", 0, 180).await;
        traffic
    }

    /// Does something, and waits until everything is ready and traffic flows again.
    pub(crate) async fn disturb(&self, what: &str, disturbance: impl AsyncFnOnce()) {
        let started = Instant::now();
        disturbance().await;
        for deployment in ["grapnel-api", "grapnel-manage", "grapnel-controller"] {
            self.node.wait_for_rollout(deployment).await;
        }
        // The load generator reports nothing before its end, so the database is asked.
        wait_for(&format!("PostgreSQL after: {what}"), seconds(180), async || {
            self.database.query(self.node, "SELECT 1").map(|_| true)
        })
        .await;
        let before = self.database.delivered(self.node).expect("PostgreSQL answers");
        self.wait_until_flowing(what, before, 180).await;
        output::note(&format!("{what}: {}", output::seconds(started.elapsed())));
    }

    /// Ends the traffic, checks the ledger and describes it.
    pub(crate) async fn finish(self) -> String {
        self.prober.interrupt();
        let ledger = self.prober.into_ledger(seconds(180)).await;
        let unexpected = ledger.statuses().into_iter().any(|status| !["200", "202", "503"].contains(&status));
        assert!(!unexpected, "answers other than 2xx and 503: {}", ledger.answers());
        self.node.remove(NAME).await;
        format!(
            "{} accepted, {} lost, {} phantom, answers {}",
            ledger.count("/accepted"),
            ledger.count("/deliveries/lost"),
            ledger.count("/deliveries/phantom"),
            ledger.answers(),
        )
    }

    async fn wait_until_flowing(&self, what: &str, before: u64, limit: u64) {
        wait_for(&format!("deliveries after: {what}"), seconds(limit), async || {
            Ok(self.database.delivered(self.node)? > before + FLOWING)
        })
        .await;
    }
}
