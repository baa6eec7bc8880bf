//! Reads and decodes a request's body, with bounds on its size, its pace, and the memory of all bodies together.
//!
//! Nobody's bodies take all the memory: those of one client at most a quarter of it, those of one integration at most half,
//! and less while others take theirs (`fair_shares`). A body that stops arriving is given up.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use grapnel_core::ids::IntegrationId;
use grapnel_core::request::content_coding::{ContentCodings, DecodeError};
use grapnel_platform::client_network::ClientNetwork;
use grapnel_platform::fair_shares::{FairShares, Share};
use http::{HeaderMap, header};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

/// A body must arrive within this time after its headers.
const DEADLINE: Duration = Duration::from_secs(10);

/// In each of these times, the first one included, a body must end or bring this much.
const PACE_TIME: Duration = Duration::from_secs(5);
const PACE_BYTES: usize = 16 * 1024;

/// Memory for the bodies of all requests. It is charged as bytes arrive: announcing a large body costs nothing.
const BUDGET_BYTES: usize = 64 * 1024 * 1024;

/// One client gets at most this part of the budget, which is more than the largest body: one quarter.
const CLIENT_DIVISOR: usize = 4;

/// One integration gets at most this part of the budget: one half.
const INTEGRATION_DIVISOR: usize = 2;

/// A body that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum BodyError {
    #[error("the body is larger than the integration accepts")]
    TooLarge,
    #[error("the body arrived too slowly")]
    TooSlow,
    #[error("the body broke off")]
    Broken,
    #[error("the body is not what its content-encoding says")]
    NotDecodable,
    /// Other bodies take the memory, or those of this client or integration their part of it.
    #[error("too many requests are being received")]
    Overloaded,
}

/// The memory budget of all bodies.
#[derive(Debug, Clone)]
pub(crate) struct BodyBudget {
    by_client: FairShares<ClientNetwork>,
    by_integration: FairShares<IntegrationId>,
}

/// What a body has taken of the budget. Dropping it returns it.
#[derive(Debug)]
pub(crate) struct BodyShare {
    of_client: Share<ClientNetwork>,
    of_integration: Share<IntegrationId>,
}

impl BodyShare {
    /// Takes more of the budget: as the body arrives, and for what is made of it.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), BodyError> {
        let grown = self.of_client.grow(bytes) && self.of_integration.grow(bytes);
        if grown { Ok(()) } else { Err(BodyError::Overloaded) }
    }

    fn bytes(&self) -> usize {
        self.of_integration.amount()
    }
}

/// A body with its share of the budget.
#[derive(Debug)]
pub(crate) struct ReceivedBody {
    pub bytes: Bytes,
    pub share: BodyShare,
}

impl Default for BodyBudget {
    fn default() -> Self {
        Self::with_bytes(BUDGET_BYTES)
    }
}

impl BodyBudget {
    fn with_bytes(bytes: usize) -> Self {
        Self {
            by_client: FairShares::new(bytes, CLIENT_DIVISOR),
            by_integration: FairShares::new(bytes, INTEGRATION_DIVISOR),
        }
    }

    /// Returns a share with nothing in it yet.
    pub(crate) fn share(&self, client: ClientNetwork, integration_id: IntegrationId) -> BodyShare {
        BodyShare {
            of_client: self.by_client.empty_share(Some(client)),
            of_integration: self.by_integration.empty_share(Some(integration_id)),
        }
    }
}

/// Reads at most `limit` bytes and charges them to the share. A body that is announced as larger is not read.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    share: BodyShare,
) -> Result<ReceivedBody, BodyError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limit as u64) {
        return Err(BodyError::TooLarge);
    }
    read_all(body, limit, share).await
}

/// Decodes a body up to `limit` bytes, and charges these to a share of their own. It takes no turns with other requests: that
/// would keep the state of many decoders, and the largest body takes some milliseconds.
pub(crate) fn decode(
    received: &ReceivedBody,
    codings: &ContentCodings,
    limit: usize,
    mut share: BodyShare,
) -> Result<ReceivedBody, BodyError> {
    let decoded = codings.decode(&received.bytes, limit, |bytes| share.grow(bytes).is_ok());
    let bytes = decoded.map_err(|error| match error {
        DecodeError::TooLarge => BodyError::TooLarge,
        DecodeError::Broken => BodyError::NotDecodable,
        DecodeError::NoMemory => BodyError::Overloaded,
    })?;
    Ok(ReceivedBody { bytes: bytes.into(), share })
}

async fn read_all(body: Body, limit: usize, mut share: BodyShare) -> Result<ReceivedBody, BodyError> {
    let mut pace = Pace::new(Instant::now());
    let mut chunks = body.into_data_stream();
    let mut first: Option<Bytes> = None;
    let mut whole = BytesMut::new();
    let mut length = 0;
    loop {
        let Ok(chunk) = timeout_at(pace.judged_at(), chunks.next()).await else {
            pace.judge(Instant::now())?;
            continue;
        };
        let Some(chunk) = chunk else { break };
        let chunk = chunk.map_err(|_| BodyError::Broken)?;
        pace.arrived += chunk.len();
        length += chunk.len();
        if length > limit {
            return Err(BodyError::TooLarge);
        }
        // Most bodies are one chunk, which is not copied.
        if first.is_none() && whole.is_empty() {
            share.grow(chunk.len())?;
            first = Some(chunk);
            continue;
        }
        if length > whole.capacity() {
            // The charge equals the allocation: a buffer that grows by itself would take twice as much.
            let capacity = length.max(whole.capacity() * 2).min(limit);
            share.grow(capacity - share.bytes())?;
            let shorter = std::mem::replace(&mut whole, BytesMut::with_capacity(capacity));
            whole.extend_from_slice(&shorter);
        }
        whole.extend_from_slice(&first.take().unwrap_or_default());
        whole.extend_from_slice(&chunk);
    }
    Ok(ReceivedBody { bytes: first.unwrap_or_else(|| whole.freeze()), share })
}

/// The pace of a body.
struct Pace {
    ends_at: Instant,
    window_ends_at: Instant,
    /// Bytes in the current window.
    arrived: usize,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { ends_at: now + DEADLINE, window_ends_at: now + PACE_TIME, arrived: 0 }
    }

    fn judged_at(&self) -> Instant {
        self.ends_at.min(self.window_ends_at)
    }

    fn judge(&mut self, now: Instant) -> Result<(), BodyError> {
        if now >= self.ends_at || self.arrived < PACE_BYTES {
            return Err(BodyError::TooSlow);
        }
        (self.window_ends_at, self.arrived) = (now + PACE_TIME, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(budget: &BodyBudget, client: u8, integration: u128) -> BodyShare {
        let id = IntegrationId::new(uuid::Uuid::from_u128(integration));
        budget.share(ClientNetwork::of([192, 0, 2, client].into()), id)
    }

    fn body(chunks: &[&'static str]) -> Body {
        let chunks = futures::stream::iter(chunks.to_vec());
        Body::from_stream(chunks.map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk))))
    }

    async fn read_text(chunks: &[&'static str], limit: usize) -> Result<String, BodyError> {
        let share = share(&BodyBudget::default(), 1, 1);
        let received = read(&HeaderMap::new(), body(chunks), limit, share).await?;
        Ok(String::from_utf8(received.bytes.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn chunks_are_joined_in_order_and_counted_together() {
        assert_eq!(read_text(&[], 3).await, Ok(String::new()));
        assert_eq!(read_text(&["abc"], 3).await, Ok("abc".to_owned()));
        assert_eq!(read_text(&["a", "", "b", "c"], 3).await, Ok("abc".to_owned()));
        assert_eq!(read_text(&["ab", "cd"], 3).await, Err(BodyError::TooLarge));
    }

    #[tokio::test]
    async fn the_charge_equals_the_allocation() {
        let share = share(&BodyBudget::default(), 1, 1);
        let received = read(&HeaderMap::new(), body(&["x"; 700]), 1000, share).await.expect("fits");
        assert_eq!(received.bytes.len(), 700);
        let allocated = received.bytes.try_into_mut().expect("no other owner").capacity();
        assert!(allocated <= 1000 && allocated == received.share.bytes(), "{allocated}");
    }

    #[tokio::test]
    async fn the_budget_is_returned() {
        let budget = BodyBudget::with_bytes(16);
        let read_of = async |client, text| {
            read(&HeaderMap::new(), Body::from(text), 10, share(&budget, client, client.into())).await
        };
        let held = read_of(1, "abc").await.expect("fits");
        assert_eq!(read_of(1, "ab").await.expect_err("more than a quarter"), BodyError::Overloaded);
        assert!(read_of(2, "ab").await.is_ok(), "another client has its own part");
        drop(held);
        assert!(read_of(1, "ab").await.is_ok());
    }

    #[test]
    fn one_client_and_one_integration_leave_room_for_others() {
        let budget = BodyBudget::default();
        let take = |client, integration| {
            let take = || {
                let mut share = share(&budget, client, integration);
                share.grow(1024 * 1024).ok().map(|()| share)
            };
            std::iter::from_fn(take).collect::<Vec<_>>()
        };
        let of_client = take(1, 1);
        assert_eq!(of_client.len(), 16, "a quarter of 64 MiB");
        let of_integration: Vec<_> = (2..200).flat_map(|client| take(client, 1)).collect();
        assert_eq!(of_client.len() + of_integration.len(), 32, "half of 64 MiB");
        assert!(share(&budget, 1, 2).grow(1024 * 1024).is_err(), "the client has its part");
        let mut largest = share(&budget, 200, 2);
        assert!(largest.grow(5 * 1024 * 1024).is_ok());
    }

    #[test]
    fn body_must_keep_its_pace() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(start);
        pace.arrived = PACE_BYTES;
        assert_eq!((pace.judge(after(5)), pace.arrived), (Ok(()), 0));
        pace.arrived = PACE_BYTES - 1;
        assert_eq!(pace.judge(after(9)), Err(BodyError::TooSlow));
        pace.arrived = 10 * PACE_BYTES;
        assert_eq!(pace.judge(after(10)), Err(BodyError::TooSlow), "the deadline of the whole");
    }
}
