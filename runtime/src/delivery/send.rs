//! Sends one event to one destination, once, and returns the outcome.
//!
//! Invariants: only addresses that the egress policy permits are dialed, whether the URL has an address or a name; the
//! whole exchange, including headers and body, ends by the destination's timeout; at most 16 KiB of a response are kept;
//! redirects are not followed, and no proxy, cookie or credential of the environment is used. The status of the response
//! alone decides: a body that breaks off after a 2xx is still a success, because the receiver has accepted the event, and
//! sending it again would only duplicate it.
//!
//! A receiver may close an idle connection while the next request is on its way. So a request on a connection that was used
//! before is sent once more, at once and on a new connection, if that one ended before a byte of an answer came: this is the
//! same attempt. Nothing else here retries, and nothing touches the database; `retry` decides what follows from an outcome.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout_at};

use crate::egress::Egress;
use connect::{ConnectError, Connector};
use exchange::{Connection, ExchangeError};
use grapnel_core::delivery::outcome::AttemptOutcome;
use grapnel_core::delivery::target::{DeliveryRequest, HeaderError, headers_of};
use pool::{Key, Pool};
use tls::Tls;

mod connect;
mod tls;
mod stream;
mod pool;
mod exchange;
mod response_body;
mod retry_after;
mod failure;
#[cfg(test)]
mod tests;

/// Deadline of a connection with its lookup and its TLS handshake. The destination's timeout limits it too.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// The outcome of an attempt and its duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MeasuredOutcome {
    pub outcome: AttemptOutcome,
    /// From the call to the last byte that was read.
    pub duration: Duration,
}

/// The pooled client for all deliveries of a process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DeliveryClient {
    connector: Arc<Connector>,
    pool: Arc<Pool>,
}

impl std::fmt::Debug for DeliveryClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeliveryClient").field("egress", &self.connector.egress).finish_non_exhaustive()
    }
}

/// A request that got no response.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
}

impl DeliveryClient {
    /// Returns a client that speaks HTTP/1.1 only: with HTTP/2 all deliveries to a host share one connection, and one that is
    /// silently dead or throttled by the receiver would stall them all. A rustls crypto provider must already be
    /// installed.
    pub(crate) fn new(egress: Egress) -> Self {
        Self::with_connect_deadline(egress, CONNECT_DEADLINE)
    }

    fn with_connect_deadline(egress: Egress, deadline: Duration) -> Self {
        let tls = Tls::new(&egress);
        Self { connector: Arc::new(Connector { egress, tls, deadline }), pool: Arc::default() }
    }

    /// Makes one attempt. It ends by the target's timeout, whatever the receiver does.
    pub(crate) async fn deliver(&self, request: &DeliveryRequest<'_>) -> MeasuredOutcome {
        let started = Instant::now();
        let outcome = self.attempt(request, started).await;
        MeasuredOutcome { outcome, duration: started.elapsed() }
    }

    async fn attempt(&self, request: &DeliveryRequest<'_>, started: Instant) -> AttemptOutcome {
        let target = request.target;
        // Even where a connection is open already. The name of a Service is no address.
        if let Err(denied) = self.connector.egress.permits_literal(&target.url) {
            return AttemptOutcome::Denied { message: denied.to_string() };
        }
        let deadline = started + target.timeout;
        let key = Key::of(target);
        let (mut connection, response) = match timeout_at(deadline, self.send(request, &key)).await {
            Err(_) => {
                return AttemptOutcome::TimedOut {
                    message: format!("no answer within {} s", target.timeout.as_secs_f64()),
                };
            }
            Ok(Err(SendError::Header(error))) => {
                return AttemptOutcome::NotSent { message: error.to_string() };
            }
            Ok(Err(SendError::Connect(error))) => return failure::outcome_of_connect(&error),
            Ok(Err(SendError::Exchange(error))) => return failure::outcome_of_exchange(&error),
            Ok(Ok(answered)) => answered,
        };
        let (head, body) = response.into_parts();
        let retry_after = retry_after_of(&head.headers, request.attempted_at, started.elapsed());
        let body = response_body::read(&mut connection, body, deadline).await;
        self.pool.put(key, connection, &head.headers);
        if head.status.is_success() {
            AttemptOutcome::Succeeded { status: head.status.as_u16(), body }
        } else if head.status == StatusCode::GONE {
            AttemptOutcome::Gone { body }
        } else {
            AttemptOutcome::Refused { status: head.status.as_u16(), body, retry_after }
        }
    }

    /// Sends the request on an idle connection or on a new one, and returns that with the head of the answer.
    async fn send(
        &self,
        request: &DeliveryRequest<'_>,
        key: &Key,
    ) -> Result<(Box<Connection>, Response<Incoming>), SendError> {
        if let Some(mut connection) = self.pool.take(key, request.target.endpoints.as_deref()) {
            match connection.send(http_request(request)?).await {
                Ok(response) => return Ok((connection, response)),
                Err(error) if connection.was_at_its_end(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let http_request = http_request(request)?;
        // Boxed: few attempts connect, and each moves what it may need.
        let mut connection = Box::pin(self.connector.connect(request.target)).await?;
        let response = connection.send(http_request).await?;
        Ok((connection, response))
    }
}

fn http_request(request: &DeliveryRequest<'_>) -> Result<Request<Full<bytes::Bytes>>, HeaderError> {
    let mut sent = Request::new(Full::new(request.body.clone()));
    *sent.method_mut() = Method::POST;
    *sent.uri_mut() = request.target.path.clone();
    *sent.headers_mut() = headers_of(request)?;
    Ok(sent)
}

fn retry_after_of(headers: &HeaderMap, attempted_at: Timestamp, elapsed: Duration) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let elapsed = SignedDuration::try_from(elapsed).ok()?;
    retry_after::parse(value, attempted_at.saturating_add(elapsed).ok()?)
}
