//! An integration's secrets as one value, and its sealed form in the `integrations` row.
//!
//! The plain form exists only until it is sealed, and from opening it until keys are made of it. It has no `Debug` and is
//! zeroized when dropped.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use grapnel_crds::SecretRef;
use secrecy::ExposeSecret;
use secrecy::zeroize::{Zeroize, Zeroizing};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::IntegrationId;
use crate::sealing::{OpenError, SealingKeys};

/// An integration's secrets. They may be any bytes, so they are held in base64.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IntegrationSecrets {
    /// The secrets shared with the provider, the current one first.
    verification: Vec<EncodedSecret>,
    /// By destination: the secrets that sign its deliveries, the current one first.
    signing: BTreeMap<String, Vec<EncodedSecret>>,
    /// The text that the provider repeats in a handshake, if the owner chose one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verify_token: Option<EncodedSecret>,
    /// By the names of their references, `SECRET/KEY`: what destinations send in headers, as credentials, or in TLS.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    sent: BTreeMap<String, EncodedSecret>,
}

#[derive(Serialize, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
struct EncodedSecret(String);

impl Drop for EncodedSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A reason why sealed secrets cannot be used.
#[derive(Debug, Error)]
pub enum SecretsError {
    #[error("the sealed secrets cannot be opened")]
    Sealed(#[from] OpenError),
    #[error("the sealed secrets have a format that this version does not know")]
    Form,
}

impl IntegrationSecrets {
    pub fn new<'a>(
        verification: impl IntoIterator<Item = &'a [u8]>,
        signing: BTreeMap<String, Vec<Zeroizing<Vec<u8>>>>,
        verify_token: Option<&[u8]>,
    ) -> Self {
        let encode = |secret: &[u8]| EncodedSecret(STANDARD.encode(secret));
        Self {
            verification: verification.into_iter().map(encode).collect(),
            signing: signing
                .into_iter()
                .map(|(destination, secrets)| {
                    (destination, secrets.iter().map(|secret| encode(secret)).collect())
                })
                .collect(),
            verify_token: verify_token.map(encode),
            sent: BTreeMap::new(),
        }
    }

    /// Adds what destinations send, by its references.
    #[must_use]
    pub fn with_sent(mut self, sent: Vec<(SecretRef, Zeroizing<Vec<u8>>)>) -> Self {
        let encoded = sent.into_iter().map(|(secret_ref, secret)| {
            (reference_name(&secret_ref), EncodedSecret(STANDARD.encode(&secret)))
        });
        self.sent = encoded.collect();
        self
    }

    /// Seals the secrets for the row of one integration: a value that is copied to another row cannot be opened there.
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

    /// Returns the secrets that verify webhooks.
    pub fn verification(&self) -> Result<Vec<Zeroizing<Vec<u8>>>, SecretsError> {
        self.verification.iter().map(EncodedSecret::decode).collect()
    }

    /// Returns the text that the provider repeats in a handshake, if the owner chose one.
    pub fn verify_token(&self) -> Result<Option<Zeroizing<Vec<u8>>>, SecretsError> {
        self.verify_token.as_ref().map(EncodedSecret::decode).transpose()
    }

    /// Returns the secrets that sign a destination's deliveries; none if they are not signed.
    pub fn signing(&self, destination: &str) -> Result<Vec<Zeroizing<Vec<u8>>>, SecretsError> {
        self.signing.get(destination).into_iter().flatten().map(EncodedSecret::decode).collect()
    }

    /// Returns what a destination sends by this reference, if it is here.
    pub fn sent(&self, secret_ref: &SecretRef) -> Result<Option<Zeroizing<Vec<u8>>>, SecretsError> {
        self.sent.get(&reference_name(secret_ref)).map(EncodedSecret::decode).transpose()
    }
}

fn reference_name(secret_ref: &SecretRef) -> String {
    format!("{}/{}", secret_ref.name, secret_ref.key)
}

impl EncodedSecret {
    fn decode(&self) -> Result<Zeroizing<Vec<u8>>, SecretsError> {
        STANDARD.decode(&self.0).map(Zeroizing::new).map_err(|_| SecretsError::Form)
    }
}
