//! Shows others that a connection exists: an exclusive queue, which RabbitMQ deletes when the connection has ended.

use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable};

use super::{QueueConnection, QueueError, is_soft, within_deadline};

/// The exclusive queue of a connection.
#[derive(Debug)]
pub struct Presence {
    channel: Channel,
    queue: String,
}

impl Presence {
    /// Declares the queue on the current connection, or on a new one.
    pub async fn declare(connection: &QueueConnection, queue: String) -> Result<Self, QueueError> {
        let channel = connection.channel().await?;
        let mut arguments = FieldTable::default();
        // Said, since a virtual host may have another type as its default, and only this one can be exclusive.
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        within_deadline(channel.queue_declare(queue.as_str().into(), options, arguments)).await?;
        Ok(Self { channel, queue })
    }

    /// Checks that the queue is there, and with it the connection. After an error it has ended.
    pub async fn check(&self) -> Result<(), QueueError> {
        inspect(&self.channel, &self.queue).await
    }
}

impl QueueConnection {
    /// Returns whether the connection exists that declared this exclusive queue, which is another than this one.
    pub async fn is_present(&self, queue: &str) -> Result<bool, QueueError> {
        let channel = self.channel().await?;
        match inspect(&channel, queue).await {
            Ok(()) => {
                within_deadline(channel.close(200, "checked".into())).await?;
                Ok(true)
            }
            Err(QueueError::Broker(error)) if is_soft(&error, &AMQPSoftError::NOTFOUND) => Ok(false),
            Err(QueueError::Broker(error)) if is_soft(&error, &AMQPSoftError::RESOURCELOCKED) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Asks for a queue. A failure closes the channel.
async fn inspect(channel: &Channel, queue: &str) -> Result<(), QueueError> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    within_deadline(channel.queue_declare(queue.into(), options, FieldTable::default())).await.map(drop)
}
