//! RabbitMQ: the only module that speaks AMQP.
//!
//! One durable quorum queue for each destination. Messages are hints (see `hint`), so every failure here is repaired
//! from PostgreSQL. Each [`Link`] is one connection that is made on demand and made anew after it broke; every wait for
//! the broker has a deadline.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::timeout;

pub mod publish;
pub mod consume;

/// The broker answers within this or counts as away.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// How often both sides say that they are still there, unless the URL says otherwise. After twice this long without a
/// word a connection is given up; RabbitMQ's own default would leave a consumer deaf for two minutes. From 5 to 20 is
/// what its documentation advises.
const HEARTBEAT_SECONDS: u16 = 10;

#[derive(Debug, Error)]
pub enum QueueError {
    #[error("RabbitMQ did not answer within {} s", DEADLINE.as_secs())]
    TimedOut,
    #[error("RabbitMQ returned a message: its queue is missing")]
    Returned,
    #[error("RABBITMQ_URL: not an AMQP URL")]
    Url,
    #[error("RabbitMQ")]
    Broker(#[from] lapin::Error),
}

impl QueueError {
    /// Whether a queue of the name is there with other properties, so that trying again cannot help.
    pub fn is_mismatch(&self) -> bool {
        use lapin::protocol::AMQPSoftError;
        matches!(self, Self::Broker(error) if is_soft(error, &AMQPSoftError::PRECONDITIONFAILED))
    }
}

/// Whether the text is a URL of RabbitMQ.
pub fn is_url(text: &str) -> bool {
    text.parse::<AMQPUri>().is_ok()
}

/// Waits for the broker, but not for ever.
async fn within_deadline<T>(call: impl Future<Output = lapin::Result<T>>) -> Result<T, QueueError> {
    Ok(timeout(DEADLINE, call).await.map_err(|_| QueueError::TimedOut)??)
}

/// One connection to RabbitMQ, shared by the channels that are opened on it.
#[derive(Debug)]
pub struct Link {
    url: SecretString,
    name: String,
    connection: Mutex<Option<Arc<Connection>>>,
}

impl Link {
    /// `name` is what RabbitMQ's management shows for the connection.
    pub fn new(url: SecretString, name: impl Into<String>) -> Self {
        Self { url, name: name.into(), connection: Mutex::new(None) }
    }

    /// A new channel, on the connection that is there or on a new one.
    pub async fn channel(&self) -> Result<Channel, QueueError> {
        let mut connection = self.connection.lock().await;
        if let Some(connected) = connection.as_ref().filter(|connection| connection.status().connected()) {
            match within_deadline(connected.create_channel()).await {
                Ok(channel) => return Ok(channel),
                Err(error) => tracing::debug!(%error, "channel on the connection that was there failed"),
            }
        }
        let properties =
            ConnectionProperties::default().with_connection_name(LongString::from(self.name.as_str()));
        let connected = within_deadline(Connection::connect_uri(self.uri()?, properties)).await?;
        let connected = Arc::new(connected);
        *connection = Some(Arc::clone(&connected));
        within_deadline(connected.create_channel()).await
    }

    fn uri(&self) -> Result<AMQPUri, QueueError> {
        // The error would repeat the URL, and with it the password.
        let mut uri: AMQPUri = self.url.expose_secret().parse().map_err(|_| QueueError::Url)?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Ok(uri)
    }

    /// Whether the broker can be talked to: opens and closes a channel.
    pub async fn check(&self) -> Result<(), QueueError> {
        let channel = self.channel().await?;
        within_deadline(channel.close(200, "checked".into())).await
    }

    /// Closes the connection in order, so that the broker does not log a broken one.
    pub async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take()
            && let Err(error) = within_deadline(connection.close(200, "stopping".into())).await
        {
            tracing::debug!(%error, "connection to RabbitMQ did not close in order");
        }
    }

    /// How many messages are ready in a queue; `None` when there is no such queue.
    ///
    /// A passive declare of a missing queue closes its channel, so each check has a channel of its own.
    pub async fn ready_messages(&self, queue: &str) -> Result<Option<u32>, QueueError> {
        let channel = self.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match within_deadline(channel.queue_declare(queue.into(), options, FieldTable::default())).await {
            Ok(declared) => {
                within_deadline(channel.close(200, "checked".into())).await?;
                Ok(Some(declared.message_count()))
            }
            Err(QueueError::Broker(error)) if is_soft(&error, &lapin::protocol::AMQPSoftError::NOTFOUND) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes a queue with what is in it; a missing one is no error.
    pub async fn delete_queue(&self, queue: &str) -> Result<(), QueueError> {
        let channel = self.channel().await?;
        within_deadline(channel.queue_delete(queue.into(), lapin::options::QueueDeleteOptions::default()))
            .await?;
        within_deadline(channel.close(200, "deleted".into())).await
    }
}

/// Whether the broker refused with this error.
fn is_soft(error: &lapin::Error, expected: &lapin::protocol::AMQPSoftError) -> bool {
    use lapin::protocol::AMQPErrorKind;
    match error.kind() {
        lapin::ErrorKind::ProtocolError(protocol) => {
            matches!(protocol.kind(), AMQPErrorKind::Soft(found) if found == expected)
        }
        _ => false,
    }
}

/// Declares a destination's queue. The same declaration everywhere: RabbitMQ refuses a second, different one.
pub async fn declare(channel: &Channel, queue: &str) -> Result<(), QueueError> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    within_deadline(channel.queue_declare(queue.into(), options, arguments)).await?;
    Ok(())
}

/// Closes a channel in order; one that does not close is closed with its connection.
pub async fn close(channel: Channel) {
    if let Err(error) = within_deadline(channel.close(200, "done".into())).await {
        tracing::debug!(%error, "channel did not close in order");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeat_is_ours_unless_the_url_has_one() {
        let check = |url: &str, heartbeat: u16| {
            let link = Link::new(url.to_owned().into(), "test");
            assert_eq!(link.uri().expect("a URL").query.heartbeat, Some(heartbeat), "{url}");
        };
        check("amqp://user:secret@host:5672/%2f", HEARTBEAT_SECONDS);
        check("amqp://user:secret@host:5672/%2f?heartbeat=30", 30);
    }

    #[test]
    fn url_that_cannot_be_used_is_not_repeated() {
        let link = Link::new("http://user:secret@host".to_owned().into(), "test");
        let error = link.uri().expect_err("no AMQP URL");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}
