//! Compiles a destination: whom its deliveries go to, in which form, and with which headers and credentials.

use std::sync::Arc;
use std::time::Duration;

use grapnel_crds::{Auth, Destination, DestinationFormat, SecretRef};
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use secrecy::zeroize::Zeroizing;
use thiserror::Error;
use url::Url;

use super::{CompileError, IntegrationRow};
use crate::delivery::oauth2::{ClientCredentials, TokenRequest, basic_authorization};
use crate::delivery::retry::CompiledRetryPolicy;
use crate::delivery::service_endpoints::ServiceEndpoints;
use crate::delivery::signing::{SigningKey, SigningKeyError};
use crate::delivery::target::{DeliveryTarget, TargetError};
use crate::delivery::tls_material::{TlsMaterial, TlsMaterialError, TlsSecrets};
use crate::payload::DeliveredAs;
use crate::preset;
use crate::secrets::{IntegrationSecrets, SecretsError};

/// A destination that events can be delivered to. Everything that an attempt uses is in it, so two that are equal deliver alike.
#[derive(Debug, PartialEq)]
pub struct CompiledDestination {
    pub name: Arc<str>,
    pub target: DeliveryTarget,
    pub timeout: Duration,
    /// Concurrent requests from one worker.
    pub max_concurrency: usize,
    pub retry: CompiledRetryPolicy,
    /// The form of its deliveries; `None`: the one stored with the event.
    pub delivered_as: Option<DeliveredAs>,
    pub forwarded: ForwardedHeaders,
}

/// The headers of the webhook that are sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardedHeaders {
    /// The destination names them.
    Always(Vec<HeaderName>),
    /// The preset names them, for the body as it came.
    WithRaw(Vec<HeaderName>),
}

/// Why a secret of a destination cannot be used. No message repeats any of it.
#[derive(Debug, Error)]
pub enum DestinationSecretError {
    #[error(transparent)]
    Signing(#[from] SigningKeyError),
    #[error("the value of {field} is missing")]
    Missing { field: String },
    #[error("the value of {field} cannot be sent in a header: it must be visible ASCII")]
    NotAHeader { field: String },
    #[error("the user name of auth.basic must not contain a colon")]
    UserName,
    #[error(transparent)]
    Tls(#[from] TlsMaterialError),
}

impl ForwardedHeaders {
    fn new(spec: &Destination, provider: &str) -> Self {
        let names = |texts: &[String]| {
            texts.iter().filter_map(|text| HeaderName::try_from(text.as_str()).ok()).collect()
        };
        match (&spec.forward_headers, preset::find(provider)) {
            (Some(named), _) => Self::Always(names(named)),
            (None, Some(preset)) => Self::WithRaw(names(&preset.forward_headers)),
            (None, None) => Self::WithRaw(Vec::new()),
        }
    }

    /// Returns the names for an event that is delivered in this form.
    pub fn names(&self, delivered_as: DeliveredAs) -> &[HeaderName] {
        match self {
            Self::Always(names) => names,
            Self::WithRaw(names) if delivered_as == DeliveredAs::Raw => names,
            Self::WithRaw(_) => &[],
        }
    }

    /// Returns whether the headers of the webhook are needed in every form.
    pub fn are_always_needed(&self) -> bool {
        matches!(self, Self::Always(names) if !names.is_empty())
    }
}

impl CompiledDestination {
    /// Compiles a destination of a row.
    pub(super) fn new(
        spec: &Destination,
        row: &IntegrationRow,
        endpoints: &ServiceEndpoints,
        secrets: &IntegrationSecrets,
    ) -> Result<Self, CompileError> {
        let secret = |source| CompileError::DestinationSecret { destination: spec.name.clone(), source };
        let target = |source| CompileError::Destination { destination: spec.name.clone(), source };
        let sent = SentSecrets::new(spec, secrets)?;
        let signing_keys = signing_keys(spec, secrets)?.map_err(secret)?;
        let mut compiled = DeliveryTarget::new(
            &spec.request_url(&row.namespace),
            spec.timeout(),
            &row.provider,
            signing_keys,
        )
        .map_err(target)?;
        if let Some(service) = &spec.service {
            compiled = compiled.with_endpoints(endpoints.to_dial(&service.into()));
        }
        compiled.own_headers = own_headers(spec, &sent).map_err(secret)?;
        if let Some(oauth2) = spec.auth.as_ref().and_then(|auth| auth.oauth2.as_ref()) {
            let url = Url::parse(&oauth2.token_url).map_err(|error| target(TargetError::Url(error)))?;
            let id = sent.value("auth.oauth2.clientIdRef", &oauth2.client_id_ref).map_err(secret)?;
            let client_secret =
                sent.value("auth.oauth2.clientSecretRef", &oauth2.client_secret_ref).map_err(secret)?;
            let audience = oauth2.audience.as_deref();
            let client = ClientCredentials { id, secret: client_secret, sent: oauth2.client_authentication };
            let request = TokenRequest::new(url, client, &oauth2.scopes, audience);
            compiled.token_request = Some(Arc::new(request));
        }
        compiled.tls = tls(spec, &sent).map_err(secret)?.map(Arc::new);
        Ok(Self {
            name: spec.name.as_str().into(),
            target: compiled,
            timeout: spec.timeout(),
            max_concurrency: spec.concurrency(),
            retry: CompiledRetryPolicy {
                max_attempts: spec.retry.attempts(),
                backoff: spec.retry.backoff,
                initial_delay: spec.retry.initial_delay(),
                max_delay: spec.retry.max_delay(),
                retry_after_max: spec.retry.retry_after_max(),
                final_statuses: spec.retry.final_statuses().collect(),
            },
            delivered_as: spec.deliver.map(|format| match format {
                DestinationFormat::Normalized => DeliveredAs::Normalized,
                DestinationFormat::Raw => DeliveredAs::Raw,
                DestinationFormat::Cloudevents => DeliveredAs::CloudEvent,
                DestinationFormat::CloudeventsBinary => DeliveredAs::CloudEventBinary,
            }),
            forwarded: ForwardedHeaders::new(spec, &row.provider),
        })
    }

    /// Returns whether there is anything to dial: a Service has no address while none of its pods is ready.
    pub fn has_receiver(&self) -> bool {
        self.target.endpoints.as_ref().is_none_or(|endpoints| !endpoints.is_empty())
    }
}

/// Checks that the secrets of a destination can be used.
pub(crate) fn check_sent(
    spec: &Destination,
    secrets: &IntegrationSecrets,
) -> Result<(), DestinationSecretError> {
    // Secrets that have just been made can be read.
    let Ok(sent) = SentSecrets::new(spec, secrets) else { return Ok(()) };
    own_headers(spec, &sent)?;
    tls(spec, &sent).map(drop)
}

/// What a destination sends, by its references.
struct SentSecrets(Vec<(SecretRef, Zeroizing<Vec<u8>>)>);

impl SentSecrets {
    fn new(spec: &Destination, secrets: &IntegrationSecrets) -> Result<Self, SecretsError> {
        let mut values = Vec::new();
        for (_, secret_ref) in spec.sent_refs() {
            if let Some(value) = secrets.sent(&secret_ref)? {
                values.push((secret_ref, value));
            }
        }
        Ok(Self(values))
    }

    fn value(&self, field: &str, secret_ref: &SecretRef) -> Result<&[u8], DestinationSecretError> {
        let found = self.0.iter().find(|(known, _)| known == secret_ref);
        found
            .map(|(_, value)| value.as_slice())
            .ok_or_else(|| DestinationSecretError::Missing { field: field.to_owned() })
    }
}

fn signing_keys(
    spec: &Destination,
    secrets: &IntegrationSecrets,
) -> Result<Result<Vec<SigningKey>, DestinationSecretError>, SecretsError> {
    let parse = |secret: &Zeroizing<Vec<u8>>| -> Result<SigningKey, DestinationSecretError> {
        let text = std::str::from_utf8(secret).map_err(|_| SigningKeyError::Base64)?;
        Ok(SigningKey::parse(text)?)
    };
    Ok(secrets.signing(&spec.name)?.iter().map(parse).collect())
}

/// Returns the headers of a destination and of its basic authentication.
fn own_headers(
    spec: &Destination,
    sent: &SentSecrets,
) -> Result<Vec<(HeaderName, HeaderValue)>, DestinationSecretError> {
    let mut headers = Vec::new();
    for (index, header) in spec.headers.iter().enumerate() {
        let unusable = || DestinationSecretError::NotAHeader { field: format!("headers[{index}]") };
        let value = match &header.value_from {
            Some(secret_ref) => {
                let secret = sent.value(&format!("headers[{index}].valueFrom"), secret_ref)?;
                secret_value(header.prefix.as_deref().unwrap_or_default(), secret).ok_or_else(unusable)?
            }
            None => {
                HeaderValue::from_str(header.value.as_deref().unwrap_or_default()).map_err(|_| unusable())?
            }
        };
        headers.push((HeaderName::try_from(header.name.as_str()).map_err(|_| unusable())?, value));
    }
    if let Some(Auth { basic: Some(basic), .. }) = &spec.auth {
        let user = sent.value("auth.basic.usernameRef", &basic.username_ref)?;
        let password = sent.value("auth.basic.passwordRef", &basic.password_ref)?;
        if user.contains(&b':') {
            return Err(DestinationSecretError::UserName);
        }
        headers.push((AUTHORIZATION, basic_authorization(user, password)));
    }
    Ok(headers)
}

/// Returns the value of a header that is a secret after a prefix; `None` if it is not visible ASCII with spaces.
fn secret_value(prefix: &str, secret: &[u8]) -> Option<HeaderValue> {
    let text = Zeroizing::new([prefix.as_bytes(), secret].concat());
    let is_plain = text.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let mut value = HeaderValue::from_bytes(&text).ok().filter(|_| is_plain)?;
    value.set_sensitive(true);
    Some(value)
}

fn tls(spec: &Destination, sent: &SentSecrets) -> Result<Option<TlsMaterial>, DestinationSecretError> {
    let Some(tls) = &spec.tls else { return Ok(None) };
    let ca_ref = tls.ca_ref.as_ref().map(|ca_ref| ca_ref.secret_ref());
    let authorities = ca_ref.map(|ca_ref| sent.value("tls.caRef", &ca_ref)).transpose()?;
    let client_certificate = match &tls.client_certificate_ref {
        Some(certificate) => {
            let [chain, key] = certificate.secret_refs();
            let value = |secret_ref| sent.value("tls.clientCertificateRef", secret_ref);
            Some((value(&chain)?, value(&key)?))
        }
        None => None,
    };
    Ok(Some(TlsMaterial::new(tls, TlsSecrets { authorities, client_certificate })?))
}

#[cfg(test)]
mod tests;
