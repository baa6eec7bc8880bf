//! The two schemes that data cannot express: the key is in a certificate that the request points to.
//!
//! Anyone may send a URL, so only the provider's own hosts are asked, over TLS, and only for what looks like one of its
//! certificates; the answer is kept. It must name the provider and be valid when the request is judged. A secret is what must
//! be signed for us: the ARN of a topic, or the id of a webhook. It may be followed by PEM certificates, which are then the
//! only ones that are believed, whatever they say, and nothing is fetched.

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
use super::{Refused, SchemeError};
use crate::host_pattern::host_matches;
use crate::request::json::{self, Document, Pointer};
use crate::request::{Incoming, Place};

/// Where the parts of a signature are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Members of the body (Amazon SNS).
    Sns,
    /// Headers (PayPal).
    Paypal,
}

/// A form with an integration's secrets.
#[derive(Debug)]
pub(super) struct Certified {
    form: Form,
    expected: Vec<Expected>,
}

#[derive(Debug)]
struct Expected {
    name: String,
    pinned: Vec<RsaKey>,
}

/// What the request says.
struct Claim {
    /// Which secret's name it is signed for.
    secret: usize,
    message: Vec<u8>,
    signature: Vec<u8>,
    algorithm: &'static RsaParameters,
    certificate_url: String,
}

impl Form {
    /// Whether the host is one of those that the provider's certificates name.
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

    /// Whether a certificate that was fetched is the provider's at this time.
    fn check(self, certificate: &Certificate, now: Timestamp) -> Result<(), Refused> {
        if !certificate.names_any(|host| self.is_signer(host)) {
            return Err(Refused::CertificateName);
        }
        if certificate.is_valid_at(now) { Ok(()) } else { Err(Refused::CertificateTime) }
    }
}

impl Certified {
    pub(super) fn new(form: Form, secrets: &[&[u8]]) -> Result<Self, SchemeError> {
        let expected =
            secrets.iter().map(|secret| Expected::parse(form, secret)).collect::<Result<_, _>>()?;
        Ok(Self { form, expected })
    }

    /// Where the certificate is that the request must be judged by; `None` when it is pinned.
    pub(super) fn certificate_url(&self, incoming: &Incoming<'_>) -> Result<Option<Url>, Refused> {
        let claim = self.claim(incoming)?;
        if !self.expected[claim.secret].pinned.is_empty() {
            return Ok(None);
        }
        let url = Url::parse(&claim.certificate_url).ok().filter(|url| self.may_be_asked(url));
        url.map(Some).ok_or(Refused::CertificateUrl)
    }

    fn may_be_asked(&self, url: &Url) -> bool {
        let (hosts, path): (&[&str], _) = match self.form {
            Form::Sns => (&["sns.*.amazonaws.com", "sns.*.amazonaws.com.cn"], "/SimpleNotificationService-"),
            Form::Paypal => (&["api.paypal.com", "api.sandbox.paypal.com"], "/v1/notifications/certs/"),
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

    /// Which secret the request is signed for, by the certificate of its URL or by a pinned one.
    pub(super) fn verify(
        &self,
        incoming: &Incoming<'_>,
        fetched: Option<&Certificate>,
        now: Timestamp,
    ) -> Result<usize, Refused> {
        let claim = self.claim(incoming)?;
        let pinned = self.expected[claim.secret].pinned.as_slice();
        let keys = match (pinned, fetched) {
            ([], None) => return Err(Refused::Certificate),
            ([], Some(certificate)) => {
                self.form.check(certificate, now)?;
                std::slice::from_ref(certificate.key())
            }
            (pinned, _) => pinned,
        };
        let verifies = |key: &RsaKey| key.verifies(claim.algorithm, &claim.message, &claim.signature);
        if keys.iter().any(verifies) { Ok(claim.secret) } else { Err(Refused::Mismatch) }
    }

    /// What the signature is computed over.
    pub(super) fn message(&self, incoming: &Incoming<'_>) -> Option<Vec<u8>> {
        self.claim(incoming).ok().map(|claim| claim.message)
    }

    fn claim(&self, incoming: &Incoming<'_>) -> Result<Claim, Refused> {
        match self.form {
            Form::Sns => self.sns(incoming),
            Form::Paypal => self.paypal(incoming),
        }
    }

    fn sns(&self, incoming: &Incoming<'_>) -> Result<Claim, Refused> {
        let document = Document::parse(incoming.body).map_err(|_| Refused::Unreadable)?;
        let member = |name: &str| {
            let pointer = Pointer::parse(&format!("/{name}"))?;
            document.find(&pointer).and_then(json::text).map(std::borrow::Cow::into_owned)
        };
        let required = |name: &str| member(name).ok_or_else(|| Refused::Missing(name.to_owned()));
        let (signature, kind, topic) = (required("Signature")?, required("Type")?, required("TopicArn")?);
        let secret =
            self.expected.iter().position(|expected| expected.name == topic).ok_or(Refused::WrongName)?;
        let names: &[&str] = match kind.as_str() {
            "Notification" => &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
            "SubscriptionConfirmation" | "UnsubscribeConfirmation" => {
                &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
            }
            _ => return Err(Refused::Unreadable),
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
            _ => return Err(Refused::Unreadable),
        };
        Ok(Claim {
            secret,
            message,
            signature: STANDARD.decode(signature).map_err(|_| Refused::Unreadable)?,
            algorithm,
            certificate_url: required("SigningCertURL")?,
        })
    }

    fn paypal(&self, incoming: &Incoming<'_>) -> Result<Claim, Refused> {
        let header = |name: &str| {
            let place = Place::parse(&format!("header:{name}"));
            let value = place.and_then(|place| place.find(incoming)).map(|value| value.into_owned());
            let text = value.and_then(|value| String::from_utf8(value).ok());
            text.ok_or_else(|| Refused::Missing(format!("the header {name}")))
        };
        let signature = header("paypal-transmission-sig")?;
        let (id, time) = (header("paypal-transmission-id")?, header("paypal-transmission-time")?);
        if header("paypal-auth-algo")? != "SHA256withRSA" {
            return Err(Refused::Unreadable);
        }
        // The webhook's id is not in the request: the one that is expected is signed, or nothing is.
        let crc32 = crc32fast::hash(incoming.body);
        let expected = self.expected.first().ok_or(Refused::WrongName)?;
        Ok(Claim {
            secret: 0,
            message: format!("{id}|{time}|{}|{crc32}", expected.name).into_bytes(),
            signature: STANDARD.decode(signature).map_err(|_| Refused::Unreadable)?,
            algorithm: &RSA_PKCS1_2048_8192_SHA256,
            certificate_url: header("paypal-cert-url")?,
        })
    }
}

impl Expected {
    fn parse(form: Form, secret: &[u8]) -> Result<Self, SchemeError> {
        let text = std::str::from_utf8(secret).map_err(|_| SchemeError::Key("it is no text"))?;
        let name = text.lines().next().unwrap_or_default().trim();
        if name.is_empty() {
            return Err(SchemeError::EmptySecret);
        }
        if form == Form::Sns && !name.starts_with("arn:") {
            return Err(SchemeError::Key("its first line is not the ARN of a topic"));
        }
        let mut pinned = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(secret) {
            let certificate = certificate.map_err(|_| SchemeError::Key("a certificate in it is not PEM"))?;
            let certificate = Certificate::parse(&certificate);
            let certificate = certificate.ok_or(SchemeError::Key("a certificate in it has no RSA key"))?;
            pinned.push(certificate.key().clone());
        }
        Ok(Self { name: name.to_owned(), pinned })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_providers_hosts_are_asked_for_certificates() {
        let certified = |form, secret: &str| Certified::new(form, &[secret.as_bytes()]).expect("a verifier");
        let (sns, paypal) =
            (certified(Form::Sns, "arn:aws:sns:eu-west-1:1:t"), certified(Form::Paypal, "WH-1"));
        let asks =
            |certified: &Certified, url: &str| certified.may_be_asked(&Url::parse(url).expect("a URL"));
        assert!(asks(&sns, "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0a1b.pem"));
        assert!(asks(&sns, "https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-0a1b.pem"));
        assert!(asks(&paypal, "https://api.paypal.com/v1/notifications/certs/CERT-360caa42"));
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
            assert!(!asks(&sns, url) && !asks(&paypal, url), "{url}");
        }
    }

    #[test]
    fn only_the_providers_own_names_are_believed_in_a_certificate() {
        for host in [
            "sns.amazonaws.com",
            "sns-us-gov-west-1.amazonaws.com",
            "sns-signing.me-south-1.amazonaws.com",
            "sns-cn-north-1.amazonaws.com.cn",
        ] {
            assert!(Form::Sns.is_signer(host) && !Form::Paypal.is_signer(host), "{host}");
        }
        assert!(Form::Paypal.is_signer("messageverificationcerts.paypal.com"));
        assert!(Form::Paypal.is_signer("messageverificationcerts.sandbox.paypal.com"));
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
            assert!(!Form::Sns.is_signer(host) && !Form::Paypal.is_signer(host), "{host}");
        }
    }

    #[test]
    fn a_secret_names_what_must_be_signed_for_us() {
        let refused = |form, secret: &str| Certified::new(form, &[secret.as_bytes()]).err();
        assert_eq!(refused(Form::Sns, "\n"), Some(SchemeError::EmptySecret));
        assert!(matches!(refused(Form::Sns, "topic"), Some(SchemeError::Key(_))));
        let broken = "WH-1\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(refused(Form::Paypal, broken), Some(SchemeError::Key(_))));
    }
}
