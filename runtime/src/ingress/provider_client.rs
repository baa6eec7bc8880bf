//! The only requests of the ingress: a URL that a handshake confirms, and a certificate that a signature points to.
//!
//! Both URLs came from outside, and were found to be the provider's own before they get here. Only https is called, redirects
//! are not followed, and time and size are bounded. Certificates are kept, those that could not be had for a while too, so
//! that nobody makes us ask more than a few times.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use grapnel_core::verification::Certificate;

/// A provider waits for an answer no longer than seconds.
const DEADLINE: Duration = Duration::from_secs(5);

/// More certificates than all providers have at a time. When they are exceeded, the oldest goes.
const KEPT: usize = 64;

/// How long a certificate is believed, and how long it is not asked for again when it could not be had.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);
const PATIENCE: Duration = Duration::from_secs(30);

const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;

/// The URL did not answer as it should. The cause was logged; the provider comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the provider's URL did not answer")]
pub(crate) struct NotAnswered;

/// A client for the URLs of providers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ProviderClient {
    http: reqwest::Client,
    /// One at a time: whoever waits finds the answer.
    certificates: Arc<Mutex<Vec<Kept>>>,
}

#[derive(Debug)]
struct Kept {
    url: Url,
    certificate: Option<Certificate>,
    since: Instant,
}

impl Kept {
    fn is_current(&self) -> bool {
        self.since.elapsed() < if self.certificate.is_some() { FRESH } else { PATIENCE }
    }
}

impl ProviderClient {
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn new() -> reqwest::Result<Self> {
        Self::with(reqwest::Client::builder())
    }

    /// With what else is known of hosts and of whom to trust.
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

    /// Calls the URL; its answer says nothing but that it was heard.
    pub(crate) async fn confirm(&self, url: Url) -> Result<(), NotAnswered> {
        self.get(url).await.map(drop)
    }

    /// The certificate at the URL.
    pub(crate) async fn certificate(&self, url: &Url) -> Result<Certificate, NotAnswered> {
        let mut kept = self.certificates.lock().await;
        if let Some(found) = kept.iter().find(|kept| kept.url == *url && kept.is_current()) {
            return found.certificate.clone().ok_or(NotAnswered);
        }
        let certificate = match self.get(url.clone()).await {
            Ok(bytes) => Certificate::parse(&bytes),
            Err(NotAnswered) => None,
        };
        kept.retain(|kept| kept.url != *url);
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push(Kept { url: url.clone(), certificate: certificate.clone(), since: Instant::now() });
        certificate.ok_or(NotAnswered)
    }

    async fn get(&self, url: Url) -> Result<Vec<u8>, NotAnswered> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let failed = |error: reqwest::Error| {
            tracing::warn!(host, error = %grapnel_core::error_chain::chain(&error.without_url()), "a provider's URL did not answer");
            NotAnswered
        };
        let mut answer = self.http.get(url).send().await.map_err(failed)?;
        // A redirect that is not followed has a body too.
        if !answer.status().is_success() {
            tracing::warn!(
                host,
                status = answer.status().as_u16(),
                "a provider's URL did not answer as it should"
            );
            return Err(NotAnswered);
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_CERTIFICATE_BYTES {
                tracing::warn!(host, "a provider's URL answered too much");
                return Err(NotAnswered);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests;
