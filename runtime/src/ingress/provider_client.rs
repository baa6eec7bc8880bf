//! Makes the only requests of the ingress: to the URL that a handshake confirms, and for the certificate that a signature
//! refers to.
//!
//! Both URLs come from outside, and were checked to be the provider's own. Only https is called, only at addresses that the
//! egress policy permits; redirects are not followed, and time and size are bounded. An unverified request can cause a call,
//! so one integration has few of them in progress, and those of another do not wait for them.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use url::Url;

use crate::egress::PermittedResolver;
use grapnel_core::delivery::egress_policy::EgressPolicy;
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
    http: reqwest::Client,
    policy: Arc<EgressPolicy>,
    calls: FairShares<IntegrationId>,
    certificates: CertificateCache,
}

impl ProviderClient {
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn new(policy: EgressPolicy) -> reqwest::Result<Self> {
        Self::with(reqwest::Client::builder(), policy)
    }

    /// Takes a builder, in which tests set hosts and trusted roots.
    fn with(builder: reqwest::ClientBuilder, policy: EgressPolicy) -> reqwest::Result<Self> {
        let policy = Arc::new(policy);
        let http = builder
            .https_only(true)
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .dns_resolver(PermittedResolver::new(Arc::clone(&policy)))
            .timeout(DEADLINE)
            .build()?;
        let calls = FairShares::new(MAX_CALLS, CALLS_DIVISOR);
        Ok(Self { http, policy, calls, certificates: CertificateCache::default() })
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

    async fn get(&self, url: Url) -> Result<Vec<u8>, ProviderCallError> {
        let host = url.host_str().unwrap_or_default().to_owned();
        if let Err(denied) = self.policy.permits_literal(&url) {
            tracing::warn!(host, error = %denied, "a provider's URL was not called");
            return Err(ProviderCallError);
        }
        let failed = |error: reqwest::Error| {
            tracing::warn!(host, error = %grapnel_core::error_chain::chain(&error.without_url()), "a provider's URL did not answer");
            ProviderCallError
        };
        let mut answer = self.http.get(url).send().await.map_err(failed)?;
        // A redirect that is not followed has a body too.
        if !answer.status().is_success() {
            tracing::warn!(
                host,
                status = answer.status().as_u16(),
                "a provider's URL answered with an error"
            );
            return Err(ProviderCallError);
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_CERTIFICATE_BYTES {
                tracing::warn!(host, "a provider's URL returned too long a response");
                return Err(ProviderCallError);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}
