//! Waits on conditions.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// No wait of a test takes longer, even on a busy machine.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

/// Waits until the condition holds; fails after [`WAIT_TIMEOUT`]. Returns how long it took.
pub async fn wait_until(goal: &str, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < WAIT_TIMEOUT, "timed out waiting for {goal}");
        sleep(Duration::from_millis(20)).await;
    }
    started.elapsed()
}
