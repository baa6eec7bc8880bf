//! The two schemes that data cannot express: the key is in a certificate that the request points to.
//!
//! Anyone may send a URL, so certificates are fetched only from the provider's own hosts, over TLS, and only from paths of
//! its certificates; they are cached. A certificate must name the provider and be valid when the request is verified. A
//! secret names the subscription that a signature must be for: the ARN of a topic, or the id of a webhook. PEM certificates
//! may follow the name. Then these alone are trusted, whatever they contain, and nothing is fetched.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, RsaParameters,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;

use super::certificate::{Certificate, RsaKey};
use super::error::{SchemeError, VerifyError};
use super::{Evaluation, Verified};
use crate::host_pattern::host_matches;
use crate::request::json::{self, JsonDocument, Pointer};
use crate::request::{IncomingRequest, Source};

/// A request whose signature must be checked with a certificate that is yet to be fetched.
pub struct CertificateClaim {
    provider: CertificateProvider,
    signature: ClaimedSignature,
    certificate_url: Url,
}

/// A provider that signs with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CertificateProvider {
    /// Amazon SNS: the parts of a signature are members of the body.
    Sns,
    /// PayPal: the parts of a signature are headers.
    Paypal,
}

/// A provider with an integration's secrets.
#[derive(Debug)]
pub(super) struct CertificateScheme {
    provider: CertificateProvider,
    subscriptions: Vec<Subscription>,
}

/// The name that a secret has in its first line, and the keys that follow it.
#[derive(Debug)]
struct Subscription {
    name: String,
    pinned: Vec<RsaKey>,
}

/// The signature that a request claims to have.
struct ClaimedSignature {
    /// The index of the secret whose subscription it is for.
    secret: usize,
    message: Vec<u8>,
    signature: Vec<u8>,
    algorithm: &'static RsaParameters,
    certificate_url: String,
}

impl CertificateClaim {
    /// The URL of the certificate: one of the provider's.
    pub fn certificate_url(&self) -> &Url {
        &self.certificate_url
    }

    /// Checks the signature with the certificate that was fetched.
    ///
    /// # Errors
    /// When the certificate is not the provider's at this time, or the signature does not match.
    pub fn verify_by(&self, certificate: &Certificate, now: Timestamp) -> Result<Verified, VerifyError> {
        self.provider.check(certificate, now)?;
        self.signature.verify(std::slice::from_ref(certificate.key()))
    }
}

impl fmt::Debug for CertificateClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.certificate_url.as_str();
        f.debug_struct("CertificateClaim").field("certificate_url", &url).finish_non_exhaustive()
    }
}

impl CertificateProvider {
    /// Whether the host is one that the provider's certificates name.
    fn is_signer(self, host: &str) -> bool {
        match self {
            // sns.amazonaws.com, and in some regions others such as sns-signing.me-south-1.amazonaws.com.
            Self::Sns => {
                let first = host.split('.').next().unwrap_or_default();
                (first == "sns" || first.starts_with("sns-"))
                    && (host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn"))
            }
            Self::Paypal => {
                ["messageverificationcerts.paypal.com", "messageverificationcerts.sandbox.paypal.com"]
                    .contains(&host)
            }
        }
    }

    /// Whether a certificate may be fetched from the URL.
    fn has_certificate_at(self, url: &Url) -> bool {
        let (hosts, path): (&[&str], _) = match self {
            Self::Sns => (&["sns.*.amazonaws.com", "sns.*.amazonaws.com.cn"], "/SimpleNotificationService-"),
            Self::Paypal => (&["api.paypal.com", "api.sandbox.paypal.com"], "/v1/notifications/certs/"),
        };
        url.scheme() == "https"
            && url.port().is_none()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.host_str().is_some_and(|host| hosts.iter().any(|pattern| host_matches(pattern, host)))
            && url.path().starts_with(path)
            && url.path().len() <= 256
    }

    /// Checks that a certificate that was fetched is the provider's at this time.
    fn check(self, certificate: &Certificate, now: Timestamp) -> Result<(), VerifyError> {
        if !certificate.names_any(|host| self.is_signer(host)) {
            return Err(VerifyError::CertificateName);
        }
        if certificate.is_valid_at(now) { Ok(()) } else { Err(VerifyError::CertificateTime) }
    }
}

impl CertificateScheme {
    pub(super) fn new(provider: CertificateProvider, secrets: &[&[u8]]) -> Result<Self, SchemeError> {
        let subscriptions =
            secrets.iter().map(|secret| Subscription::parse(provider, secret)).collect::<Result<_, _>>()?;
        Ok(Self { provider, subscriptions })
    }

    /// Checks a signature with the pinned keys, or returns the claim that needs a certificate.
    pub(super) fn check(&self, request: &IncomingRequest<'_>) -> Result<Evaluation, VerifyError> {
        let signature = self.claimed_signature(request)?;
        let pinned = self.subscriptions[signature.secret].pinned.as_slice();
        if !pinned.is_empty() {
            return signature.verify(pinned).map(Evaluation::Verified);
        }
        let url = Url::parse(&signature.certificate_url).ok();
        let certificate_url =
            url.filter(|url| self.provider.has_certificate_at(url)).ok_or(VerifyError::CertificateUrl)?;
        let claim = CertificateClaim { provider: self.provider, signature, certificate_url };
        Ok(Evaluation::NeedsCertificate(claim))
    }

    /// The message that the signature covers.
    pub(super) fn message(&self, request: &IncomingRequest<'_>) -> Option<Vec<u8>> {
        self.claimed_signature(request).ok().map(|signature| signature.message)
    }

    fn claimed_signature(&self, request: &IncomingRequest<'_>) -> Result<ClaimedSignature, VerifyError> {
        match self.provider {
            CertificateProvider::Sns => self.sns(request),
            CertificateProvider::Paypal => self.paypal(request),
        }
    }

    fn sns(&self, request: &IncomingRequest<'_>) -> Result<ClaimedSignature, VerifyError> {
        let document = JsonDocument::parse(request.body).map_err(|_| VerifyError::Unreadable)?;
        let member = |name: &str| {
            let pointer = Pointer::parse(&format!("/{name}"))?;
            document.find(&pointer).and_then(json::text).map(std::borrow::Cow::into_owned)
        };
        let required = |name: &str| member(name).ok_or_else(|| VerifyError::Missing(name.to_owned()));
        let (signature, kind, topic) = (required("Signature")?, required("Type")?, required("TopicArn")?);
        let secret = self
            .subscriptions
            .iter()
            .position(|expected| expected.name == topic)
            .ok_or(VerifyError::WrongName)?;
        let names: &[&str] = match kind.as_str() {
            "Notification" => &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
            "SubscriptionConfirmation" | "UnsubscribeConfirmation" => {
                &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
            }
            _ => return Err(VerifyError::Unreadable),
        };
        let mut message = Vec::new();
        for name in names {
            let value = if *name == "Subject" { member(name) } else { Some(required(name)?) };
            if let Some(value) = value {
                message.extend_from_slice(format!("{name}\n{value}\n").as_bytes());
            }
        }
        let algorithm = match required("SignatureVersion")?.as_str() {
            "1" => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            "2" => &RSA_PKCS1_2048_8192_SHA256,
            _ => return Err(VerifyError::Unreadable),
        };
        Ok(ClaimedSignature {
            secret,
            message,
            signature: STANDARD.decode(signature).map_err(|_| VerifyError::Unreadable)?,
            algorithm,
            certificate_url: required("SigningCertURL")?,
        })
    }

    fn paypal(&self, request: &IncomingRequest<'_>) -> Result<ClaimedSignature, VerifyError> {
        let header = |name: &str| {
            let source = Source::parse(&format!("header:{name}"));
            let value = source.and_then(|source| source.value(request)).map(|value| value.into_owned());
            let text = value.and_then(|value| String::from_utf8(value).ok());
            text.ok_or_else(|| VerifyError::Missing(format!("the header {name}")))
        };
        let signature = header("paypal-transmission-sig")?;
        let (id, time) = (header("paypal-transmission-id")?, header("paypal-transmission-time")?);
        if header("paypal-auth-algo")? != "SHA256withRSA" {
            return Err(VerifyError::Unreadable);
        }
        // The request does not contain the webhook's id: a signature is for the expected one, or does not match.
        let crc32 = crc32fast::hash(request.signed_body());
        let subscription = self.subscriptions.first().ok_or(VerifyError::WrongName)?;
        Ok(ClaimedSignature {
            secret: 0,
            message: format!("{id}|{time}|{}|{crc32}", subscription.name).into_bytes(),
            signature: STANDARD.decode(signature).map_err(|_| VerifyError::Unreadable)?,
            algorithm: &RSA_PKCS1_2048_8192_SHA256,
            certificate_url: header("paypal-cert-url")?,
        })
    }
}

impl ClaimedSignature {
    fn verify(&self, keys: &[RsaKey]) -> Result<Verified, VerifyError> {
        let verifies = |key: &RsaKey| key.verifies(self.algorithm, &self.message, &self.signature);
        if keys.iter().any(verifies) {
            Ok(Verified { secret: self.secret })
        } else {
            Err(VerifyError::Mismatch)
        }
    }
}

impl Subscription {
    fn parse(provider: CertificateProvider, secret: &[u8]) -> Result<Self, SchemeError> {
        let text = std::str::from_utf8(secret).map_err(|_| SchemeError::Key("not valid UTF-8"))?;
        let name = text.lines().next().unwrap_or_default().trim();
        if name.is_empty() {
            return Err(SchemeError::EmptySecret);
        }
        if provider == CertificateProvider::Sns && !name.starts_with("arn:") {
            return Err(SchemeError::Key("the first line is not the ARN of a topic"));
        }
        let mut pinned = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(secret) {
            let certificate = certificate
                .map_err(|_| SchemeError::Key("it contains a certificate that is not valid PEM"))?;
            let certificate = Certificate::parse(&certificate);
            let certificate =
                certificate.ok_or(SchemeError::Key("it contains a certificate without an RSA key"))?;
            pinned.push(certificate.key().clone());
        }
        Ok(Self { name: name.to_owned(), pinned })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_fetched_from_the_providers_hosts_alone() {
        let (sns, paypal) = (CertificateProvider::Sns, CertificateProvider::Paypal);
        let asks = |provider: CertificateProvider, url: &str| {
            provider.has_certificate_at(&Url::parse(url).expect("a URL"))
        };
        assert!(asks(sns, "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0a1b.pem"));
        assert!(asks(sns, "https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-0a1b.pem"));
        assert!(asks(paypal, "https://api.paypal.com/v1/notifications/certs/CERT-360caa42"));
        for url in [
            "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0a1b.pem",
            "https://sns.eu-west-1.amazonaws.com:8443/SimpleNotificationService-0a1b.pem",
            "https://sns.eu-west-1.amazonaws.com@attacker.example/SimpleNotificationService-0a1b.pem",
            "https://attacker.example/SimpleNotificationService-0a1b.pem",
            "https://bucket.s3.amazonaws.com/SimpleNotificationService-0a1b.pem",
            "https://sns.eu-west-1.amazonaws.com.attacker.example/SimpleNotificationService-0a1b.pem",
            "https://sns.eu-west-1.amazonaws.com/other.pem",
            "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0a1b.pem?x=1",
            "https://api.paypal.com/v1/other",
        ] {
            assert!(!asks(sns, url) && !asks(paypal, url), "{url}");
        }
    }

    #[test]
    fn only_the_providers_own_names_are_trusted_in_a_certificate() {
        for host in [
            "sns.amazonaws.com",
            "sns-us-gov-west-1.amazonaws.com",
            "sns-signing.me-south-1.amazonaws.com",
            "sns-cn-north-1.amazonaws.com.cn",
        ] {
            assert!(
                CertificateProvider::Sns.is_signer(host) && !CertificateProvider::Paypal.is_signer(host),
                "{host}"
            );
        }
        assert!(CertificateProvider::Paypal.is_signer("messageverificationcerts.paypal.com"));
        assert!(CertificateProvider::Paypal.is_signer("messageverificationcerts.sandbox.paypal.com"));
        for host in [
            "amazonaws.com",
            "snsx.amazonaws.com",
            "bucket.s3.amazonaws.com",
            "sns.amazonaws.com.example",
            "sns.example",
            "api.paypal.com",
            "messageverificationcerts.paypal.com.example",
            "",
        ] {
            assert!(
                !CertificateProvider::Sns.is_signer(host) && !CertificateProvider::Paypal.is_signer(host),
                "{host}"
            );
        }
    }

    #[test]
    fn a_secret_names_a_subscription() {
        let refused = |provider, secret: &str| CertificateScheme::new(provider, &[secret.as_bytes()]).err();
        assert_eq!(refused(CertificateProvider::Sns, "\n"), Some(SchemeError::EmptySecret));
        assert!(matches!(refused(CertificateProvider::Sns, "topic"), Some(SchemeError::Key(_))));
        let broken = "WH-1\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(refused(CertificateProvider::Paypal, broken), Some(SchemeError::Key(_))));
    }
}
