//! The queue of a destination.

use grapnel_testing::TestQueue;

use super::Platform;

impl Platform {
    /// Returns the queue of a destination.
    pub(crate) fn queue(&self, integration: &str, destination: &str) -> TestQueue {
        let id = grapnel_crds::names::integration_id(None, "test", integration);
        let name = grapnel_crds::names::queue_name(&self.queue_prefix, id, destination);
        TestQueue::new(&self.services, name)
    }

    /// Returns the queue of the destination `orders` of the only Integration.
    pub(crate) async fn orders_queue(&self) -> TestQueue {
        let id = self.database.text("SELECT id::text FROM integrations").await.expect("an id");
        let id: uuid::Uuid = id.parse().expect("a UUID");
        TestQueue::new(&self.services, grapnel_crds::names::queue_name(&self.queue_prefix, id, "orders"))
    }
}
