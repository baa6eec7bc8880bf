//! Stores a secret that the provider sent in a handshake.
//!
//! It stays sealed in its row until the controller has put it into the Secret of the Integration. The first one is kept,
//! since anyone who knows the URL could send another; it never verifies anything by itself. In development it is logged,
//! because no controller puts it into a Secret.

use std::sync::Arc;

use grapnel_store::Database;
use thiserror::Error;

use grapnel_core::integration::CompiledIntegration;
use grapnel_core::sealing::SealingKeys;
use grapnel_store::captured_secrets;

/// A captured secret that was not stored. The cause is logged; the provider repeats the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the captured secret was not stored")]
pub(crate) struct CaptureError;

/// The store of captured secrets.
#[derive(Debug, Clone)]
pub(crate) struct CapturedSecrets {
    db: Database,
    keys: Arc<SealingKeys>,
    /// Development: secrets are logged.
    is_logged: bool,
}

impl CapturedSecrets {
    pub(crate) fn new(db: Database, keys: Arc<SealingKeys>, is_logged: bool) -> Self {
        Self { db, keys, is_logged }
    }

    /// Stores the secret, unless one is already stored.
    pub(crate) async fn store(
        &self,
        integration: &CompiledIntegration,
        handshake: &str,
        secret: &[u8],
    ) -> Result<(), CaptureError> {
        let id = integration.row.id;
        let sealed = self.keys.seal(id.as_bytes(), secret);
        let inserted = captured_secrets::insert(&self.db, id, handshake, &sealed).await;
        let is_new = inserted.map_err(|error| {
            tracing::error!(integration.id = %id, %error, "a captured secret was not stored");
            CaptureError
        })?;
        if !is_new {
            tracing::warn!(integration.id = %id, handshake, "a secret was captured earlier; this one is not stored");
        } else if self.is_logged {
            let secret = String::from_utf8_lossy(secret);
            tracing::warn!(integration.id = %id, handshake, %secret, "the provider sent a secret: put it into the Secret");
        } else {
            tracing::warn!(integration.id = %id, handshake, "the provider sent a secret: it will be put into the Secret");
        }
        Ok(())
    }
}
