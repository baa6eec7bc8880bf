//! What a handshake leaves behind: a secret that the provider gave us.
//!
//! It is sealed in its row until the controller has put it into the Secret of the Integration. The first one stays, since
//! who knows the URL could send another; it never verifies anything by itself. In development it is told in the log, where
//! there is nobody else to put it into a Secret.

use std::sync::Arc;

use grapnel_store::Database;
use thiserror::Error;

use grapnel_core::integration::Integration;
use grapnel_core::sealing::SealingKeys;
use grapnel_store::captured_secrets;

/// The secret was not kept. The cause was logged; the provider comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the captured secret was not kept")]
pub struct NotKept;

/// Where captured secrets go.
#[derive(Debug, Clone)]
pub struct Captures {
    db: Database,
    keys: Arc<SealingKeys>,
    /// Development: the secret is told in the log.
    told: bool,
}

impl Captures {
    pub fn new(db: Database, keys: Arc<SealingKeys>, told: bool) -> Self {
        Self { db, keys, told }
    }

    /// Keeps the secret, unless one is kept already.
    pub async fn keep(
        &self,
        integration: &Integration,
        handshake: &str,
        secret: &[u8],
    ) -> Result<(), NotKept> {
        let id = integration.row.id;
        let sealed = self.keys.seal(id.as_bytes(), secret);
        let kept = captured_secrets::insert(&self.db, id, handshake, &sealed).await;
        let new = kept.map_err(|error| {
            tracing::error!(integration.id = %id, %error, "a captured secret was not kept");
            NotKept
        })?;
        if !new {
            tracing::warn!(integration.id = %id, handshake, "another secret was captured before; this one is not kept");
        } else if self.told {
            let secret = String::from_utf8_lossy(secret);
            tracing::warn!(integration.id = %id, handshake, %secret, "the provider gave a secret: put it into the Secret");
        } else {
            tracing::warn!(integration.id = %id, handshake, "the provider gave a secret: it waits to be put into the Secret");
        }
        Ok(())
    }
}
