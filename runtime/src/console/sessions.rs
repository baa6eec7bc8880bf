//! Sessions: who logged in with which credential, until when.
//!
//! The id is random, made at each log-in, and only in the browser; the row has its hash. The credential is sealed for that id, so a row that was
//! copied opens nothing. It is judged for every request as the API judges it: a token that was revoked, or a key that was changed, ends the session.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use grapnel_core::error_chain::chain;
use grapnel_store::Database;
use grapnel_store::console_sessions::{self, ConsoleSession};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::Console;
use crate::http::envelope::ApiError;
use crate::management::{Caller, Unidentified, key_holder, token_holder};

/// The cookie with the id.
pub(super) const COOKIE: &str = "grapnel_session";

/// How long a session lasts after its log-in.
pub(super) const LASTS: Duration = Duration::from_secs(3600);

/// How often sessions that are over are dropped.
const PURGED_EVERY: Duration = Duration::from_secs(300);

/// The random id of a session, or of a form before there is one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionId([u8; 32]);

impl SessionId {
    /// Makes a new one.
    pub(super) fn generate() -> Result<Self, ApiError> {
        let mut id = [0; 32];
        SystemRandom::new().fill(&mut id).map_err(|_| ApiError::internal())?;
        Ok(Self(id))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    pub(super) fn cookie_value(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// What the tokens of its forms are made for.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

/// What somebody logs in with.
pub(super) enum Credential {
    /// A token of the cluster.
    Token(SecretString),
    /// A management key.
    Key(SecretString),
}

impl Credential {
    /// Finds out whose it is, now.
    pub(super) async fn holder(&self, console: &Console, source: IpAddr) -> Result<Caller, Unidentified> {
        match self {
            Self::Token(token) => token_holder(&console.management, token.expose_secret(), source).await,
            Self::Key(key) => key_holder(&console.management, key.expose_secret(), source),
        }
    }

    fn seal(&self, console: &Console, id: &SessionId) -> Vec<u8> {
        let (kind, secret) = match self {
            Self::Token(token) => (b't', token),
            Self::Key(key) => (b'k', key),
        };
        let plain = secrecy::zeroize::Zeroizing::new([&[kind], secret.expose_secret().as_bytes()].concat());
        console.settings.keys.seal(&id.hash(), &plain)
    }

    fn open(console: &Console, id: &SessionId, sealed: &[u8]) -> Option<Self> {
        let plain = console.settings.keys.open(&id.hash(), sealed).ok()?;
        let (kind, secret) = plain.expose_secret().split_first()?;
        let secret = SecretString::from(std::str::from_utf8(secret).ok()?);
        match kind {
            b't' => Some(Self::Token(secret)),
            b'k' => Some(Self::Key(secret)),
            _ => None,
        }
    }
}

/// Why a request has no session that holds.
pub(super) enum NoSession {
    /// There is none, or it ended.
    None,
    /// Whose it is cannot be judged now.
    Undecided(Unidentified),
    Failed(ApiError),
}

/// Begins a session, and returns its id.
pub(super) async fn begin(
    console: &Console,
    credential: &Credential,
    caller: &Caller,
) -> Result<SessionId, ApiError> {
    let id = SessionId::generate()?;
    let session =
        ConsoleSession { owner: caller.requester().actor, credential: credential.seal(console, &id) };
    console_sessions::begin(&console.management.db, &id.hash(), &session, LASTS).await?;
    Ok(id)
}

/// Returns whose session it is. One whose credential holds no longer ends.
pub(super) async fn caller(console: &Console, id: &SessionId, source: IpAddr) -> Result<Caller, NoSession> {
    let session = console_sessions::find(&console.management.db, &id.hash()).await;
    let session = session.map_err(|error| NoSession::Failed(error.into()))?.ok_or(NoSession::None)?;
    let identified = match Credential::open(console, id, &session.credential) {
        Some(credential) => credential.holder(console, source).await,
        None => Err(Unidentified::NoCredential),
    };
    match identified {
        Ok(caller) => Ok(caller),
        Err(Unidentified::NoCredential) => {
            end(console, id).await.map_err(NoSession::Failed)?;
            Err(NoSession::None)
        }
        Err(undecided) => Err(NoSession::Undecided(undecided)),
    }
}

/// Ends a session, if there is one with this id.
pub(super) async fn end(console: &Console, id: &SessionId) -> Result<(), ApiError> {
    Ok(console_sessions::end(&console.management.db, &id.hash()).await?)
}

/// Drops the sessions that are over, until the token is cancelled.
pub(crate) async fn drop_expired_sessions(db: Database, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(PURGED_EVERY)).await.is_some() {
        if let Err(error) = console_sessions::drop_expired(&db).await {
            tracing::warn!(error = %chain(&error), "sessions that are over were not dropped");
        }
    }
}
