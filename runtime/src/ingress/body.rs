//! Reads a request's body, with bounds on its size, its time, and the memory of all bodies together.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, header};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// A body must arrive within this time after its headers.
const DEADLINE: Duration = Duration::from_secs(10);

/// Memory for the bodies of all requests. It is charged as bytes arrive: announcing a large body costs nothing.
const BUDGET_BYTES: usize = 64 * 1024 * 1024;

/// A body that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum BodyError {
    #[error("the body is larger than the integration accepts")]
    TooLarge,
    #[error("the body did not arrive within {} s", DEADLINE.as_secs())]
    TooSlow,
    #[error("the body broke off")]
    Broken,
    /// The bodies of other requests take all the memory.
    #[error("too many requests are being received")]
    Overloaded,
}

/// The memory budget of all bodies.
#[derive(Debug, Clone)]
pub(crate) struct BodyBudget(Arc<Semaphore>);

impl Default for BodyBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_BYTES)))
    }
}

/// A body with its share of the budget. Dropping the share returns it.
#[derive(Debug)]
pub(crate) struct ReceivedBody {
    pub bytes: Bytes,
    pub share: OwnedSemaphorePermit,
}

impl BodyBudget {
    /// Reads at most `limit` bytes. A body that is announced as larger is not read.
    pub(crate) async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
        limit: usize,
    ) -> Result<ReceivedBody, BodyError> {
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: u64| length > limit as u64) {
            return Err(BodyError::TooLarge);
        }
        timeout(DEADLINE, self.read_all(body, limit)).await.unwrap_or(Err(BodyError::TooSlow))
    }

    async fn read_all(&self, body: Body, limit: usize) -> Result<ReceivedBody, BodyError> {
        let mut share = self.charge(0)?;
        let mut chunks = body.into_data_stream();
        let mut first: Option<Bytes> = None;
        let mut whole = BytesMut::new();
        let mut length = 0;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| BodyError::Broken)?;
            length += chunk.len();
            if length > limit {
                return Err(BodyError::TooLarge);
            }
            // Most bodies are one chunk, which is not copied.
            if first.is_none() && whole.is_empty() {
                share.merge(self.charge(chunk.len())?);
                first = Some(chunk);
                continue;
            }
            if length > whole.capacity() {
                // The charge equals the allocation: a buffer that grows by itself would take twice as much.
                let capacity = length.max(whole.capacity() * 2).min(limit);
                share.merge(self.charge(capacity - share.num_permits())?);
                let shorter = std::mem::replace(&mut whole, BytesMut::with_capacity(capacity));
                whole.extend_from_slice(&shorter);
            }
            whole.extend_from_slice(&first.take().unwrap_or_default());
            whole.extend_from_slice(&chunk);
        }
        Ok(ReceivedBody { bytes: first.unwrap_or_else(|| whole.freeze()), share })
    }

    fn charge(&self, bytes: usize) -> Result<OwnedSemaphorePermit, BodyError> {
        let permits = u32::try_from(bytes).map_err(|_| BodyError::TooLarge)?;
        Arc::clone(&self.0).try_acquire_many_owned(permits).map_err(|_| BodyError::Overloaded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(chunks: &[&'static str], limit: usize) -> Result<String, BodyError> {
        let stream =
            futures::stream::iter(chunks.to_vec()).map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk)));
        let received =
            BodyBudget::default().read(&HeaderMap::new(), Body::from_stream(stream), limit).await?;
        Ok(String::from_utf8(received.bytes.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn chunks_are_joined_in_order_and_counted_together() {
        assert_eq!(read(&[], 3).await, Ok(String::new()));
        assert_eq!(read(&["abc"], 3).await, Ok("abc".to_owned()));
        assert_eq!(read(&["a", "", "b", "c"], 3).await, Ok("abc".to_owned()));
        assert_eq!(read(&["ab", "cd"], 3).await, Err(BodyError::TooLarge));
    }

    #[tokio::test]
    async fn the_charge_equals_the_allocation() {
        let stream =
            futures::stream::iter(vec!["x"; 700]).map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk)));
        let budget = BodyBudget::default();
        let received = budget.read(&HeaderMap::new(), Body::from_stream(stream), 1000).await.expect("fits");
        assert_eq!(received.bytes.len(), 700);
        let allocated = received.bytes.try_into_mut().expect("no other owner").capacity();
        assert!(allocated <= 1000 && allocated == received.share.num_permits(), "{allocated}");
    }

    #[tokio::test]
    async fn the_budget_is_returned() {
        let budget = BodyBudget(Arc::new(Semaphore::new(4)));
        let held = budget.read(&HeaderMap::new(), Body::from("abc"), 10).await.expect("fits");
        let refused = budget.read(&HeaderMap::new(), Body::from("ab"), 10).await.expect_err("does not fit");
        assert_eq!(refused, BodyError::Overloaded);
        drop(held);
        assert!(budget.read(&HeaderMap::new(), Body::from("ab"), 10).await.is_ok());
    }
}
