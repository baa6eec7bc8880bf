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
        let output = match self {
            Database::Outside => {
                node.run("psql", "psql", "-Atq", &["-d", &variable("DATABASE_URL"), "-c", statement])
            }
            Database::Bundled => {
                let exec = format!("exec --namespace {PLATFORM} grapnel-postgres-0 --");
                node.try_kubectl(&format!("{exec} psql -U grapnel -d grapnel -Atq -c"), &[statement])
            }
        };
        Ok(output.context("psql failed")?.trim().to_owned())
    }

    /// How many deliveries have succeeded.
    pub(crate) fn delivered(self, node: &Node) -> anyhow::Result<u64> {
        let count = self.query(node, "SELECT count(*) FROM delivery_attempts WHERE succeeded")?;
        count.parse().with_context(|| format!("not a number: {count:?}"))
    }
}
