//! Waiting for conditions, always with a deadline.

use std::time::{Duration, Instant};

/// How often a condition is checked.
const INTERVAL: Duration = Duration::from_millis(100);

/// Waits until the condition holds, and panics at the deadline. An error means "not yet", since the API server and the
/// platform are restarted during the run; the last error is part of the panic's message.
pub(crate) async fn wait_for(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> anyhow::Result<bool>,
) {
    let deadline = Instant::now() + limit;
    loop {
        let error = match condition().await {
            Ok(true) => return,
            Ok(false) => String::new(),
            Err(error) => format!(" ({error:#})"),
        };
        assert!(Instant::now() < deadline, "waited {} s in vain for {what}{error}", limit.as_secs());
        tokio::time::sleep(INTERVAL).await;
    }
}

/// A deadline that is specific to one place.
pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
