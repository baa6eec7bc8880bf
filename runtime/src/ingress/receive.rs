//! The handler of webhooks. It refuses a request in this order: 404, 429, 400 (a loop), 415 (its content coding), 413, 400 (it
//! does not decode), 401, 415, 400, 503. A verified request that is over the limit of verified ones is 429 where another would be
//! 415. Then it commits the events of the request and acknowledges them. A provider's handshake is answered before or after
//! verification, and is not an event.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use grapnel_core::delivery::hops::{MAX_HOPS, hops_of};
use grapnel_core::handshake::{CompiledHandshake, HandshakeDecision};
use grapnel_core::integration::CompiledIntegration;
use grapnel_core::request::IncomingRequest;
use grapnel_core::request::content_coding::ContentCodings;
use grapnel_core::verification::{Evaluation, Verified, VerifyError};
use grapnel_crds::HandshakeAuth;
use grapnel_platform::client_network::ClientNetwork;
use grapnel_platform::clock::VerificationClock;
use grapnel_platform::http_server::CorrelationId;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use ipnet::IpNet;
use jiff::Timestamp;

use super::body::{self, BodyBudget, BodyShare, ReceivedBody};
use super::captured_secret::CapturedSecrets;
use super::client_ip;
use super::commit::Committer;
use super::content::Content;
use super::filtering::Filtering;
use super::new_event::{NewEvents, Sender, new_events};
use super::outcome::{Refusal, WebhookOutcome};
use super::provider_client::ProviderClient;
use super::readable_form::ReadableForm;
use crate::integrations::cache::IntegrationCache;
use crate::rate_limit::{Admission, RateLimiter};
use crate::rejections::{Rejection, Rejections};
use crate::traffic::Traffic;

/// The state of the handler.
#[derive(Debug)]
pub(crate) struct Ingress {
    pub integrations: IntegrationCache,
    pub rate_limiter: RateLimiter,
    pub bodies: BodyBudget,
    pub filtering: Filtering,
    pub committer: Committer,
    pub readable_form: ReadableForm,
    pub trusted_proxies: Arc<[IpNet]>,
    /// The platform's limit, for integrations without one of their own.
    pub rate_limit_per_minute: u32,
    /// The platform's ceiling, which holds for every integration; `None`: no ceiling.
    pub max_rate_limit_per_minute: Option<u32>,
    /// The part before the path of the URL that providers call.
    pub public_url: Option<Arc<str>>,
    pub captured_secrets: CapturedSecrets,
    pub provider_client: ProviderClient,
    pub traffic: Traffic,
    pub rejections: Rejections,
    pub clock: VerificationClock,
}

/// The kind of a request to an integration's route.
enum RequestKind<'a> {
    Handshake(HandshakeDecision<'a>),
    Webhook(Verified),
    /// Verified, but with a method that only handshakes have, and not one of them.
    WrongMethod,
}

/// Receives one webhook. What few webhooks wait for is boxed, since the rest of this future is written for each of them.
pub(crate) async fn receive(ingress: Arc<Ingress>, request: Request<Body>, peer: SocketAddr) -> Response {
    let correlation_id = request.extensions().get().cloned().unwrap_or_else(CorrelationId::generate);
    let (method, route) = (request.method(), ingress.integration_at(request.uri().path()));
    let allowed = match &route {
        Ok(integration) => unless_allowed(integration, method),
        Err(Refusal::UnknownRoute) if method != Method::POST => Some(HeaderValue::from_static("POST")),
        Err(_) => None,
    };
    if let Some(allowed) = allowed {
        return Refusal::WrongMethod(allowed).into_response();
    }
    let result = match route {
        Ok(integration) => ingress.receive_or_note(integration, peer.ip(), &correlation_id.0, request).await,
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

    /// Receives a request, and notes it if it is refused.
    async fn receive_or_note(
        &self,
        integration: Arc<CompiledIntegration>,
        peer: IpAddr,
        correlation_id: &str,
        request: Request<Body>,
    ) -> Result<WebhookOutcome, Refusal> {
        let (parts, body) = request.into_parts();
        let id = integration.row.id;
        let received = self.receive(integration, peer, correlation_id, &parts, body).await;
        received.inspect_err(|refusal| {
            self.traffic.count().refused(id);
            self.rejections.note(id, || {
                let client_ip = client_ip::address(peer, &parts.headers, &self.trusted_proxies);
                Rejection::new(&parts, client_ip, refusal.label(), refusal.reason())
            });
        })
    }

    async fn receive(
        &self,
        integration: Arc<CompiledIntegration>,
        peer: IpAddr,
        correlation_id: &str,
        parts: &Parts,
        body: Body,
    ) -> Result<WebhookOutcome, Refusal> {
        let headers = &parts.headers;
        let client_ip = client_ip::address(peer, headers, &self.trusted_proxies);
        let client = ClientNetwork::of(client_ip);
        let admission = self.admit(&integration, client).await?;
        if hops_of(headers) > MAX_HOPS {
            return Err(Refusal::Loop);
        }
        let (body, encoded) = self.read_body(&integration, client, headers, body).await?;
        let ReceivedBody { bytes, mut share } = body;
        let multipart = integration.compiled.mapper.multipart(headers, &bytes);
        let fields =
            multipart.as_ref().map(|read| read.as_ref().map_or(&b""[..], |multipart| &multipart.fields));
        share.grow(fields.map_or(0, <[u8]>::len)).map_err(Refusal::Body)?;
        let request = IncomingRequest {
            method: &parts.method,
            uri: &parts.uri,
            headers,
            body: &bytes,
            encoded_body: encoded.as_ref().map(|body| &body.bytes[..]),
            form: fields,
            public_url: self.public_url.as_deref(),
            json: None,
        };
        let mut events = match self.classify(&integration, &request, admission).await? {
            RequestKind::Handshake(decision) => {
                let response = Box::pin(self.answer_handshake(&integration, decision, &request)).await?;
                return Ok(WebhookOutcome::Handshake(response));
            }
            RequestKind::WrongMethod => return Err(Refusal::WrongMethod(integration.methods.allow())),
            RequestKind::Webhook(verified) => {
                let content = Content::of(&integration.compiled, &request, bytes.clone(), multipart.clone())?;
                share.grow(content.json_length()).map_err(Refusal::Body)?;
                let sender = Sender { client_ip, correlation_id, secret_index: verified.secret };
                new_events(&integration, sender, &request, content, &mut share, &self.readable_form)?
            }
        };
        if integration.filters.is_some() {
            Box::pin(self.filtering.apply(&integration, &mut events.events)).await;
        }
        // From here on only the events hold the body, and the share of the memory budget goes with them.
        drop((bytes, encoded, multipart));
        self.commit(integration, events, share).await
    }

    /// Reads the body, and takes off its content coding. The body as it came is also returned, if its signature covers that.
    async fn read_body(
        &self,
        integration: &CompiledIntegration,
        client: ClientNetwork,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(ReceivedBody, Option<ReceivedBody>), Refusal> {
        let codings = ContentCodings::of(headers).map_err(Refusal::UnsupportedCoding)?;
        let (limit, share) = (integration.max_body_bytes, || self.bodies.share(client, integration.row.id));
        let received = body::read(headers, body, limit, share()).await.map_err(Refusal::Body)?;
        let Some(codings) = codings else { return Ok((received, None)) };
        let decoded = body::decode(&received, &codings, limit, share()).map_err(Refusal::Body)?;
        Ok((decoded, integration.compiled.verifier.signs_encoded_body().then_some(received)))
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

    /// Recognizes a handshake before and after verification; anything else must be verified and have a method of webhooks.
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
        Ok(if integration.methods.contains(request.method) {
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
                    self.provider_client.certificate(integration.row.id, claim.certificate_url());
                let certificate = Box::pin(certificate).await.map_err(|_| Refusal::Unavailable)?;
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
                Err(match refused {
                    VerifyError::TooManyElements(too_many) => Refusal::TooManyEvents(too_many),
                    refused => Refusal::NotVerified(refused),
                })
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
        NewEvents { events, is_split }: NewEvents,
        share: BodyShare,
    ) -> Result<WebhookOutcome, Refusal> {
        let events = self.committer.commit(events, share).await.map_err(|_| Refusal::Unavailable)?;
        Ok(WebhookOutcome::Stored { integration, events, is_split })
    }
}

/// Returns the methods of webhooks, unless this is one of them or a handshake's.
fn unless_allowed(integration: &CompiledIntegration, method: &Method) -> Option<HeaderValue> {
    let is_allowed =
        integration.methods.contains(method) || integration.compiled.handshakes.has_method(method);
    (!is_allowed).then(|| integration.methods.allow())
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
