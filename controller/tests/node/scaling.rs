//! Workers follow the backlog: none, several under a burst of slow deliveries, none.

use std::time::{Duration, Instant};

use crate::harness::Node;
use crate::harness::prober::Prober;
use crate::harness::wait::{seconds, wait_for};

const NAME: &str = "burst";
/// How often the workers are counted during the burst.
const INTERVAL: Duration = Duration::from_millis(200);

pub(crate) async fn scaling(node: &Node) -> String {
    let arguments =
        ["--events", "600", "--concurrency", "32", "--sink-delay-ms", "400", "--settle-seconds", "120"];
    let mut prober = Prober::start(node, NAME, &arguments).await;
    let (mut most, deadline) = (0, Instant::now() + seconds(300));
    while !prober.has_ended() {
        assert!(Instant::now() < deadline, "the burst does not end");
        most = most.max(ready_workers(node).await.unwrap_or(0));
        tokio::time::sleep(INTERVAL).await;
    }
    let ledger = prober.into_ledger(seconds(1)).await;
    assert!(most >= 2, "{most} workers at most during a burst");
    wait_for("the workers to go", seconds(180), async || {
        let wanted = node.workers(NAME).await?.spec.and_then(|spec| spec.replicas);
        Ok(wanted == Some(0) && ready_workers(node).await? == 0)
    })
    .await;
    node.remove(NAME).await;
    format!("0 → {most} → 0 workers, {} delivered", ledger.count("/deliveries/delivered"))
}

async fn ready_workers(node: &Node) -> anyhow::Result<i32> {
    Ok(node.workers(NAME).await?.status.and_then(|status| status.ready_replicas).unwrap_or(0))
}
