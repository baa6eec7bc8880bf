//! Requests of attackers and broken clients to the public port: each is refused with a clear error, nothing panics, nothing
//! grows, and the next good webhook is accepted.

mod bodies;
mod heads;
mod holding;
mod paths;
mod slow;

use grapnel_testing::{TestProcess, acme_event};

use super::harness::{Platform, acme_integration, destination};

/// Neither one request nor many together may cost more. The bodies in memory are bounded to 64 MiB, and an unoptimized
/// build with its allocator needs some more.
const MAX_GROWTH_KIB: u64 = 200 * 1024;

/// An api that is attacked, and checked afterwards.
struct Target {
    platform: Platform,
    api: TestProcess,
    allocated_kib: u64,
}

impl Target {
    async fn new() -> Self {
        let destination = destination("orders", "http://127.0.0.1:9/");
        Self::with(&acme_integration(&[destination])).await
    }

    async fn with(integrations: &str) -> Self {
        let platform = Platform::new().await;
        let api = platform.start_api(integrations).await;
        assert_eq!(platform.post_acme(&acme_event("before")).await.status, 202);
        let allocated_kib = api.allocated_kib();
        Self { platform, api, allocated_kib }
    }

    fn assert_bounded(&self) {
        let now = self.api.allocated_kib();
        assert!(now < self.allocated_kib + MAX_GROWTH_KIB, "from {} to {now} KiB", self.allocated_kib);
    }

    /// Checks that the api accepts and stores as before, and that nothing of the attack is in the database.
    async fn assert_unharmed(mut self) {
        assert!(self.api.is_running());
        self.assert_bounded();
        let good = self.platform.post_acme(&acme_event("after")).await;
        assert_eq!(good.status, 202, "{good:?}");
        assert_eq!(self.platform.count("SELECT count(*) FROM events").await, 2);
        let log = self.api.log();
        assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
    }
}
