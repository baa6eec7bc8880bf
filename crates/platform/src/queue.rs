//! RabbitMQ: the only module that speaks AMQP.
//!
//! One durable quorum queue for each destination. Messages are hints (see `hint`), so every failure here is repaired
//! from PostgreSQL. Every wait for the broker has a deadline.

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::time::timeout;

mod connection;
mod presence;
pub mod publish;
pub mod consume;

pub use connection::QueueConnection;
pub use presence::Presence;

/// The broker answers within this or counts as unavailable.
pub const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, Error)]
pub enum QueueError {
    #[error("RabbitMQ did not answer within {} s", DEADLINE.as_secs())]
    TimedOut,
    #[error("RabbitMQ takes no messages: {0}")]
    Blocked(Arc<str>),
    #[error("RABBITMQ_URL: not an AMQP URL")]
    Url,
    #[error("RabbitMQ")]
    Broker(#[from] lapin::Error),
}

impl QueueError {
    /// Returns whether a queue with this name exists with other properties, so that another try cannot succeed.
    pub fn is_mismatch(&self) -> bool {
        use lapin::protocol::AMQPSoftError;
        matches!(self, Self::Broker(error) if is_soft(error, &AMQPSoftError::PRECONDITIONFAILED))
    }
}

/// Returns whether the text is an AMQP URL.
pub fn is_url(text: &str) -> bool {
    text.parse::<AMQPUri>().is_ok()
}

/// Returns the host and the port of the server that a URL names.
pub fn server(url: &SecretString) -> Option<(String, u16)> {
    let authority = url.expose_secret().parse::<AMQPUri>().ok()?.authority;
    Some((authority.host, authority.port))
}

/// Declares a destination's queue, and returns the number of its ready messages. The declaration is the same everywhere: RabbitMQ
/// refuses a second, different one.
pub async fn declare(channel: &Channel, queue: &str) -> Result<u32, QueueError> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = within_deadline(channel.queue_declare(queue.into(), options, arguments)).await?;
    Ok(declared.message_count())
}

/// Closes a channel in order; if that fails, it is closed with its connection.
pub async fn close(channel: Channel) {
    if let Err(error) = within_deadline(channel.close(200, "done".into())).await {
        tracing::debug!(%error, "channel did not close in order");
    }
}

/// Waits for the broker, up to the deadline.
async fn within_deadline<T>(call: impl Future<Output = lapin::Result<T>>) -> Result<T, QueueError> {
    Ok(timeout(DEADLINE, call).await.map_err(|_| QueueError::TimedOut)??)
}

/// Returns whether the broker refused with this error.
fn is_soft(error: &lapin::Error, expected: &lapin::protocol::AMQPSoftError) -> bool {
    use lapin::protocol::AMQPErrorKind;
    match error.kind() {
        lapin::ErrorKind::ProtocolError(protocol) => {
            matches!(protocol.kind(), AMQPErrorKind::Soft(found) if found == expected)
        }
        _ => false,
    }
}
