//! A certificate that signs webhooks: its key, its names and its validity.
//!
//! Its chain is not checked: neither provider sends the certificates between its own and a root. It is trusted because of
//! where it was fetched from: over TLS, from the provider's host.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use ring::signature::{RsaParameters, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_PKCS1_RSAENCRYPTION;
use x509_parser::parse_x509_certificate;

/// A certificate with an RSA key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    key: RsaKey,
    /// The host names in it, in lower case.
    names: Vec<String>,
    /// In seconds since 1970.
    valid: RangeInclusive<i64>,
}

/// An RSA public key in the encoding of PKCS#1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RsaKey(Vec<u8>);

impl Certificate {
    /// Parses the first certificate of a text in PEM, or one in DER; `None` if there is none, or if its key is not an RSA key.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let der = match CertificateDer::from_pem_slice(bytes) {
            Ok(certificate) => certificate,
            Err(_) => CertificateDer::from(bytes),
        };
        let (_, certificate) = parse_x509_certificate(&der).ok()?;
        let key = certificate.public_key();
        if key.algorithm.algorithm != OID_PKCS1_RSAENCRYPTION {
            return None;
        }
        let named = certificate.subject_alternative_name().ok().flatten();
        let names = named.iter().flat_map(|extension| &extension.value.general_names);
        let hosts = names.filter_map(|name| match name {
            GeneralName::DNSName(host) => Some(host.to_ascii_lowercase()),
            _ => None,
        });
        let validity = certificate.validity();
        Some(Self {
            key: RsaKey(key.subject_public_key.data.to_vec()),
            names: hosts.collect(),
            valid: validity.not_before.timestamp()..=validity.not_after.timestamp(),
        })
    }

    pub(super) fn is_valid_at(&self, now: Timestamp) -> bool {
        self.valid.contains(&now.as_second())
    }

    pub(super) fn names_any(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.names.iter().any(|name| wanted(name))
    }

    pub(super) fn key(&self) -> &RsaKey {
        &self.key
    }
}

impl RsaKey {
    pub(super) fn verifies(
        &self,
        algorithm: &'static RsaParameters,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        UnparsedPublicKey::new(algorithm, &self.0).verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use grapnel_testing::certificates::file;

    #[test]
    fn only_a_certificate_with_an_rsa_key_is_parsed() {
        let paypal = file("paypal.pem");
        assert!(Certificate::parse(paypal).is_some());
        let der = CertificateDer::from_pem_slice(paypal).expect("PEM");
        assert_eq!(Certificate::parse(&der), Certificate::parse(paypal));
        assert_eq!(Certificate::parse(&der[..der.len() - 1]), None);
        // Its key is of a different kind.
        assert_eq!(Certificate::parse(file("root.pem")), None);
        assert_eq!(Certificate::parse(b""), None);
    }
}
