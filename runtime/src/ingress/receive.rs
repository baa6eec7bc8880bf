//! The handler of webhooks. It refuses a request in this order: 404, 429, 400 (a loop), 413, 401, 415, 400, 503. A verified
//! request that is over the limit of verified ones is 429 where another would be 415. Then it commits the event and
//! acknowledges it. A provider's handshake is answered before or after verification, and is not an event.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Extension, OriginalUri, Request, State};
use axum::response::{IntoResponse, Response};
use grapnel_core::delivery::hops::{MAX_HOPS, hops_of};
use grapnel_core::handshake::{CompiledHandshake, HandshakeDecision};
use grapnel_core::integration::CompiledIntegration;
use grapnel_core::request::IncomingRequest;
use grapnel_core::verification::{Evaluation, Verified};
use grapnel_crds::HandshakeAuth;
use grapnel_platform::client_network::ClientNetwork;
use grapnel_platform::clock::VerificationClock;
use grapnel_platform::http_server::CorrelationId;
use grapnel_store::events::{IngestOutcome, NewEvent};
use http::{Method, StatusCode};
use ipnet::IpNet;
use jiff::Timestamp;

use super::body::{self, BodyBudget, BodyShare, ReceivedBody};
use super::captured_secret::CapturedSecrets;
use super::client_ip;
use super::commit::Committer;
use super::new_event::new_event;
use super::outcome::{Refusal, WebhookOutcome};
use super::provider_client::ProviderClient;
use crate::integrations::cache::IntegrationCache;
use crate::rate_limit::{Admission, RateLimiter};

/// The state of the handler.
#[derive(Debug, Clone)]
pub(crate) struct Ingress {
    pub integrations: IntegrationCache,
    pub rate_limiter: RateLimiter,
    pub bodies: BodyBudget,
    pub committer: Committer,
    pub trusted_proxies: Arc<[IpNet]>,
    /// The platform's limit, for integrations without one of their own.
    pub rate_limit_per_minute: u32,
    /// The platform's ceiling, which holds for every integration; `None`: no ceiling.
    pub max_rate_limit_per_minute: Option<u32>,
    /// The part before the path of the URL that providers call.
    pub public_url: Option<Arc<str>>,
    pub captured_secrets: CapturedSecrets,
    pub provider_client: ProviderClient,
    pub clock: VerificationClock,
}

/// The kind of a request to an integration's route.
enum RequestKind<'a> {
    Handshake(HandshakeDecision<'a>),
    Webhook(Verified),
    /// Verified, but with a method that only handshakes have, and not one of them.
    WrongMethod,
}

/// Receives one webhook.
pub(crate) async fn receive(
    State(ingress): State<Ingress>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(correlation_id): Extension<CorrelationId>,
    request: Request,
) -> Response {
    let (method, route) = (request.method(), ingress.integration_at(request.uri().path()));
    let has_handshake =
        |integration: &Arc<CompiledIntegration>| integration.compiled.handshakes.has_method(method);
    if method != Method::POST && !route.as_ref().is_ok_and(has_handshake) {
        return Refusal::WrongMethod.into_response();
    }
    let result = match route {
        Ok(integration) => ingress.receive(integration, peer.ip(), &correlation_id.0, request).await,
        Err(refusal) => Err(refusal),
    };
    let (label, response) = match result {
        Ok(outcome) => (outcome.label(), outcome.into_response(&correlation_id.0)),
        Err(refusal) => (refusal.label(), refusal.into_response()),
    };
    metrics::counter!("grapnel_webhooks_total", "outcome" => label).increment(1);
    response
}

impl Ingress {
    /// Returns the integration that the path names. The last segment is compared as received: a route is a DNS label, so
    /// it never has an encoded character. A slash after it makes no difference.
    fn integration_at(&self, path: &str) -> Result<Arc<CompiledIntegration>, Refusal> {
        // A provider may take a 404 as final.
        if !self.integrations.is_loaded() {
            return Err(Refusal::Unavailable);
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let route = path.rsplit('/').next().unwrap_or_default();
        let integrations = self.integrations.load();
        if let Some(found) = integrations.by_route(route).filter(|integration| integration.accepts()) {
            return Ok(Arc::clone(found));
        }
        Err(if integrations.is_route_unusable(route) { Refusal::Unavailable } else { Refusal::UnknownRoute })
    }

    async fn receive(
        &self,
        integration: Arc<CompiledIntegration>,
        peer: IpAddr,
        correlation_id: &str,
        request: Request,
    ) -> Result<WebhookOutcome, Refusal> {
        let (parts, body) = request.into_parts();
        let headers = &parts.headers;
        let client_ip = client_ip::address(peer, headers, &self.trusted_proxies);
        let client = ClientNetwork::of(client_ip);
        let admission = self.admit(&integration, client).await?;
        if hops_of(headers) > MAX_HOPS {
            return Err(Refusal::Loop);
        }
        let share = self.bodies.share(client, integration.row.id);
        let body = body::read(headers, body, integration.max_body_bytes, share).await;
        let ReceivedBody { bytes, share } = body.map_err(Refusal::Body)?;
        let request = IncomingRequest {
            method: &parts.method,
            // The URI of a nested router has lost its beginning, and providers sign all of it.
            uri: parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0),
            headers,
            body: &bytes,
            public_url: self.public_url.as_deref(),
            json: None,
        };
        let event = match self.classify(&integration, &request, admission).await? {
            RequestKind::Handshake(decision) => {
                let response = self.answer_handshake(&integration, decision, &request).await?;
                return Ok(WebhookOutcome::Handshake(response));
            }
            RequestKind::WrongMethod => return Err(Refusal::WrongMethod),
            RequestKind::Webhook(verified) => {
                new_event(&integration, client_ip, correlation_id, &request, bytes.clone(), verified)?
            }
        };
        // From here on only the event holds the body, and the share of the memory budget goes with it.
        drop(bytes);
        self.commit(integration, event, share).await
    }

    /// Asks whether the request may be read and verified.
    async fn admit(
        &self,
        integration: &CompiledIntegration,
        client: ClientNetwork,
    ) -> Result<Admission, Refusal> {
        let per_minute = effective_limit(
            integration.rate_limit_per_minute.unwrap_or(self.rate_limit_per_minute),
            self.max_rate_limit_per_minute,
        );
        let admitted = self.rate_limiter.admit(integration.row.id, client, per_minute, Timestamp::now());
        Ok(admitted.await?)
    }

    /// Recognizes a handshake before and after verification; anything else must be a verified POST.
    async fn classify<'a>(
        &self,
        integration: &'a CompiledIntegration,
        request: &IncomingRequest<'_>,
        admission: Admission,
    ) -> Result<RequestKind<'a>, Refusal> {
        let handshakes = &integration.compiled.handshakes;
        if let Some(decision) = handshakes.recognize(request, HandshakeAuth::Unverified) {
            return Ok(RequestKind::Handshake(decision));
        }
        let verified = self.verify(integration, request).await?;
        admission.verified(Timestamp::now()).await?;
        if let Some(decision) = handshakes.recognize(request, HandshakeAuth::Verified) {
            return Ok(RequestKind::Handshake(decision));
        }
        Ok(if *request.method == Method::POST {
            RequestKind::Webhook(verified)
        } else {
            RequestKind::WrongMethod
        })
    }

    /// Verifies a request, and counts the use of the secret that verified it.
    async fn verify(
        &self,
        integration: &CompiledIntegration,
        request: &IncomingRequest<'_>,
    ) -> Result<Verified, Refusal> {
        let verifier = &integration.compiled.verifier;
        let result = match verifier.evaluate(request, self.clock.now()) {
            Ok(Evaluation::Verified(verified)) => Ok(verified),
            Ok(Evaluation::NeedsCertificate(claim)) => {
                let certificate =
                    self.provider_client.certificate(integration.row.id, claim.certificate_url()).await;
                let certificate = certificate.map_err(|_| Refusal::Unavailable)?;
                claim.verify_by(&certificate, self.clock.now())
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(verified) => {
                integration.uses.count(verified.secret, Timestamp::now());
                count_secret(verified.secret);
                Ok(verified)
            }
            Err(refused) => {
                tracing::debug!(integration.id = %integration.row.id, %refused, "webhook not verified");
                Err(Refusal::NotVerified(refused))
            }
        }
    }

    async fn answer_handshake(
        &self,
        integration: &CompiledIntegration,
        decision: HandshakeDecision<'_>,
        request: &IncomingRequest<'_>,
    ) -> Result<Response, Refusal> {
        match decision {
            HandshakeDecision::Forbid => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::FORBIDDEN;
                Ok(response)
            }
            HandshakeDecision::Respond(handshake) => self.respond(integration, handshake, request).await,
        }
    }

    async fn respond(
        &self,
        integration: &CompiledIntegration,
        handshake: &CompiledHandshake,
        request: &IncomingRequest<'_>,
    ) -> Result<Response, Refusal> {
        if let Some(secret) = handshake.captured_secret(request) {
            let stored = self.captured_secrets.store(integration, &handshake.name, &secret).await;
            stored.map_err(|_| Refusal::Unavailable)?;
        }
        if let Some(url) = handshake.confirmation_url(request) {
            let reason = "the URL to confirm is not one of the provider's";
            let url = url.map_err(|_| Refusal::InvalidHandshake(reason))?;
            let confirmed = self.provider_client.confirm(integration.row.id, url).await;
            confirmed.map_err(|_| Refusal::Unavailable)?;
        }
        tracing::info!(integration.id = %integration.row.id, handshake = %handshake.name, "handshake answered");
        let response = handshake.respond(request, &integration.compiled.verifier);
        response
            .map(|response| response.map(Body::from))
            .ok_or(Refusal::InvalidHandshake("the challenge is too long"))
    }

    async fn commit(
        &self,
        integration: Arc<CompiledIntegration>,
        event: NewEvent,
        share: BodyShare,
    ) -> Result<WebhookOutcome, Refusal> {
        let event_id = event.id;
        match self.committer.commit(event, share).await {
            Ok(IngestOutcome::New) => Ok(WebhookOutcome::Accepted { integration, event_id }),
            Ok(IngestOutcome::DuplicateOf(event_id)) => {
                Ok(WebhookOutcome::Duplicate { integration, event_id })
            }
            Ok(IngestOutcome::TryAgain) | Err(_) => Err(Refusal::Unavailable),
        }
    }
}

/// Returns the limit that applies. No limit (0) means the ceiling, if there is one.
fn effective_limit(per_minute: u32, ceiling: Option<u32>) -> u32 {
    match (per_minute, ceiling) {
        (0, Some(ceiling)) => ceiling,
        (limit, Some(ceiling)) => limit.min(ceiling),
        (limit, None) => limit,
    }
}

fn count_secret(secret: usize) {
    // With literals the key is static, and nothing is allocated.
    if secret == 0 {
        metrics::counter!("grapnel_webhook_secrets_total", "secret" => "current").increment(1);
    } else {
        metrics::counter!("grapnel_webhook_secrets_total", "secret" => "previous").increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_means_the_ceiling() {
        assert_eq!(effective_limit(0, Some(60_000)), 60_000);
        assert_eq!(effective_limit(600, Some(60_000)), 600);
        assert_eq!(effective_limit(100_000, Some(60_000)), 60_000);
        assert_eq!((effective_limit(0, None), effective_limit(600, None)), (0, 600));
    }
}
