//! Makes the only requests of the ingress: to the URL that a handshake confirms, and for the certificate that a signature
//! refers to.
//!
//! Both URLs come from outside, and were checked to be the provider's own. Only https is called, redirects are not followed,
//! and time and size are bounded. Certificates are cached, and failures for a while too, so that no sender can cause more
//! than a few requests.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use grapnel_core::verification::Certificate;

/// The deadline of a request: a provider waits only a few seconds for its response.
const DEADLINE: Duration = Duration::from_secs(5);

/// The cached certificates, more than all providers have at a time. Beyond that the oldest is removed.
const MAX_CACHED: usize = 64;

/// How long a certificate is used, and how long it is not requested again after a failure.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
const FAILURE_LIFETIME: Duration = Duration::from_secs(30);

const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;

/// A failed call to a provider's URL. The cause is logged; the provider repeats its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the provider's URL did not answer")]
pub(crate) struct ProviderCallError;

/// A client for the URLs of providers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ProviderClient {
    http: reqwest::Client,
    /// One request at a time: waiting callers find the result.
    certificates: Arc<Mutex<Vec<CachedCertificate>>>,
}

#[derive(Debug)]
struct CachedCertificate {
    url: Url,
    certificate: Option<Certificate>,
    since: Instant,
}

impl CachedCertificate {
    fn is_current(&self) -> bool {
        self.since.elapsed()
            < if self.certificate.is_some() { CERTIFICATE_LIFETIME } else { FAILURE_LIFETIME }
    }
}

impl ProviderClient {
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn new() -> reqwest::Result<Self> {
        Self::with(reqwest::Client::builder())
    }

    /// Takes a builder, in which tests set hosts and trusted roots.
    fn with(builder: reqwest::ClientBuilder) -> reqwest::Result<Self> {
        let http = builder
            .https_only(true)
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .timeout(DEADLINE)
            .build()?;
        Ok(Self { http, certificates: Arc::default() })
    }

    /// Calls the URL. A success means only that it was called.
    pub(crate) async fn confirm(&self, url: Url) -> Result<(), ProviderCallError> {
        self.get(url).await.map(drop)
    }

    /// Returns the certificate at the URL.
    pub(crate) async fn certificate(&self, url: &Url) -> Result<Certificate, ProviderCallError> {
        let mut cached = self.certificates.lock().await;
        if let Some(found) = cached.iter().find(|cached| cached.url == *url && cached.is_current()) {
            return found.certificate.clone().ok_or(ProviderCallError);
        }
        let certificate = match self.get(url.clone()).await {
            Ok(bytes) => Certificate::parse(&bytes),
            Err(ProviderCallError) => None,
        };
        cached.retain(|cached| cached.url != *url);
        if cached.len() >= MAX_CACHED {
            cached.remove(0);
        }
        cached.push(CachedCertificate {
            url: url.clone(),
            certificate: certificate.clone(),
            since: Instant::now(),
        });
        certificate.ok_or(ProviderCallError)
    }

    async fn get(&self, url: Url) -> Result<Vec<u8>, ProviderCallError> {
        let host = url.host_str().unwrap_or_default().to_owned();
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

#[cfg(test)]
mod tests;
