//! The database of the platform, asked with psql.

use anyhow::Context;

use super::{Node, PLATFORM, variable};

/// Where PostgreSQL runs.
#[derive(Clone, Copy)]
pub(crate) enum Database {
    /// Outside the cluster, at `DATABASE_URL`.
    Outside,
    /// In a pod that the chart has brought.
    Bundled,
}

impl Database {
    /// The result of a statement, unaligned.
    pub(crate) fn query(self, node: &Node, statement: &str) -> anyhow::Result<String> {
        let result = match self {
            Database::Outside => node.try_run("psql", "psql", &[&variable("DATABASE_URL"), "-Atqc", statement]),
            Database::Bundled => node.try_kubectl(&[
                "exec", "--namespace", PLATFORM, "grapnel-postgres-0", "--",
                "psql", "--username", "grapnel", "--dbname", "grapnel", "-Atqc", statement,
            ]),
        };
        result.map(|output| output.trim().to_owned()).map_err(anyhow::Error::msg).context("psql failed")
    }

    /// How many deliveries have succeeded.
    pub(crate) fn delivered(self, node: &Node) -> anyhow::Result<u64> {
        let count = self.query(node, "SELECT count(*) FROM delivery_attempts WHERE succeeded")?;
        count.parse().with_context(|| format!("not a number: {count:?}"))
    }
}
