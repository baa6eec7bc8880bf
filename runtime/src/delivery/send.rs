//! Sends one event to one destination, once, and returns the outcome.
//!
//! Invariants: only addresses that the egress policy permits are dialed, whether the URL has an address or a name; the
//! whole exchange, including headers and body, ends by the destination's timeout; at most 16 KiB of a response are kept;
//! redirects are not followed, and no proxy, cookie or credential of the environment is used. The status of the response
//! alone decides: a body that breaks off after a 2xx is still a success, because the receiver has accepted the event, and
//! sending it again would only duplicate it.
//!
//! Nothing here retries or touches the database; `retry` decides what follows from an outcome.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, RETRY_AFTER};
use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout_at};

use crate::egress::PermittedResolver;
use grapnel_core::delivery::egress_policy::EgressPolicy;
use grapnel_core::delivery::outcome::AttemptOutcome;
use grapnel_core::delivery::target::{DeliveryRequest, headers_of};

mod failure;
mod response_body;
mod retry_after;
#[cfg(test)]
mod tests;

/// Deadline of a connection with its lookup and its TLS handshake. The destination's timeout limits it too.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Shorter than the keep-alive of common servers (60 s and more), so that we close first.
const IDLE_DEADLINE: Duration = Duration::from_secs(30);
/// Idle connections kept for one host. Further ones serve a burst and are closed after it.
const IDLE_PER_HOST: usize = 128;

/// The outcome of an attempt and its duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MeasuredOutcome {
    pub outcome: AttemptOutcome,
    /// From the call to the last byte that was read.
    pub duration: Duration,
}

/// The delivery client could not be set up; usually the machine has no CA certificates.
#[derive(Debug, thiserror::Error)]
#[error("the delivery client could not be set up")]
pub(crate) struct ClientError(#[source] reqwest::Error);

/// The pooled client for all deliveries of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct DeliveryClient {
    http: reqwest::Client,
    policy: Arc<EgressPolicy>,
    connect_deadline: Duration,
}

impl DeliveryClient {
    /// Returns a client that speaks HTTP/1.1 only: with HTTP/2 all deliveries to a host share one connection, and one that is
    /// silently dead or throttled by the receiver would stall them all. A rustls crypto provider must already be
    /// installed.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn new(policy: EgressPolicy) -> Result<Self, ClientError> {
        Self::with_connect_deadline(policy, CONNECT_DEADLINE)
    }

    fn with_connect_deadline(policy: EgressPolicy, connect_deadline: Duration) -> Result<Self, ClientError> {
        let policy = Arc::new(policy);
        let http = reqwest::Client::builder()
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .dns_resolver(PermittedResolver::new(Arc::clone(&policy)))
            .connect_timeout(connect_deadline)
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE_DEADLINE)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .build()
            .map_err(ClientError)?;
        Ok(Self { http, policy, connect_deadline })
    }

    /// Makes one attempt. It ends by the target's timeout, whatever the receiver does.
    pub(crate) async fn deliver(&self, request: &DeliveryRequest<'_>) -> MeasuredOutcome {
        let started = Instant::now();
        let outcome = self.attempt(request, started).await;
        MeasuredOutcome { outcome, duration: started.elapsed() }
    }

    async fn attempt(&self, request: &DeliveryRequest<'_>, started: Instant) -> AttemptOutcome {
        let target = request.target;
        if let Err(denied) = self.policy.permits_literal(&target.url) {
            return AttemptOutcome::Denied { message: denied.to_string() };
        }
        let headers = match headers_of(request) {
            Ok(headers) => headers,
            Err(refused) => return AttemptOutcome::NotSent { message: refused.to_string() },
        };
        let mut sent = reqwest::Request::new(Method::POST, target.url.clone());
        *sent.headers_mut() = headers;
        *sent.body_mut() = Some(request.body.clone().into());

        let deadline = started + target.timeout;
        let response = match timeout_at(deadline, self.http.execute(sent)).await {
            Err(_) => {
                return AttemptOutcome::TimedOut {
                    message: format!("no answer within {} s", target.timeout.as_secs_f64()),
                };
            }
            Ok(Err(error)) => return failure::outcome_of(&error, self.connect_deadline),
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        let retry_after = retry_after_of(response.headers(), request.attempted_at, started.elapsed());
        let body = response_body::read(response, deadline).await;
        if status.is_success() {
            AttemptOutcome::Succeeded { status: status.as_u16(), body }
        } else if status == StatusCode::GONE {
            AttemptOutcome::Gone { body }
        } else {
            AttemptOutcome::Refused { status: status.as_u16(), body, retry_after }
        }
    }
}

fn retry_after_of(headers: &HeaderMap, attempted_at: Timestamp, elapsed: Duration) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let elapsed = SignedDuration::try_from(elapsed).ok()?;
    retry_after::parse(value, attempted_at.saturating_add(elapsed).ok()?)
}
