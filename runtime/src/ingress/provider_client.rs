//! Makes the only requests of the ingress: to the URL that a handshake confirms, and for the certificate that a signature
//! refers to.
//!
//! Both URLs come from outside, and were checked to be the provider's own. Only https is called, by the platform's way out; redirects
//! are not followed, and time and size are bounded. An unverified request can cause a call,
//! so one integration has few of them in progress, and those of another do not wait for them.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{ACCEPT, HeaderValue};
use http_body_util::Full;
use thiserror::Error;
use url::Url;

use crate::egress::{CallClient, CallError, Egress};
use grapnel_core::ids::IntegrationId;
use grapnel_core::verification::Certificate;
use grapnel_platform::fair_shares::FairShares;

mod certificates;
#[cfg(test)]
mod tests;

use certificates::CertificateCache;

/// The deadline of a request: a provider waits only a few seconds for its response.
const DEADLINE: Duration = Duration::from_secs(5);

/// Calls in progress. One integration has at most two of them.
const MAX_CALLS: usize = 64;
const CALLS_DIVISOR: usize = 32;

const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;

/// A failed call to a provider's URL. The cause is logged; the provider repeats its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the provider's URL did not answer")]
pub(crate) struct ProviderCallError;

/// A client for the URLs of providers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ProviderClient {
    http: CallClient,
    calls: FairShares<IntegrationId>,
    certificates: CertificateCache,
}

impl ProviderClient {
    pub(crate) fn new(egress: Egress) -> Self {
        let calls = FairShares::new(MAX_CALLS, CALLS_DIVISOR);
        Self { http: CallClient::new(egress, DEADLINE), calls, certificates: CertificateCache::default() }
    }

    /// Calls the URL. A success means only that it was called.
    pub(crate) async fn confirm(
        &self,
        integration_id: IntegrationId,
        url: Url,
    ) -> Result<(), ProviderCallError> {
        let _call = self.calls.take(Some(integration_id), 1).ok_or(ProviderCallError)?;
        self.get(url).await.map(drop)
    }

    /// Returns the certificate at the URL.
    pub(crate) async fn certificate(
        &self,
        integration_id: IntegrationId,
        url: &Url,
    ) -> Result<Certificate, ProviderCallError> {
        let fetch = || {
            let call = self.calls.take(Some(integration_id), 1)?;
            let (client, url) = (self.clone(), url.clone());
            Some(async move {
                let _call = call;
                client.get(url).await.ok().and_then(|bytes| Certificate::parse(&bytes))
            })
        };
        self.certificates.get(integration_id, url, fetch).await.ok_or(ProviderCallError)
    }

    async fn get(&self, url: Url) -> Result<Bytes, ProviderCallError> {
        let host = url.host_str().unwrap_or_default();
        let failed = |error: CallError| {
            tracing::warn!(host, error = %grapnel_core::error_chain::chain(&error), "a provider's URL did not answer");
            ProviderCallError
        };
        if url.scheme() != "https" {
            tracing::warn!(host, "a provider's URL is not https");
            return Err(ProviderCallError);
        }
        let mut request = Request::new(Full::default());
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("*/*"));
        let answer = self.http.call(&url, request, MAX_CERTIFICATE_BYTES).await.map_err(failed)?;
        // A redirect that is not followed has a body too.
        if !answer.status().is_success() {
            tracing::warn!(
                host,
                status = answer.status().as_u16(),
                "a provider's URL answered with an error"
            );
            return Err(ProviderCallError);
        }
        Ok(answer.into_body())
    }
}
