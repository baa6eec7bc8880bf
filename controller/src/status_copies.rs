//! Copies to the database of what was reported about Integrations, for the management API and the console, which do not ask the API server.
//!
//! Every few seconds one statement writes what has changed since, so an object at rest costs nothing, and no pass waits for it. What an older leader
//! wrote is compared in the database, and so is everything now and then, since rows may be lost without anybody here knowing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_core::ids::IntegrationId;
use grapnel_store::integrations::status::{self, ObjectStatus, StatusReport};
use grapnel_store::worker_minutes;
use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::minutes::{Minutes, Numbers};
use crate::context::Context;
use crate::error::CallError;
use crate::memory::Reported;
use crate::object::wait_until_filled;

pub mod bounded;
pub mod minutes;

/// How often an Integration is written at most.
const PERIOD: Duration = Duration::from_secs(5);

/// How often it is noted that everything is written.
const CONFIRM_EVERY: Duration = Duration::from_secs(30);

/// How long a leader is given to run a first pass over every object: until then it confirms nothing of what an earlier one wrote.
const FIRST_PASSES: Duration = Duration::from_secs(120);

/// How often what has not changed is compared with the database.
const COMPARE_EVERY: Duration = Duration::from_secs(600);

/// Integrations in one statement.
const BATCH: usize = 500;

/// Runs until stopped.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    let copying = async {
        wait_until_filled(&ctx.integrations).await;
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut copies = Copies::default();
        let mut was_copied = true;
        loop {
            ticks.tick().await;
            if !ctx.leadership.is_held() {
                continue;
            }
            let copied = copies.copy(&ctx).await;
            if let Err(error) = &copied
                && was_copied
            {
                tracing::warn!(error = %chain(error), "cannot copy what was reported to the database");
            }
            was_copied = copied.is_ok();
        }
    };
    stop.run_until_cancelled(copying).await;
}

/// What is in the database.
#[derive(Debug, Default)]
struct Copies {
    written: HashMap<IntegrationId, Copy>,
    minutes: Minutes,
    /// By the clock of the process.
    confirmed: Option<Duration>,
}

#[derive(Debug)]
struct Copy {
    status: Arc<ObjectStatus>,
    backlog: Option<i64>,
    /// By the clock of the process.
    at: Duration,
}

impl Copies {
    async fn copy(&mut self, ctx: &Context) -> Result<(), CallError> {
        let all = ctx.memory.reported();
        self.write_changed(ctx, &all).await?;
        self.write_minute(ctx, &all).await?;
        self.confirm(ctx, all.len()).await
    }

    async fn write_changed(&mut self, ctx: &Context, all: &[Reported]) -> Result<(), CallError> {
        let known: HashSet<IntegrationId> = all.iter().map(|reported| reported.id).collect();
        self.written.retain(|id, _| known.contains(id));
        let now = ctx.now();
        let due: Vec<&Reported> = all.iter().filter(|reported| self.is_due(reported, now)).collect();
        for batch in due.chunks(BATCH) {
            let reports: Vec<_> = batch.iter().map(|reported| report(reported)).collect();
            ctx.database(status::report(&ctx.db, ctx.leadership.epoch, &reports)).await?;
            for reported in batch {
                let copy = Copy { status: Arc::clone(&reported.status), backlog: reported.backlog, at: now };
                self.written.insert(reported.id, copy);
            }
        }
        Ok(())
    }

    fn is_due(&self, reported: &Reported, now: Duration) -> bool {
        self.written.get(&reported.id).is_none_or(|copy| {
            copy.backlog != reported.backlog
                || copy.status != reported.status
                || now.saturating_sub(copy.at) >= COMPARE_EVERY
        })
    }

    async fn write_minute(&mut self, ctx: &Context, all: &[Reported]) -> Result<(), CallError> {
        let over = self.minutes.read(
            Timestamp::now(),
            all.iter().map(|reported| {
                let workers = reported.status.workers;
                let numbers =
                    Numbers { backlog: reported.backlog, desired: workers.desired, ready: workers.ready };
                (reported.id, numbers)
            }),
        );
        for batch in over.chunks(BATCH) {
            let added = ctx.database(worker_minutes::add(&ctx.db, ctx.leadership.epoch, batch)).await;
            if added.is_err() {
                self.minutes.forget();
            }
            added?;
        }
        Ok(())
    }

    async fn confirm(&mut self, ctx: &Context, reported: usize) -> Result<(), CallError> {
        let now = ctx.now();
        let is_due = self.confirmed.is_none_or(|at| now.saturating_sub(at) >= CONFIRM_EVERY);
        let is_complete = reported >= ctx.integrations.len() || now >= FIRST_PASSES;
        if is_due && is_complete {
            ctx.database(status::confirm(&ctx.db, ctx.leadership.epoch)).await?;
            self.confirmed = Some(now);
        }
        Ok(())
    }
}

fn report(reported: &Reported) -> StatusReport<'_> {
    StatusReport { id: reported.id, status: &reported.status, backlog: reported.backlog }
}
