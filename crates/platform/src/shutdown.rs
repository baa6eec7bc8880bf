//! Stops a process in order: a signal, stages one after the other, and one deadline for all.
//!
//! Every long-lived task belongs to a stage. A stage is cancelled when the previous one has ended: first nothing new is
//! accepted, then accepted work is finished. A task that ends before it was cancelled, by an error or a panic, stops the
//! whole process with a failure: half a process is worse than a restart.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Tasks that stop together.
#[derive(Debug, Default)]
pub struct Stage {
    token: CancellationToken,
    tasks: JoinSet<&'static str>,
}

impl Stage {
    /// Returns the token that is cancelled when the stage is to stop.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Starts a task that ends after the token is cancelled.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// Waits until a task of the stage ends; never returns when it has none.
    async fn ended(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(name)) => anyhow::anyhow!("the task {name} ended unexpectedly"),
            Some(Err(error)) => anyhow::Error::from(error).context("a task failed"),
            None => std::future::pending().await,
        }
    }
}

/// Waits for SIGTERM or SIGINT.
pub async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Runs until the stop signal or until a task ends early, then stops the stages in order within the deadline.
///
/// # Errors
/// When a task ended early or the deadline passed; the process should then exit with a failure.
pub async fn supervise(
    mut stages: Vec<Stage>,
    deadline: Duration,
    stop_signal: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let early = futures::future::select_all(stages.iter_mut().map(|stage| Box::pin(stage.ended())));
    let failure = tokio::select! {
        result = stop_signal => result.err(),
        (error, _, _) = early => Some(error),
    };
    tracing::info!("stopping");
    let ends_at = Instant::now() + deadline;
    for stage in &mut stages {
        stage.token.cancel();
        let all_ended = async { while stage.tasks.join_next().await.is_some() {} };
        if timeout_at(ends_at, all_ended).await.is_err() {
            bail!("tasks were still running at the shutdown deadline of {} s", deadline.as_secs());
        }
    }
    tracing::info!("stopped");
    failure.map_or(Ok(()), Err)
}
