//! RabbitMQ as the tests use it: queues under a prefix, and messages in them.

use futures::StreamExt;
use grapnel_platform::queue::{QueueConnection, close};
use lapin::BasicProperties;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use serde_json::Value;
use url::Url;

/// Returns the queues under a prefix, from the management API.
pub(crate) async fn queues(management_url: &str, prefix: &str) -> Vec<String> {
    let queues = list(management_url).await;
    let names = queues.iter().filter_map(|queue| queue["name"].as_str());
    names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect()
}

/// Returns the number of ready messages in a queue, from the management API.
pub(crate) async fn ready(management_url: &str, queue: &str) -> Option<u64> {
    let queues = list(management_url).await;
    queues.iter().find(|found| found["name"] == queue)?["messages_ready"].as_u64()
}

async fn list(management_url: &str) -> Vec<Value> {
    let mut url = Url::parse(management_url).expect("a URL");
    let (user, password) = (url.username().to_owned(), url.password().unwrap_or_default().to_owned());
    url.set_path("/api/queues/%2F");
    url.set_query(Some("columns=name,messages_ready"));
    url.set_username("").expect("a URL with a host");
    url.set_password(None).expect("a URL with a host");
    let answer =
        reqwest::Client::new().get(url).basic_auth(user, Some(password)).send().await.expect("an answer");
    answer.json().await.expect("a list")
}

/// Publishes messages to a queue that has no consumer.
pub(crate) async fn publish(url: &str, queue: &str, count: usize) {
    let link = QueueConnection::new(url.to_owned().into(), "grapnel-tests");
    let channel = link.channel().await.expect("a channel");
    for _ in 0..count {
        let properties = BasicProperties::default().with_delivery_mode(2);
        channel
            .basic_publish("".into(), queue.into(), BasicPublishOptions::default(), b"{}", properties)
            .await
            .expect("publish");
    }
    // The response to a synchronous request shows that everything before it has arrived.
    link.ready_messages(queue).await.expect("inspect the queue");
    link.close().await;
}

/// A worker that has received messages and acknowledged none of them. They are requeued when it stops.
pub(crate) struct BusyWorker {
    link: QueueConnection,
    channel: lapin::Channel,
}

impl BusyWorker {
    pub(crate) async fn stop(self) {
        close(self.channel).await;
        self.link.close().await;
    }
}

/// Receives a number of messages without acknowledging them.
pub(crate) async fn consume(url: &str, queue: &str, count: usize) -> BusyWorker {
    let link = QueueConnection::new(url.to_owned().into(), "grapnel-tests");
    let channel = link.channel().await.expect("a channel");
    let consumer = channel.basic_consume(
        queue.into(),
        "busy".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let received = consumer.await.expect("consume").take(count).collect::<Vec<_>>().await;
    assert!(
        received.iter().all(Result::is_ok) && received.len() == count,
        "{} were received",
        received.len()
    );
    BusyWorker { link, channel }
}

/// Purges a queue and returns how many messages it had.
pub(crate) async fn purge(url: &str, queue: &str) -> u32 {
    let link = QueueConnection::new(url.to_owned().into(), "grapnel-tests");
    let channel = link.channel().await.expect("a channel");
    let purged = channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.expect("purge");
    link.close().await;
    purged
}

/// Deletes the queues under a prefix, on a thread of its own: a drop cannot block on the runtime of the test.
pub(crate) fn delete_queues(url: &str, management_url: &str, prefix: &str) {
    let (url, management_url, prefix) = (url.to_owned(), management_url.to_owned(), prefix.to_owned());
    let deleted = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let link = QueueConnection::new(url.into(), "grapnel-tests");
            for queue in queues(&management_url, &prefix).await {
                link.delete_queue(&queue).await.expect("delete a queue");
            }
            link.close().await;
        });
    });
    if deleted.join().is_err() {
        eprintln!("queues of a test were not deleted");
    }
}
