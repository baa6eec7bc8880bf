//! Secrets from files, and the lookup of the value that a reference names.
//!
//! Editors and `echo` put a line end after a secret. One is dropped wherever a secret is read, from a file or from a Secret;
//! other white space may be part of the secret, and only causes a warning.
//!
//! A secret value never appears in `Debug` output, in an error or in serialized form; only `SecretValue::expose`
//! returns it.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretSlice};

use crate::conditions::reason;
use crate::names::DESTINATION_LABEL;
use crate::spec::verification::SecretRef;

/// The bytes of a secret, which are overwritten when it is dropped.
#[derive(Clone, Debug)]
pub struct SecretValue(SecretSlice<u8>);

impl SecretValue {
    /// Wraps the bytes of a secret.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    /// Returns the bytes themselves.
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }
}

/// A Secret object, reduced to the fields that references need.
#[derive(Clone, Debug)]
pub struct Secret {
    /// The namespace of the object.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
    /// Whether it has the label that lets destinations send its values.
    pub permits_destinations: bool,
    /// The values by key, from `data` and `stringData`; the latter takes precedence.
    pub values: BTreeMap<String, SecretValue>,
}

/// The reason why a reference has no value. The message names the Secret and the key, and nothing of the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// There is no Secret of that name in the namespace.
    #[error("the Secret {namespace}/{name} does not exist")]
    NotFound {
        /// The namespace of the reference.
        namespace: String,
        /// The name in the reference.
        name: String,
    },
    /// A destination may not send what is in the Secret.
    #[error(
        "the Secret {namespace}/{name} does not have the label {DESTINATION_LABEL}: \"true\", without which destinations may not send its values"
    )]
    NotLabeled {
        /// The namespace of the Secret.
        namespace: String,
        /// The name of the Secret.
        name: String,
    },
    /// The Secret has no such key.
    #[error("the Secret {namespace}/{name} has no key {key}")]
    KeyMissing {
        /// The namespace of the Secret.
        namespace: String,
        /// The name of the Secret.
        name: String,
        /// The key in the reference.
        key: String,
    },
    /// The value is empty. An empty secret would accept every forged webhook, so it is treated as missing.
    #[error("the key {key} of the Secret {namespace}/{name} is empty")]
    Empty {
        /// The namespace of the Secret.
        namespace: String,
        /// The name of the Secret.
        name: String,
        /// The key whose value is empty.
        key: String,
    },
}

impl SecretError {
    /// Returns the reason of the condition SecretsResolved.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => reason::SECRET_NOT_FOUND,
            Self::NotLabeled { .. } => reason::SECRET_NOT_LABELED,
            Self::KeyMissing { .. } => reason::SECRET_KEY_MISSING,
            Self::Empty { .. } => reason::SECRET_EMPTY,
        }
    }
}

/// Returns the text without its final line end (LF or CRLF), if it has one.
pub fn without_line_end(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\n").map_or(text, |text| text.strip_suffix(b"\r").unwrap_or(text))
}

/// Returns the warning about a secret that begins or ends with white space, which is rarely meant. It contains nothing of
/// the secret. `name` says where it is.
pub fn white_space_warning(name: &str, secret: &[u8]) -> Option<String> {
    let is_plain = secret.trim_ascii().len() == secret.len();
    (!is_plain).then(|| format!("{name} begins or ends with white space, which is part of the secret"))
}

/// Returns the value that a reference of an Integration in `namespace` names, without one line end. Of two Secrets of
/// the same name, the later one is used, as when both are applied.
///
/// # Errors
/// When there is no such Secret in that namespace, it does not have the key, or the value is empty.
pub fn resolve_secret<'a>(
    secret_ref: &SecretRef,
    namespace: &str,
    secrets: &'a [Secret],
) -> Result<&'a [u8], SecretError> {
    value_of(find(secret_ref, namespace, secrets)?, secret_ref)
}

/// Returns the value that a destination of an Integration in `namespace` sends: like [`resolve_secret`], and only if the
/// Secret permits it.
///
/// # Errors
/// As of [`resolve_secret`], and when the Secret does not have the label.
pub fn resolve_sent_secret<'a>(
    secret_ref: &SecretRef,
    namespace: &str,
    secrets: &'a [Secret],
) -> Result<&'a [u8], SecretError> {
    let secret = find(secret_ref, namespace, secrets)?;
    if !secret.permits_destinations {
        let (namespace, name) = (secret.namespace.clone(), secret.name.clone());
        return Err(SecretError::NotLabeled { namespace, name });
    }
    value_of(secret, secret_ref)
}

/// Returns whether labels permit destinations to send the values of their Secret.
pub fn permits_destinations<'a>(mut labels: impl Iterator<Item = (&'a String, &'a String)>) -> bool {
    labels.any(|(name, value)| name == DESTINATION_LABEL && value == "true")
}

fn find<'a>(
    secret_ref: &SecretRef,
    namespace: &str,
    secrets: &'a [Secret],
) -> Result<&'a Secret, SecretError> {
    let name = &secret_ref.name;
    let secret = secrets.iter().rev().find(|secret| secret.namespace == namespace && secret.name == *name);
    secret.ok_or_else(|| SecretError::NotFound { namespace: namespace.to_owned(), name: name.clone() })
}

fn value_of<'a>(secret: &'a Secret, secret_ref: &SecretRef) -> Result<&'a [u8], SecretError> {
    let (namespace, name, key) = (secret.namespace.clone(), secret.name.clone(), secret_ref.key.clone());
    match secret.values.get(&key).map(|value| without_line_end(value.expose())) {
        None => Err(SecretError::KeyMissing { namespace, name, key }),
        Some([]) => Err(SecretError::Empty { namespace, name, key }),
        Some(value) => Ok(value),
    }
}
