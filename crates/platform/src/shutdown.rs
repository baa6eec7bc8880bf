//! Stopping in order: a signal, stages one after the other, and a deadline for all of them.
//!
//! Every long-lived task belongs to a stage. A stage is told to stop when the one before it has ended: first nothing
//! new comes in, then what came in is finished. A task that ends before it was told to, by an error or a panic, stops
//! the whole process with a failure: half a process is worse than a restart.

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
    /// What the tasks of the stage wait for.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// Answers when a task of the stage ends; never when it has none.
    async fn ended(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(name)) => anyhow::anyhow!("the task {name} ended unexpectedly"),
            Some(Err(error)) => anyhow::Error::from(error).context("a task failed"),
            None => std::future::pending().await,
        }
    }
}

/// Completes on SIGTERM or SIGINT.
pub async fn requested() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Runs until a stop is requested or a task ends early, then stops the stages in order within the deadline.
///
/// # Errors
/// When a task ended early, or the deadline passed; the process should then exit with a failure.
pub async fn supervise(
    mut stages: Vec<Stage>,
    deadline: Duration,
    requested: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let early = futures::future::select_all(stages.iter_mut().map(|stage| Box::pin(stage.ended())));
    let failure = tokio::select! {
        result = requested => result.err(),
        (error, _, _) = early => Some(error),
    };
    tracing::info!("stopping");
    let ends_at = Instant::now() + deadline;
    for stage in &mut stages {
        stage.token.cancel();
        let all_ended = async { while stage.tasks.join_next().await.is_some() {} };
        if timeout_at(ends_at, all_ended).await.is_err() {
            bail!("tasks were still running at the shutdown's deadline of {} s", deadline.as_secs());
        }
    }
    tracing::info!("stopped");
    failure.map_or(Ok(()), Err)
}
