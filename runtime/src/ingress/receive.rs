//! The handler: the steps in the order in which a request is refused (404, 429, 413, 401, 415, 400, 503), then the
//! commit, then the answer. A provider's handshake is answered on the way, before or after it is verified, and is no event.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Extension, OriginalUri, Request, State};
use axum::response::{IntoResponse, Response};
use grapnel_crds::HandshakeAuth;
use http::{Method, StatusCode};
use ipnet::IpNet;
use jiff::Timestamp;

use super::acknowledgement::acknowledge;
use super::body::{BodyBudget, ReceivedBody};
use super::captured_secret::CapturedSecrets;
use super::commit::Committer;
use super::new_event::{Unstored, new_event};
use super::provider_client::ProviderClient;
use super::{client_ip, refuse};
use crate::http::envelope::{ApiError, ErrorCode};
use crate::integrations::cache::IntegrationCache;
use crate::rate_limit::{RateLimiter, Verdict};
use grapnel_core::handshake::{Answer, Handshake};
use grapnel_core::integration::CompiledIntegration;
use grapnel_core::request::Incoming;
use grapnel_core::verification::Proof;
use grapnel_platform::clock::VerificationClock;
use grapnel_platform::http_server::CorrelationId;
use grapnel_store::events::IngestOutcome;

/// What the handler needs.
#[derive(Debug, Clone)]
pub(crate) struct Ingress {
    pub integrations: IntegrationCache,
    pub rate_limiter: RateLimiter,
    pub bodies: BodyBudget,
    pub committer: Committer,
    pub trusted_proxies: Arc<[IpNet]>,
    /// The platform's limit, for integrations that have none of their own.
    pub rate_limit_per_minute: u32,
    /// What stands before the path in the URL that providers call.
    pub public_url: Option<Arc<str>>,
    pub captured_secrets: CapturedSecrets,
    pub provider_client: ProviderClient,
    /// What the age of a timestamp is measured by.
    pub clock: VerificationClock,
}

/// Receives one webhook.
pub(crate) async fn receive(
    State(ingress): State<Ingress>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(correlation_id): Extension<CorrelationId>,
    request: Request,
) -> Response {
    if request.method() != Method::POST && !ingress.has_handshake(&request) {
        return refuse::not_allowed();
    }
    let (outcome, response) = match ingress.receive(peer.ip(), &correlation_id.0, request).await {
        Ok(outcome) => outcome,
        Err(error) => (refuse::outcome_label(error.code()), error.into_response()),
    };
    metrics::counter!("grapnel_webhooks_total", "outcome" => outcome).increment(1);
    response
}

impl Ingress {
    async fn receive(
        &self,
        peer: IpAddr,
        correlation_id: &str,
        request: Request,
    ) -> Result<(&'static str, Response), ApiError> {
        let (parts, body) = request.into_parts();
        let headers = &parts.headers;
        let integration = self.route(parts.uri.path())?;
        let source_ip = client_ip::address(peer, headers, &self.trusted_proxies);
        self.limit(&integration, source_ip).await?;
        let received = self
            .bodies
            .read(headers, body, integration.max_body_bytes)
            .await
            .map_err(refuse::body_refused)?;
        let incoming = Incoming {
            method: &parts.method,
            // That of a nested router has lost its beginning, and providers sign the whole.
            uri: parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0),
            headers,
            body: &received.bytes,
            public_url: self.public_url.as_deref(),
            json: None,
        };
        if let Some(answer) = self.shake_hands(&integration, &incoming, HandshakeAuth::Unverified).await? {
            return Ok(("handshake", answer));
        }
        let proof = self.verify(&integration, &incoming).await?;
        if let Some(answer) = self.shake_hands(&integration, &incoming, HandshakeAuth::Verified).await? {
            return Ok(("handshake", answer));
        }
        // A handshake for another method did not match.
        if parts.method != Method::POST {
            return Ok(("error", refuse::not_allowed()));
        }
        let form =
            integration.compiled.mapper.body_form(headers).ok_or_else(refuse::unsupported_media_type)?;
        let event = new_event(&integration, source_ip, correlation_id, &incoming, form, proof);
        let event = event.map_err(refuse::malformed)?;
        self.store(&integration, correlation_id, event, received).await
    }

    async fn store(
        &self,
        integration: &CompiledIntegration,
        correlation_id: &str,
        event: Unstored,
        received: ReceivedBody,
    ) -> Result<(&'static str, Response), ApiError> {
        let event = event.with(received.bytes);
        let id = event.id;
        match self.committer.commit(event, received.share).await.map_err(refuse::not_committed)? {
            IngestOutcome::New => Ok(("accepted", acknowledge(integration, id, false, correlation_id))),
            IngestOutcome::DuplicateOf(first) => {
                Ok(("duplicate", acknowledge(integration, first, true, correlation_id)))
            }
            IngestOutcome::TryAgain => Ok(("unavailable", refuse::unavailable().into_response())),
        }
    }

    /// Whether the route has a handshake for the request's method.
    fn has_handshake(&self, request: &Request) -> bool {
        let found = self.route(request.uri().path());
        found.is_ok_and(|integration| integration.compiled.handshakes.has_method(request.method()))
    }

    /// The proof, counted by the secret that gave it.
    async fn verify(
        &self,
        integration: &CompiledIntegration,
        incoming: &Incoming<'_>,
    ) -> Result<Proof, ApiError> {
        let verifier = &integration.compiled.verifier;
        let judged = match verifier.certificate_url(incoming) {
            Ok(None) => verifier.verify(incoming, self.clock.now()),
            Ok(Some(url)) => {
                let certificate = self.provider_client.certificate(&url).await;
                let certificate = certificate.map_err(|_| refuse::unavailable())?;
                verifier.verify_by(incoming, &certificate, self.clock.now())
            }
            Err(refused) => Err(refused),
        };
        match judged {
            Ok(proof) => {
                integration.uses.count(proof.secret, Timestamp::now());
                count_secret(proof.secret);
                Ok(proof)
            }
            Err(refused) => {
                tracing::debug!(integration.id = %integration.row.id, %refused, "webhook not verified");
                Err(ApiError::new(ErrorCode::Unauthorized, refused.public_message()))
            }
        }
    }

    async fn shake_hands(
        &self,
        integration: &CompiledIntegration,
        incoming: &Incoming<'_>,
        proof: HandshakeAuth,
    ) -> Result<Option<Response>, ApiError> {
        match integration.compiled.handshakes.find(incoming, proof) {
            None => Ok(None),
            Some(Answer::Forbidden) => {
                let mut response = Response::new(axum::body::Body::empty());
                *response.status_mut() = StatusCode::FORBIDDEN;
                Ok(Some(response))
            }
            Some(Answer::Handshake(handshake)) => {
                self.answer(integration, handshake, incoming).await.map(Some)
            }
        }
    }

    async fn answer(
        &self,
        integration: &CompiledIntegration,
        handshake: &Handshake,
        incoming: &Incoming<'_>,
    ) -> Result<Response, ApiError> {
        if let Some(secret) = handshake.captured(incoming) {
            let kept = self.captured_secrets.store(integration, &handshake.name, &secret).await;
            kept.map_err(|_| refuse::unavailable())?;
        }
        if let Some(url) = handshake.confirmation(incoming) {
            let url = url
                .map_err(|_| ApiError::invalid("body", "the URL to confirm is not one of the provider's"))?;
            let confirmed = self.provider_client.confirm(url).await;
            confirmed.map_err(|_| refuse::unavailable())?;
        }
        tracing::info!(integration.id = %integration.row.id, handshake = %handshake.name, "handshake answered");
        handshake
            .respond(incoming, &integration.compiled.verifier)
            .map(|response| response.map(Into::into))
            .ok_or_else(|| ApiError::invalid("body", "the challenge is too long"))
    }

    /// The integration that the path names. The last segment is compared as it came: a route is a DNS label, so
    /// nothing that would have to be decoded can be one.
    fn route(&self, path: &str) -> Result<Arc<CompiledIntegration>, ApiError> {
        // A provider may take a 404 as final.
        if !self.integrations.is_loaded() {
            return Err(refuse::unavailable());
        }
        let route = path.rsplit('/').next().unwrap_or_default();
        let integrations = self.integrations.load();
        let found = integrations.by_route(route).filter(|found| found.accepts());
        found
            .cloned()
            .ok_or_else(|| ApiError::new(ErrorCode::NotFound, "There is no active integration at this route"))
    }

    async fn limit(&self, integration: &CompiledIntegration, source_ip: IpAddr) -> Result<(), ApiError> {
        let per_minute = integration.rate_limit_per_minute.unwrap_or(self.rate_limit_per_minute);
        match self.rate_limiter.check(integration.row.id, source_ip, per_minute, Timestamp::now()).await {
            Verdict::Allowed => Ok(()),
            Verdict::Limited { retry_after_seconds } => {
                let message = format!("More than {per_minute} requests in a minute");
                Err(ApiError::new(ErrorCode::RateLimited, message).retry_after(retry_after_seconds))
            }
        }
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
