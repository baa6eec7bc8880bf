//! A connection to RabbitMQ that is made on demand, and made again after it broke.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{FieldTable, LongString};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Mutex, watch};

use super::{QueueError, is_soft, within_deadline};

/// How often both sides send a heartbeat, unless the URL sets another interval. A connection that stays silent for twice
/// this long is given up; with RabbitMQ's own default a consumer would receive nothing for two minutes. Its documentation
/// recommends 5 to 20.
const HEARTBEAT_SECONDS: u16 = 10;

/// One connection to RabbitMQ, shared by the channels that are opened on it.
#[derive(Debug)]
pub struct QueueConnection {
    url: SecretString,
    name: String,
    connection: Mutex<Option<Connected>>,
}

#[derive(Debug)]
struct Connected {
    connection: Arc<Connection>,
    blocked: BlockedReason,
}

/// Why RabbitMQ reads nothing from a connection that publishes, as long as it does not: it lacks memory or disk space. A connection
/// that does not publish is never told.
pub(super) type BlockedReason = watch::Receiver<Option<Arc<str>>>;

impl QueueConnection {
    /// Connects on first use. RabbitMQ's management shows the connection under `name`.
    pub fn new(url: SecretString, name: impl Into<String>) -> Self {
        Self { url, name: name.into(), connection: Mutex::new(None) }
    }

    /// Opens a channel on the current connection or on a new one.
    pub async fn channel(&self) -> Result<Channel, QueueError> {
        let mut connected = self.connection.lock().await;
        self.open(&mut connected).await
    }

    /// Opens a channel, and returns what is known about its connection.
    pub(super) async fn publishing_channel(&self) -> Result<(Channel, BlockedReason), QueueError> {
        let mut connected = self.connection.lock().await;
        let channel = self.open(&mut connected).await?;
        let blocked = connected.as_ref().map(|connected| connected.blocked.clone());
        Ok((channel, blocked.ok_or(QueueError::TimedOut)?))
    }

    async fn open(&self, current: &mut Option<Connected>) -> Result<Channel, QueueError> {
        if let Some(Connected { connection, .. }) = current.as_ref().filter(|current| current.is_connected())
        {
            match within_deadline(connection.create_channel()).await {
                Ok(channel) => return Ok(channel),
                Err(error) => tracing::debug!(%error, "no channel on the current connection, reconnecting"),
            }
        }
        let properties =
            ConnectionProperties::default().with_connection_name(LongString::from(self.name.as_str()));
        let connection = Arc::new(within_deadline(Connection::connect_uri(self.uri()?, properties)).await?);
        let (sender, blocked) = watch::channel(None);
        tokio::spawn(follow(connection.events_listener(), sender));
        *current = Some(Connected { connection: Arc::clone(&connection), blocked });
        within_deadline(connection.create_channel()).await
    }

    fn uri(&self) -> Result<AMQPUri, QueueError> {
        // The error would repeat the URL, and with it the password.
        let mut uri: AMQPUri = self.url.expose_secret().parse().map_err(|_| QueueError::Url)?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Ok(uri)
    }

    /// Checks that the broker answers: opens and closes a channel.
    pub async fn check(&self) -> Result<(), QueueError> {
        let channel = self.channel().await?;
        within_deadline(channel.close(200, "checked".into())).await
    }

    /// Returns whether RabbitMQ reads nothing from the current connection.
    pub(super) async fn is_blocked(&self) -> bool {
        let connected = self.connection.lock().await;
        connected.as_ref().is_some_and(|current| current.is_connected() && current.blocked.borrow().is_some())
    }

    /// Gives up the current connection without closing it; the next channel is opened on a new one.
    pub(super) async fn forget(&self) {
        self.connection.lock().await.take();
    }

    /// Closes the connection in order, so that the broker does not log a broken one.
    pub async fn close(&self) {
        if let Some(Connected { connection, .. }) = self.connection.lock().await.take()
            && let Err(error) = within_deadline(connection.close(200, "stopping".into())).await
        {
            tracing::debug!(%error, "connection to RabbitMQ did not close in order");
        }
    }

    /// Returns the number of ready messages in a queue; `None` when the queue does not exist.
    ///
    /// A passive declare of a missing queue closes its channel, so each check has a channel of its own.
    pub async fn ready_messages(&self, queue: &str) -> Result<Option<u32>, QueueError> {
        Ok(self.look_at(queue).await?.map(|(messages, _)| messages))
    }

    /// Returns the number of consumers of a queue; none when there is no such queue.
    pub async fn consumers(&self, queue: &str) -> Result<u32, QueueError> {
        Ok(self.look_at(queue).await?.map_or(0, |(_, consumers)| consumers))
    }

    /// Returns the ready messages and the consumers of a queue; `None` when there is no such queue.
    async fn look_at(&self, queue: &str) -> Result<Option<(u32, u32)>, QueueError> {
        let channel = self.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match within_deadline(channel.queue_declare(queue.into(), options, FieldTable::default())).await {
            Ok(declared) => {
                within_deadline(channel.close(200, "checked".into())).await?;
                Ok(Some((declared.message_count(), declared.consumer_count())))
            }
            Err(QueueError::Broker(error)) if is_soft(&error, &AMQPSoftError::NOTFOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes a queue with its messages; a missing queue is not an error.
    pub async fn delete_queue(&self, queue: &str) -> Result<(), QueueError> {
        let channel = self.channel().await?;
        within_deadline(channel.queue_delete(queue.into(), QueueDeleteOptions::default())).await?;
        within_deadline(channel.close(200, "deleted".into())).await
    }
}

impl Connected {
    fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }
}

/// Notes whether a connection is blocked, until it ends or nobody wants to know.
async fn follow(events: impl Stream<Item = Event>, blocked: watch::Sender<Option<Arc<str>>>) {
    let mut events = std::pin::pin!(events);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(reason)) => drop(blocked.send_replace(Some(reason.into()))),
                Some(Event::ConnectionUnblocked) => drop(blocked.send_replace(None)),
                Some(_) => {}
                None => return,
            },
            () = blocked.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeat_is_ours_unless_the_url_has_one() {
        let check = |url: &str, heartbeat: u16| {
            let connection = QueueConnection::new(url.to_owned().into(), "test");
            assert_eq!(connection.uri().expect("a URL").query.heartbeat, Some(heartbeat), "{url}");
        };
        check("amqp://user:secret@host:5672/%2f", HEARTBEAT_SECONDS);
        check("amqp://user:secret@host:5672/%2f?heartbeat=30", 30);
    }

    #[test]
    fn url_that_cannot_be_used_is_not_repeated() {
        let connection = QueueConnection::new("http://user:secret@host".to_owned().into(), "test");
        let error = connection.uri().expect_err("no AMQP URL");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}
