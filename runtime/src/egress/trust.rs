//! What connections trust: the certificate authorities of the system and of the operator's file, for the name in a URL.

use std::net::IpAddr;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

/// The protocols that are offered by ALPN.
const PROTOCOLS: [&[u8]; 1] = [b"http/1.1"];

/// Nothing could be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    #[error("it has no PEM certificate")]
    Missing,
    #[error("certificate {number} in it is invalid")]
    Invalid { number: usize },
    #[error("this machine has no CA certificates")]
    NoRoots,
}

/// Returns the certificates of a PEM text.
///
/// # Errors
/// When there is none, or one cannot be read.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let number = certificates.len() + 1;
        certificates.push(certificate.map_err(|_| TrustError::Invalid { number })?);
    }
    if certificates.is_empty() {
        return Err(TrustError::Missing);
    }
    Ok(certificates)
}

/// Returns the system's authorities, and those in a PEM text of the operator's.
///
/// # Errors
/// When a certificate of the text is not that of an authority, or nothing would be trusted at all.
pub(crate) fn trusted_roots(more: Option<&[u8]>) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "some CA certificates of this machine cannot be read");
    }
    let (_added, _ignored) = roots.add_parsable_certificates(system.certs);
    if let Some(pem) = more {
        for (index, certificate) in certificates(pem)?.into_iter().enumerate() {
            roots.add(certificate).map_err(|_| TrustError::Invalid { number: index + 1 })?;
        }
    }
    if roots.is_empty() {
        return Err(TrustError::NoRoots);
    }
    Ok(roots)
}

/// Returns the name that the certificate of a URL's server must have; `None` if no certificate can have it.
pub(crate) fn server_name(url: &Url) -> Option<ServerName<'static>> {
    match url.host()? {
        Host::Domain(name) => ServerName::try_from(name.to_owned()).ok(),
        Host::Ipv4(address) => Some(ServerName::from(IpAddr::V4(address))),
        Host::Ipv6(address) => Some(ServerName::from(IpAddr::V6(address))),
    }
}

/// Offers HTTP/1.1 and nothing else.
pub(crate) fn for_http_1(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use grapnel_testing::certificates::file;

    #[test]
    fn the_authorities_of_a_file_are_added_to_the_systems() {
        let system = trusted_roots(None).unwrap().len();
        assert_eq!(trusted_roots(Some(file("root.pem"))).unwrap().len(), system + 1);
    }

    #[test]
    fn a_file_without_a_valid_certificate_is_refused() {
        for (pem, message) in [
            (&b""[..], "it has no PEM certificate"),
            (b"not PEM", "it has no PEM certificate"),
            (
                b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
                "certificate 1 in it is invalid",
            ),
            (
                b"-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n",
                "certificate 1 in it is invalid",
            ),
            (file("server.key"), "it has no PEM certificate"),
        ] {
            assert_eq!(trusted_roots(Some(pem)).unwrap_err().to_string(), message);
        }
    }
}
