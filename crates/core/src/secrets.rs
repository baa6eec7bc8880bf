//! An integration's secrets as one value, and its sealed form in the `integrations` row.
//!
//! The plain form lives only between a Secret and the seal, and between the seal and the keys that are made of it. It
//! has no `Debug` and is wiped when dropped.

use std::collections::BTreeMap;

use crate::ids::IntegrationId;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use secrecy::zeroize::{Zeroize, Zeroizing};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::sealing::{OpenError, SealingKeys};

/// Secrets of any bytes, in base64.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Secrets {
    /// Accepted from the provider, the current one first.
    verification: Vec<Base64>,
    /// By destination: what its deliveries are signed with, the current one first.
    signing: BTreeMap<String, Vec<Base64>>,
}

#[derive(Serialize, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
struct Base64(String);

impl Drop for Base64 {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[derive(Debug, Error)]
pub enum SecretsError {
    #[error("the sealed secrets cannot be opened")]
    Sealed(#[from] OpenError),
    #[error("the sealed secrets are not of a form that this version knows")]
    Form,
}

impl Secrets {
    pub fn new<'a>(
        verification: impl IntoIterator<Item = &'a [u8]>,
        signing: BTreeMap<String, Vec<Zeroizing<Vec<u8>>>>,
    ) -> Self {
        let encode = |secret: &[u8]| Base64(STANDARD.encode(secret));
        Self {
            verification: verification.into_iter().map(encode).collect(),
            signing: signing
                .into_iter()
                .map(|(destination, secrets)| {
                    (destination, secrets.iter().map(|secret| encode(secret)).collect())
                })
                .collect(),
        }
    }

    /// Seals for the row of one integration: a value copied to another row does not open there.
    pub fn seal(&self, keys: &SealingKeys, integration_id: IntegrationId) -> Vec<u8> {
        let plain = Zeroizing::new(serde_json::to_vec(self).expect("texts and lists serialize"));
        keys.seal(integration_id.as_bytes(), &plain)
    }

    pub fn open(
        keys: &SealingKeys,
        integration_id: IntegrationId,
        sealed: &[u8],
    ) -> Result<Self, SecretsError> {
        let plain = keys.open(integration_id.as_bytes(), sealed)?;
        serde_json::from_slice(plain.expose_secret()).map_err(|_| SecretsError::Form)
    }

    /// The bytes that the provider proves to know.
    pub fn verification(&self) -> Result<Vec<Zeroizing<Vec<u8>>>, SecretsError> {
        self.verification.iter().map(Base64::decode).collect()
    }

    /// The bytes that a destination's deliveries are signed with; none when they are not signed.
    pub fn signing(&self, destination: &str) -> Result<Vec<Zeroizing<Vec<u8>>>, SecretsError> {
        self.signing.get(destination).into_iter().flatten().map(Base64::decode).collect()
    }
}

impl Base64 {
    fn decode(&self) -> Result<Zeroizing<Vec<u8>>, SecretsError> {
        STANDARD.decode(&self.0).map(Zeroizing::new).map_err(|_| SecretsError::Form)
    }
}
