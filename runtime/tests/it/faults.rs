//! What is lost when something fails: nothing.
//!
//! Processes are killed and stopped, datastores restarted and emptied, networks broken, most of it under load with the
//! probe's exact ledger. What was answered 202 is delivered within a bound, nothing arrives that was never accepted, and
//! an event is delivered twice only where the process that delivered it, or the database that knew of it, was killed.

mod api;
mod worker;
mod claim;
mod dispatch;
mod rabbitmq;
mod redis;
mod postgres;
mod network;
mod start;

use std::time::Duration;

use tokio::time::Instant;

/// What recovers after the requeue bound (3 s in these tests) has done so by then, also on a busy machine.
const BOUND: Duration = Duration::from_secs(20);

/// Tells how long something took; fails when it took longer than it may.
async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let done = tokio::time::timeout(limit, work).await;
    let took = started.elapsed().as_secs_f64();
    eprintln!("{what}: {took:.1} s");
    done.unwrap_or_else(|_| panic!("{what}: not within {} s", limit.as_secs()))
}
