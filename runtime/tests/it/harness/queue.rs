//! A destination's queue, as RabbitMQ has it at this moment.

use grapnel_platform::queue::QueueConnection;
use uuid::Uuid;

use super::{Platform, wait_for};

pub(crate) struct Queue {
    link: QueueConnection,
    name: String,
}

impl Queue {
    /// The queue of the destination `orders` of the only Integration.
    pub(crate) async fn of(platform: &Platform) -> Self {
        let id: Uuid = sqlx::query_scalar("SELECT id FROM integrations")
            .fetch_one(&platform.pool)
            .await
            .expect("an integration");
        Self {
            link: QueueConnection::new(platform.services.rabbitmq_url.clone().into(), "grapnel-tests"),
            name: grapnel_crds::names::queue_name(&platform.queue_prefix, id, "orders"),
        }
    }

    /// Messages that no worker has fetched.
    pub(crate) async fn messages(&self) -> u32 {
        self.link.ready_messages(&self.name).await.expect("an answer").unwrap_or(0)
    }

    pub(crate) async fn wait_for(&self, messages: u32) {
        wait_for(&format!("{messages} messages"), || async { self.messages().await >= messages }).await;
    }

    pub(crate) async fn wait_for_none(&self) {
        wait_for("an empty queue", || async { self.messages().await == 0 }).await;
    }

    /// With all that is in it.
    pub(crate) async fn delete(&self) {
        self.link.delete_queue(&self.name).await.expect("delete the queue");
    }
}
