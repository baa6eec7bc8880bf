//! Failures lose nothing.
//!
//! Processes are killed and stopped, datastores restarted and emptied, networks broken, mostly under load with an exact
//! ledger. An event that was answered with 202 is delivered within a bound, none arrives that was never accepted, and one is
//! delivered twice only if the process that delivered it, or the database that knew about it, was killed.

mod api;
mod worker;
mod takeover;
mod claim;
mod dispatch;
mod rabbitmq;
mod redis;
mod postgres;
mod read_only;
mod readers;
mod network;
mod start;
mod notifications;

use std::time::Duration;

use tokio::time::Instant;

/// A recovery that starts after the requeue bound (3 s in these tests) is complete by then, even on a busy machine. Leases that must not
/// end before run for longer.
const BOUND: Duration = Duration::from_secs(60);

/// Prints how long some work took; fails when it took longer than the limit.
pub(crate) async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let done = tokio::time::timeout(limit, work).await;
    let took = started.elapsed().as_secs_f64();
    eprintln!("{what}: {took:.1} s");
    done.unwrap_or_else(|_| panic!("{what}: not within {} s", limit.as_secs()))
}
