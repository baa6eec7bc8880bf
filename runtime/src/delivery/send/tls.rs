//! TLS with receivers.
//!
//! Invariants: a receiver's certificate is verified, for the name in the URL or the one that the destination names; where a
//! destination has authorities of its own, only these count. A client certificate is presented to its destination only. Only
//! HTTP/1.1 is offered.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::egress::{Egress, for_http_1, server_name};
use grapnel_core::delivery::target::DeliveryTarget;
use grapnel_core::delivery::tls_material::TlsMaterial;

/// The TLS configurations of a client.
pub(super) struct Tls {
    roots: Arc<RootCertStore>,
    platform: Arc<ClientConfig>,
    /// Those of destinations with a material of their own, by its digest; each for as long as a destination has it.
    own: Mutex<HashMap<[u8; 32], OwnConfig>>,
}

struct OwnConfig {
    material: Weak<TlsMaterial>,
    config: Arc<ClientConfig>,
}

/// No TLS with a receiver.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("the host of the URL cannot be the name of a certificate")]
    ServerName,
    /// It says nothing about the receiver.
    #[error("the authorities of tls.caRef cannot be used")]
    Authorities(#[source] rustls::Error),
    /// It says nothing about the receiver.
    #[error("the certificate of tls.clientCertificateRef cannot be used")]
    ClientCertificate(#[source] rustls::Error),
    #[error("the receiver's certificate was issued by none of the authorities of tls.caRef")]
    OtherAuthority,
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
}

impl Tls {
    pub(super) fn new(egress: &Egress) -> Self {
        let roots = Arc::clone(egress.roots());
        let builder = ClientConfig::builder().with_root_certificates(Arc::clone(&roots));
        let platform = Arc::new(for_http_1(builder.with_no_client_auth()));
        Self { roots, platform, own: Mutex::default() }
    }

    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        target: &DeliveryTarget,
    ) -> Result<TlsStream<TcpStream>, TlsError> {
        let material = target.tls.as_ref();
        let name = match material.and_then(|material| material.server_name()) {
            Some(name) => name.clone(),
            None => server_name(&target.url).ok_or(TlsError::ServerName)?,
        };
        let config = match material {
            Some(material) => self.own_config(material)?,
            None => Arc::clone(&self.platform),
        };
        let has_authorities = material.is_some_and(|material| !material.authorities().is_empty());
        TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
            match has_authorities && is_unknown_issuer(&error) {
                true => TlsError::OtherAuthority,
                false => TlsError::Handshake(error),
            }
        })
    }

    /// Returns the configuration of a material. It is built once.
    fn own_config(&self, material: &Arc<TlsMaterial>) -> Result<Arc<ClientConfig>, TlsError> {
        // Nothing panics while this is held, and the map is consistent between any two statements.
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = own.get_mut(&material.digest()) {
            // Another destination may have the same.
            known.material = Arc::downgrade(material);
            return Ok(Arc::clone(&known.config));
        }
        own.retain(|_, known| known.material.strong_count() > 0);
        let config = Arc::new(config_of(material, &self.roots)?);
        let kept = OwnConfig { material: Arc::downgrade(material), config: Arc::clone(&config) };
        own.insert(material.digest(), kept);
        Ok(config)
    }
}

fn config_of(material: &TlsMaterial, platform: &Arc<RootCertStore>) -> Result<ClientConfig, TlsError> {
    let roots = match material.authorities() {
        [] => Arc::clone(platform),
        authorities => {
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority.clone()).map_err(TlsError::Authorities)?;
            }
            Arc::new(roots)
        }
    };
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let config = match material.client_certificate() {
        None => builder.with_no_client_auth(),
        Some(own) => builder
            .with_client_auth_cert(own.chain().to_vec(), own.key().clone_key())
            .map_err(TlsError::ClientCertificate)?,
    };
    Ok(for_http_1(config))
}

fn is_unknown_issuer(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)))
}
