//! How the console is served: under which prefix, and who is let in besides the holders of a credential.

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use grapnel_core::sealing::SealingKeys;
use grapnel_platform::args::{ConfigError, Networks, secret};
use http::HeaderName;
use ring::hmac::{HMAC_SHA256, Key, sign};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};

use super::csrf::CsrfKey;
use super::identity_proxy::IdentityProxies;

#[derive(Debug, Args)]
pub(crate) struct ConsoleArgs {
    /// Keys that seal the credentials of the console's sessions: `id:base64 of 32 bytes`, comma-separated; the first seals, all
    /// open. The console is served where it is set
    #[arg(long, env = "GRAPNEL_CONSOLE_SEALING_KEY", hide_env_values = true)]
    console_sealing_key: Option<SecretString>,
    #[arg(long, env = "GRAPNEL_CONSOLE_SEALING_KEY_FILE", hide = true)]
    console_sealing_key_file: Option<PathBuf>,
    /// What a proxy puts before `/console`, such as `/grapnel`
    #[arg(long, env = "GRAPNEL_CONSOLE_PREFIX", default_value = "")]
    console_prefix: String,
    /// Networks of authenticating proxies, which name the visitors of the console (comma-separated CIDRs)
    #[arg(long, env = "GRAPNEL_IDENTITY_PROXIES", default_value = "")]
    identity_proxies: Networks,
    /// What an authenticating proxy proves itself with, in the header `x-grapnel-proxy-secret`; at least 16 characters
    #[arg(long, env = "GRAPNEL_IDENTITY_PROXY_SECRET", hide_env_values = true)]
    identity_proxy_secret: Option<SecretString>,
    #[arg(long, env = "GRAPNEL_IDENTITY_PROXY_SECRET_FILE", hide = true)]
    identity_proxy_secret_file: Option<PathBuf>,
    /// The header in which an authenticating proxy names the user
    #[arg(long, env = "GRAPNEL_IDENTITY_USER_HEADER", default_value = "x-forwarded-user")]
    identity_user_header: HeaderName,
    /// The header in which it names the user's groups, separated by commas
    #[arg(long, env = "GRAPNEL_IDENTITY_GROUPS_HEADER", default_value = "x-forwarded-groups")]
    identity_groups_header: HeaderName,
}

/// How the console is served.
pub(crate) struct ConsoleSettings {
    pub(super) keys: SealingKeys,
    pub(super) csrf: CsrfKey,
    /// Empty, or a path without a final slash.
    pub(super) prefix: String,
    pub(super) identity_proxies: Option<IdentityProxies>,
    /// Whether everybody who reaches the port is let in: it is open to this machine alone.
    pub(super) is_local: bool,
}

impl ConsoleSettings {
    /// Returns the path of the first page.
    pub(crate) fn path(&self) -> String {
        format!("{}/console/", self.prefix)
    }

    /// Whether everybody who reaches the port is let in.
    pub(crate) fn is_local(&self) -> bool {
        self.is_local
    }
}

impl fmt::Debug for ConsoleSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleSettings")
            .field("prefix", &self.prefix)
            .field("is_local", &self.is_local)
            .finish()
    }
}

impl ConsoleArgs {
    /// Returns the settings where a sealing key is set. `judges_rights`: whether rights in a cluster can be asked for.
    pub(crate) fn settings(&self, judges_rights: bool) -> Result<Option<ConsoleSettings>, ConfigError> {
        let Some(keys) = self.sealing_key()? else {
            return match self.identity_proxies.0.is_empty() {
                true => Ok(None),
                false => Err(ConfigError::Missing { name: KEY_NAME }),
            };
        };
        self.with_keys(keys.expose_secret(), judges_rights).map(Some)
    }

    /// Returns the settings of a process for development. Without a sealing key it makes one, so its sessions end with it.
    pub(crate) fn settings_of_dev(
        &self,
        judges_rights: bool,
        is_local: bool,
    ) -> Result<ConsoleSettings, ConfigError> {
        let keys = match self.sealing_key()? {
            Some(keys) => keys,
            None => random_key()?,
        };
        Ok(ConsoleSettings { is_local, ..self.with_keys(keys.expose_secret(), judges_rights)? })
    }

    fn sealing_key(&self) -> Result<Option<SecretString>, ConfigError> {
        secret(KEY_NAME, self.console_sealing_key.as_ref(), self.console_sealing_key_file.as_deref())
    }

    fn with_keys(&self, keys: &str, judges_rights: bool) -> Result<ConsoleSettings, ConfigError> {
        let invalid = |reason: String| ConfigError::Invalid { name: KEY_NAME, reason };
        Ok(ConsoleSettings {
            csrf: CsrfKey::new(sign(&Key::new(HMAC_SHA256, keys.as_bytes()), b"console: forms").as_ref()),
            keys: SealingKeys::parse(keys).map_err(|error| invalid(error.to_string()))?,
            prefix: self.prefix()?,
            identity_proxies: self.identity_proxies(judges_rights)?,
            is_local: false,
        })
    }

    fn prefix(&self) -> Result<String, ConfigError> {
        let prefix = self.console_prefix.trim_end_matches('/');
        let is_segment = |segment: &str| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment != "console"
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
        };
        if prefix.is_empty() || prefix.strip_prefix('/').is_some_and(|path| path.split('/').all(is_segment)) {
            return Ok(prefix.to_owned());
        }
        let reason = "must be a path such as /grapnel, of letters, digits and - _ . ~".to_owned();
        Err(ConfigError::Invalid { name: "GRAPNEL_CONSOLE_PREFIX", reason })
    }

    fn identity_proxies(&self, judges_rights: bool) -> Result<Option<IdentityProxies>, ConfigError> {
        let name = "GRAPNEL_IDENTITY_PROXY_SECRET";
        let given =
            secret(name, self.identity_proxy_secret.as_ref(), self.identity_proxy_secret_file.as_deref())?;
        let networks = self.identity_proxies.0.clone();
        let invalid = |name, reason: &str| Err(ConfigError::Invalid { name, reason: reason.to_owned() });
        match (networks.is_empty(), given) {
            (true, None) => Ok(None),
            (true, Some(_)) => {
                invalid("GRAPNEL_IDENTITY_PROXIES", "is required with the secret of the proxies")
            }
            (false, None) => Err(ConfigError::Missing { name }),
            (false, Some(_)) if !judges_rights => invalid(
                "GRAPNEL_IDENTITY_PROXIES",
                "needs GRAPNEL_KUBERNETES_ACCESS, which judges their users' rights",
            ),
            (false, Some(given)) if given.expose_secret().chars().count() < MIN_SECRET_CHARS => {
                invalid(name, "needs at least 16 characters")
            }
            (false, Some(given)) => Ok(Some(IdentityProxies::new(
                networks,
                given,
                self.identity_user_header.clone(),
                self.identity_groups_header.clone(),
            ))),
        }
    }
}

const KEY_NAME: &str = "GRAPNEL_CONSOLE_SEALING_KEY";

/// The shortest secret of a proxy: shorter ones can be guessed.
const MIN_SECRET_CHARS: usize = 16;

fn random_key() -> Result<SecretString, ConfigError> {
    use base64::Engine as _;
    let mut key = [0; 32];
    SystemRandom::new().fill(&mut key).map_err(|_| ConfigError::Invalid {
        name: KEY_NAME,
        reason: "cannot be made: the system gives no random bytes".to_owned(),
    })?;
    Ok(SecretString::from(format!("process:{}", base64::prelude::BASE64_STANDARD.encode(key))))
}
