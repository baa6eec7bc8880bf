//! Queues in RabbitMQ, and the messages in them.

use std::sync::Arc;

use futures::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use url::Url;

use crate::services::TestServices;
use crate::wait::wait_until;

/// A queue of one destination.
pub struct TestQueue {
    broker: Broker,
    name: String,
    management_url: String,
}

impl TestQueue {
    pub fn new(services: &TestServices, name: String) -> Self {
        Self {
            broker: Broker::new(&services.rabbitmq_url),
            name,
            management_url: services.management_url.clone(),
        }
    }

    /// Returns the number of ready messages; 0 if there is no such queue.
    pub async fn messages(&self) -> u32 {
        // A passive declaration of a missing queue closes its channel.
        let channel = self.broker.channel().await;
        match self.inspect(&channel).await {
            Ok(messages) => {
                close(channel).await;
                messages
            }
            Err(error) if is_not_found(&error) => 0,
            Err(error) => panic!("{}: {error}", self.name),
        }
    }

    async fn inspect(&self, channel: &Channel) -> lapin::Result<u32> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(self.name.as_str().into(), options, FieldTable::default());
        Ok(declared.await?.message_count())
    }

    pub async fn wait_for(&self, messages: u32) {
        wait_until(&format!("{messages} messages"), async || self.messages().await >= messages).await;
    }

    pub async fn wait_until_empty(&self) {
        wait_until("an empty queue", async || self.messages().await == 0).await;
    }

    /// Waits until as many consumers are reported, which is some seconds late.
    pub async fn wait_for_consumers(&self, count: u64) {
        wait_until(&format!("{count} consumers"), async || {
            let queues = list(&self.management_url, "name,consumers").await;
            queues.iter().any(|queue| queue["name"] == self.name.as_str() && queue["consumers"] == count)
        })
        .await;
    }

    /// Publishes messages, and waits until they have arrived.
    pub async fn publish_all<'a>(&self, messages: impl IntoIterator<Item = &'a [u8]>) {
        let channel = self.broker.channel().await;
        for message in messages {
            let properties = BasicProperties::default().with_delivery_mode(2);
            let options = BasicPublishOptions::default();
            let published =
                channel.basic_publish("".into(), self.name.as_str().into(), options, message, properties);
            published.await.expect("publish a message");
        }
        // The response to a synchronous request shows that everything before it has arrived.
        self.inspect(&channel).await.expect("inspect the queue");
        close(channel).await;
    }

    /// Receives a number of messages without acknowledging them.
    pub async fn consume(&self, count: usize) -> BusyConsumer {
        let channel = self.broker.channel().await;
        let consumer = channel.basic_consume(
            self.name.as_str().into(),
            "busy".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let received = consumer.await.expect("consume").take(count).collect::<Vec<_>>().await;
        assert!(
            received.iter().all(Result::is_ok) && received.len() == count,
            "{} messages were received",
            received.len()
        );
        BusyConsumer(channel)
    }

    /// Removes the ready messages and returns their number.
    pub async fn purge(&self) -> u32 {
        let channel = self.broker.channel().await;
        let purged = channel.queue_purge(self.name.as_str().into(), QueuePurgeOptions::default()).await;
        close(channel).await;
        purged.expect("purge the queue")
    }

    /// Sets a policy, as an operator would: further messages than these are refused.
    pub async fn limit_length(&self, messages: u32) {
        let policy = json!({
            "pattern": format!("^{}$", self.name.replace('.', "[.]")),
            "definition": {"max-length": messages, "overflow": "reject-publish"},
            "apply-to": "queues",
        });
        let request =
            management_request(&self.management_url, Method::PUT, &self.policy_path()).json(&policy);
        assert!(request.send().await.expect("a response").status().is_success(), "a policy is set");
        // It is applied a moment later.
        wait_until("the policy", async || {
            let queues = list(&self.management_url, "name,policy").await;
            queues.iter().any(|queue| queue["name"] == self.name.as_str() && queue["policy"].is_string())
        })
        .await;
    }

    /// Removes the policy.
    pub async fn lift_limit(&self) {
        let request = management_request(&self.management_url, Method::DELETE, &self.policy_path());
        assert!(request.send().await.expect("a response").status().is_success(), "the policy is removed");
    }

    fn policy_path(&self) -> String {
        format!("/api/policies/%2F/{}", self.name)
    }

    /// Lets the queue commit nothing, as one that has lost the majority of its replicas: its leader keeps what it is sent, and
    /// confirms nothing.
    pub async fn suspend(&self, services: &TestServices) {
        services.rabbitmqctl(["eval", &self.call_of_leader("suspend")]).await;
    }

    /// Ends [`TestQueue::suspend`].
    pub async fn resume(&self, services: &TestServices) {
        services.rabbitmqctl(["eval", &self.call_of_leader("resume")]).await;
    }

    /// Returns an expression in Erlang. The leader of a quorum queue is a process that is named after its vhost and the queue.
    fn call_of_leader(&self, function: &str) -> String {
        format!("ok = sys:{function}(binary_to_existing_atom(<<\"%2F_{}\">>)).", self.name)
    }

    /// Declares the queue with arguments that are not ours.
    pub async fn declare_as_classic(&self) {
        let channel = self.broker.channel().await;
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(self.name.as_str().into(), options, FieldTable::default());
        declared.await.expect("declare a queue");
        close(channel).await;
    }

    /// Deletes the queue with everything in it.
    pub async fn delete(&self) {
        self.broker.delete(&self.name).await;
    }
}

/// A consumer that has received messages and acknowledged none of them. They are requeued when it stops.
pub struct BusyConsumer(Channel);

impl BusyConsumer {
    pub async fn stop(self) {
        close(self.0).await;
    }
}

impl TestServices {
    /// Returns the names of the queues with a prefix, from the management API, which is some seconds late.
    pub async fn queues(&self, prefix: &str) -> Vec<String> {
        queues(&self.management_url, prefix).await
    }

    /// Returns the number of ready messages in a queue, from the management API, which is some seconds late.
    pub async fn reported_messages(&self, queue: &str) -> Option<u64> {
        let queues = list(&self.management_url, "name,messages_ready").await;
        queues.iter().find(|found| found["name"] == queue)?["messages_ready"].as_u64()
    }

    /// Deletes the queues with a prefix, unless the services are removed as a whole.
    pub fn delete_queues(&self, prefix: &str) {
        if self.are_own() {
            return;
        }
        // On a thread of its own: this runs in a drop, which cannot block on the runtime of the test.
        let (url, management_url, prefix) =
            (self.rabbitmq_url.clone(), self.management_url.clone(), prefix.to_owned());
        let deleted = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let broker = Broker::new(&url);
                for queue in lasting_queues(&management_url, &prefix).await {
                    broker.delete(&queue).await;
                }
                broker.close().await;
            });
        });
        if deleted.join().is_err() {
            eprintln!("the queues of a test were not deleted");
        }
    }
}

async fn queues(management_url: &str, prefix: &str) -> Vec<String> {
    let queues = list(management_url, "name").await;
    let names = queues.iter().filter_map(|queue| queue["name"].as_str());
    names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect()
}

/// Leaves out the queues that go with their connection, which nobody else may delete.
async fn lasting_queues(management_url: &str, prefix: &str) -> Vec<String> {
    let queues = list(management_url, "name,exclusive").await;
    let lasting = queues.iter().filter(|queue| queue["exclusive"] != true);
    let names = lasting.filter_map(|queue| queue["name"].as_str());
    names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect()
}

async fn list(management_url: &str, columns: &str) -> Vec<Value> {
    let path = format!("/api/queues/%2F?columns={columns}");
    let request = management_request(management_url, Method::GET, &path);
    request.send().await.expect("a response").json().await.expect("a list")
}

/// Returns a request to the management API.
fn management_request(management_url: &str, method: Method, path: &str) -> RequestBuilder {
    let mut url = Url::parse(management_url).expect("a URL");
    let (user, password) = (url.username().to_owned(), url.password().unwrap_or_default().to_owned());
    url.set_username("").expect("a URL with a host");
    url.set_password(None).expect("a URL with a host");
    let url = url.join(path).expect("a path");
    reqwest::Client::new().request(method, url).basic_auth(user, Some(password))
}

/// One connection to RabbitMQ, which is opened again when it was lost.
struct Broker {
    url: String,
    connection: Mutex<Option<Arc<Connection>>>,
}

impl Broker {
    fn new(url: &str) -> Self {
        Self { url: url.to_owned(), connection: Mutex::new(None) }
    }

    async fn channel(&self) -> Channel {
        let mut connection = self.connection.lock().await;
        if let Some(connected) = connection.as_ref().filter(|connection| connection.status().connected())
            && let Ok(channel) = connected.create_channel().await
        {
            return channel;
        }
        let properties = ConnectionProperties::default().with_connection_name("grapnel-tests".into());
        let connected = Connection::connect(&self.url, properties).await.expect("connect to RabbitMQ");
        let connected = connection.insert(Arc::new(connected));
        connected.create_channel().await.expect("a channel")
    }

    async fn delete(&self, queue: &str) {
        let channel = self.channel().await;
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("delete a queue");
        close(channel).await;
    }

    async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take() {
            connection.close(200, "done".into()).await.expect("close the connection");
        }
    }
}

async fn close(channel: Channel) {
    channel.close(200, "done".into()).await.expect("close the channel");
}

fn is_not_found(error: &lapin::Error) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(protocol) => {
            matches!(protocol.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND))
        }
        _ => false,
    }
}
