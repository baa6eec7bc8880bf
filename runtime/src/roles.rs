//! The roles of the binary: which parts each is made of, and in which order they stop.

pub mod api;
pub mod worker;
pub mod dev;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use sqlx::postgres::PgPool;
use tokio::net::TcpListener;

use crate::health::{Probes, ops_router};
use crate::server;
use crate::shutdown::Stage;
use crate::store::migrate;
use crate::telemetry::chain;

/// How often a process that waits for its schema looks again.
const SCHEMA_POLL: Duration = Duration::from_secs(1);

/// How long one look may take.
const SCHEMA_DEADLINE: Duration = Duration::from_secs(10);

/// How long the operations port answers after it was told to stop.
const OPS_DRAIN: Duration = Duration::from_secs(1);

/// How often histograms are condensed, so that they do not grow while nobody scrapes.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Starts the metrics of the process.
pub fn start_metrics() -> anyhow::Result<PrometheusHandle> {
    PrometheusBuilder::new()
        .set_buckets(&[
            0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 256.0,
        ])
        .context("configure metrics")?
        .install_recorder()
        .context("start metrics")
}

/// Binds a port, or says which one could not be bound.
pub async fn bind(address: SocketAddr, name: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{name}: cannot listen on {address}"))
}

/// The operations port, in a stage of its own: it is the last to go.
pub fn ops_stage(listener: TcpListener, probes: Arc<dyn Probes>, metrics: PrometheusHandle) -> Stage {
    let mut stage = Stage::default();
    let (router, token) = (ops_router(probes, metrics.clone()), stage.token());
    stage.spawn("operations port", server::serve(listener, router, token.clone(), OPS_DRAIN));
    stage.spawn("metrics upkeep", async move {
        while token.run_until_cancelled(tokio::time::sleep(METRICS_UPKEEP)).await.is_some() {
            metrics.run_upkeep();
        }
    });
    stage
}

/// Waits until the migrations have run. Pods of a new version wait here for the migration job.
pub async fn wait_for_schema(pool: &PgPool) {
    loop {
        let reason = match tokio::time::timeout(SCHEMA_DEADLINE, migrate::require(pool)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(&*error),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::info!(reason, "waiting for the database");
        tokio::time::sleep(SCHEMA_POLL).await;
    }
}
