//! The TLS of a destination's connections: whom they trust, and which certificate they present.
//!
//! Invariants: what is here can be used: the certificates can be read, and the key belongs to the certificate. The private key
//! is zeroized when dropped and never printed. Two materials are equal when their digests are: a connection that was made with
//! one serves the other.

use std::fmt;

use grapnel_crds::DestinationTls;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use secrecy::zeroize::Zeroize;
use sha2::{Digest, Sha256};

/// The most certificates of a bundle of authorities, and of a chain.
const MOST_CERTIFICATES: usize = 256;

/// What the connections to one destination trust and present.
pub struct TlsMaterial {
    authorities: Vec<CertificateDer<'static>>,
    client: Option<ClientCertificate>,
    server_name: Option<ServerName<'static>>,
    digest: [u8; 32],
}

/// A certificate with its chain and its private key.
pub struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// The values of the Secrets to which the TLS of a destination refers, in PEM.
#[derive(Clone, Copy, Default)]
pub struct TlsSecrets<'a> {
    /// That of `caRef`.
    pub authorities: Option<&'a [u8]>,
    /// `tls.crt` and `tls.key` of `clientCertificateRef`.
    pub client_certificate: Option<(&'a [u8], &'a [u8])>,
}

/// Why the TLS of a destination cannot be used. No message contains any of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlsMaterialError {
    /// The value is not PEM, or has no certificate.
    #[error("the value of tls.caRef has no certificate in PEM")]
    NoAuthority,
    /// A certificate of the value cannot be read.
    #[error("the value of tls.caRef has an invalid certificate")]
    Authority,
    /// The value is not PEM, or has no certificate.
    #[error("tls.crt of tls.clientCertificateRef has no certificate in PEM")]
    NoCertificate,
    /// The value is not PEM, or has no private key.
    #[error("tls.key of tls.clientCertificateRef has no private key in PEM")]
    NoKey,
    /// The certificate cannot be read, or the key has an unknown kind.
    #[error("the certificate or the private key of tls.clientCertificateRef is invalid")]
    Unusable,
    /// The key is another one's.
    #[error("tls.key of tls.clientCertificateRef does not match tls.crt")]
    OtherKey,
    /// There are more certificates than any real chain has.
    #[error("the Secrets of tls have more than {MOST_CERTIFICATES} certificates")]
    TooMany,
    /// The name is not a DNS name.
    #[error("tls.serverName is not a DNS name")]
    ServerName,
}

impl TlsMaterial {
    /// Reads the certificates and the key.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn new(tls: &DestinationTls, secrets: TlsSecrets<'_>) -> Result<Self, TlsMaterialError> {
        let authorities = secrets.authorities.map(authorities).transpose()?.unwrap_or_default();
        let client =
            secrets.client_certificate.map(|(chain, key)| ClientCertificate::new(chain, key)).transpose()?;
        let server_name = match &tls.server_name {
            Some(name) => Some(ServerName::try_from(name.clone()).map_err(|_| TlsMaterialError::ServerName)?),
            None => None,
        };
        let digest = digest(tls.server_name.as_deref(), &authorities, client.as_ref());
        Ok(Self { authorities, client, server_name, digest })
    }

    /// Returns the only authorities that may issue the receiver's certificate; none: those that the platform trusts.
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// Returns the certificate to present, if there is one.
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.client.as_ref()
    }

    /// Returns the name that the receiver's certificate must have, if it is not the host of the URL.
    pub fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
    }

    /// Returns what tells it from others. The same material has the same digest in every process.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl PartialEq for TlsMaterial {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// Omits the private key, and the certificates, which are long.
impl fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsMaterial")
            .field("authorities", &self.authorities.len())
            .field("client_certificate", &self.client.is_some())
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

impl ClientCertificate {
    fn new(chain: &[u8], key: &[u8]) -> Result<Self, TlsMaterialError> {
        let chain = certificates(chain, TlsMaterialError::NoCertificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsMaterialError::NoKey)?;
        let certificate = Self { chain, key };
        let provider = rustls::crypto::ring::default_provider();
        match CertifiedKey::from_der(certificate.chain.clone(), certificate.key.clone_key(), &provider) {
            Ok(_) => Ok(certificate),
            Err(rustls::Error::InconsistentKeys(_)) => Err(TlsMaterialError::OtherKey),
            Err(_) => Err(TlsMaterialError::Unusable),
        }
    }

    /// Returns the certificate and those of the authorities between it and a root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Returns the private key.
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }
}

impl Drop for ClientCertificate {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsMaterialError> {
    let authorities = certificates(pem, TlsMaterialError::NoAuthority)?;
    let mut store = RootCertStore::empty();
    for authority in &authorities {
        store.add(authority.clone()).map_err(|_| TlsMaterialError::Authority)?;
    }
    Ok(authorities)
}

/// Reads the certificates of a text in PEM; `none` is the error if it has none.
fn certificates(
    pem: &[u8],
    none: TlsMaterialError,
) -> Result<Vec<CertificateDer<'static>>, TlsMaterialError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .take(MOST_CERTIFICATES + 1)
        .collect::<Result<_, _>>()
        .map_err(|_| none)?;
    match certificates.len() {
        0 => Err(none),
        1..=MOST_CERTIFICATES => Ok(certificates),
        _ => Err(TlsMaterialError::TooMany),
    }
}

fn digest(
    server_name: Option<&str>,
    authorities: &[CertificateDer<'static>],
    client: Option<&ClientCertificate>,
) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut add = |part: &[u8]| {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    add(server_name.unwrap_or_default().as_bytes());
    for list in [authorities, client.map_or(&[][..], ClientCertificate::chain)] {
        add(&(list.len() as u64).to_be_bytes());
        list.iter().for_each(|certificate| add(certificate));
    }
    add(client.map_or(&[][..], |client| client.key.secret_der()));
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of use to nobody else.
    const CERTIFICATE: &str = include_str!("tls_material/sender.crt");
    const KEY: &str = include_str!("tls_material/sender.key");
    const OTHER_KEY: &str = include_str!("tls_material/other.key");

    fn material(ca: Option<&str>, client: Option<(&str, &str)>) -> Result<TlsMaterial, TlsMaterialError> {
        let secrets = TlsSecrets {
            authorities: ca.map(str::as_bytes),
            client_certificate: client.map(|(chain, key)| (chain.as_bytes(), key.as_bytes())),
        };
        TlsMaterial::new(&DestinationTls::default(), secrets)
    }

    #[test]
    fn certificates_and_their_key_are_read() {
        let both = material(Some(CERTIFICATE), Some((CERTIFICATE, KEY))).unwrap();
        assert_eq!(both.authorities().len(), 1);
        assert_eq!(both.client_certificate().unwrap().chain(), both.authorities());
        let chain = format!("{CERTIFICATE}{CERTIFICATE}");
        assert_eq!(
            material(None, Some((&chain, KEY))).unwrap().client_certificate().unwrap().chain().len(),
            2
        );
    }

    #[test]
    fn what_cannot_be_used_is_refused_and_named() {
        let refused = |ca, client| material(ca, client).unwrap_err();
        assert_eq!(refused(Some(KEY), None), TlsMaterialError::NoAuthority);
        assert_eq!(refused(Some(""), None), TlsMaterialError::NoAuthority);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(refused(Some(broken), None), TlsMaterialError::Authority);
        assert_eq!(refused(None, Some((KEY, KEY))), TlsMaterialError::NoCertificate);
        assert_eq!(refused(None, Some((CERTIFICATE, CERTIFICATE))), TlsMaterialError::NoKey);
        assert_eq!(refused(None, Some((broken, KEY))), TlsMaterialError::Unusable);
        assert_eq!(refused(None, Some((CERTIFICATE, OTHER_KEY))), TlsMaterialError::OtherKey);
        let many = CERTIFICATE.repeat(MOST_CERTIFICATES + 1);
        assert_eq!(refused(Some(&many), None), TlsMaterialError::TooMany);
    }

    #[test]
    fn what_differs_in_anything_is_another_material() {
        let name = |name: &str| DestinationTls { server_name: Some(name.to_owned()), ..Default::default() };
        let named = |text| TlsMaterial::new(&name(text), TlsSecrets::default()).unwrap();
        let all = [
            material(None, None).unwrap(),
            material(Some(CERTIFICATE), None).unwrap(),
            material(None, Some((CERTIFICATE, KEY))).unwrap(),
            named("a.example"),
            named("b.example"),
        ];
        for (index, one) in all.iter().enumerate() {
            let equal: Vec<_> = all.iter().enumerate().filter(|(_, other)| *other == one).collect();
            assert_eq!(equal.len(), 1, "{index}");
        }
        assert_eq!(material(Some(CERTIFICATE), None), material(Some(CERTIFICATE), None));
    }

    #[test]
    fn nothing_printed_contains_the_key() {
        let material = material(None, Some((CERTIFICATE, KEY))).unwrap();
        let printed = format!("{material:?}");
        assert_eq!(
            printed,
            "TlsMaterial { authorities: 0, client_certificate: true, server_name: None, .. }"
        );
    }
}
