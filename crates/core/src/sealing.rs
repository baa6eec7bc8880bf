//! Seals secrets for storage and opens them again: AES-256-GCM under named, rotatable keys.
//!
//! Invariants: a sealed value names the key that sealed it, so any configured key opens the values that it sealed, and
//! the first one seals new values; version, key id and the caller's context are authenticated with the ciphertext, so a
//! sealed value that was moved to another row cannot be opened; opened secrets are zeroized when dropped and print as
//! `[REDACTED]`; no error contains key material.
//!
//! The layout is `version (1) · length of key id (1) · key id · nonce (12) · ciphertext and tag (16)`.

use std::fmt;

use aes_gcm::aead::array::Array;
use aes_gcm::aead::{Aead, AeadInOut, Generate, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use secrecy::SecretSlice;
use secrecy::zeroize::Zeroizing;

/// Secret bytes: zeroized when dropped, redacted when printed.
pub type SecretBytes = SecretSlice<u8>;

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const LONGEST_KEY_ID: usize = 32;

/// The configured keys. The first seals; all of them open.
pub struct SealingKeys {
    sealing: SealingKey,
    retired: Vec<SealingKey>,
}

struct SealingKey {
    id: String,
    cipher: Aes256Gcm,
}

/// A reason why a list of sealing keys is invalid. Positions count from one. No part of the text is repeated, because an
/// operator who forgets the id has put the key in its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealingKeysError {
    /// There is no key at all.
    #[error("no sealing key is given; expected id:base64 of 32 bytes, comma-separated")]
    Empty,
    /// An entry has no colon.
    #[error("sealing key {position} is not of the form id:base64 of 32 bytes")]
    Form { position: usize },
    /// An id is empty, too long or contains other characters.
    #[error("the id of sealing key {position} is not 1 to 32 characters of a-z, 0-9 and -")]
    Id { position: usize },
    /// Two entries have the same id.
    #[error("the id of sealing key {position} was already used by an earlier key")]
    DuplicateId { position: usize },
    /// The part after the colon is not standard base64.
    #[error("sealing key {position} is not valid base64")]
    Base64 { position: usize },
    /// The decoded key has another length.
    #[error("sealing key {position} has {length} bytes and not 32")]
    Length { position: usize, length: usize },
}

/// A reason why a sealed value cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The bytes do not have the layout.
    #[error("the sealed value is malformed")]
    Malformed,
    /// The value was sealed with a key that is not configured.
    #[error("the sealed value needs sealing key {id:?}, which is not configured")]
    UnknownKey { id: String },
    /// The value was altered, belongs to another context, or was sealed with another key of that id.
    #[error("the sealed value does not match its key and context")]
    Mismatch,
}

impl SealingKeys {
    /// Parses `id:base64 of 32 bytes` entries, separated by commas.
    ///
    /// # Errors
    /// When an entry is malformed, an id is used twice, or there is no entry.
    pub fn parse(text: &str) -> Result<Self, SealingKeysError> {
        if text.trim().is_empty() {
            return Err(SealingKeysError::Empty);
        }
        let mut keys: Vec<SealingKey> = Vec::new();
        for (index, entry) in text.split(',').enumerate() {
            let position = index + 1;
            let key = parse_key(entry.trim(), position)?;
            if keys.iter().any(|earlier| earlier.id == key.id) {
                return Err(SealingKeysError::DuplicateId { position });
            }
            keys.push(key);
        }
        let sealing = keys.remove(0);
        Ok(Self { sealing, retired: keys })
    }

    /// Seals `plaintext` with the first key. `aad` is the context that opening the value requires again, such as the
    /// id of the row and the name of the column. It is authenticated, not stored.
    ///
    /// The nonce is random: 2^32 values a key stay within the bound of NIST SP 800-38D section 8.3, and an
    /// Integration's secrets are sealed only when they change.
    pub fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let SealingKey { id, cipher } = &self.sealing;
        let id_length = u8::try_from(id.len()).expect("an id has at most 32 characters");
        let nonce = Array::generate();
        let mut sealed = Vec::with_capacity(2 + id.len() + NONCE_BYTES + plaintext.len() + TAG_BYTES);
        sealed.extend_from_slice(&[VERSION, id_length]);
        sealed.extend_from_slice(id.as_bytes());
        let authenticated = [sealed.as_slice(), aad].concat();
        let ciphertext = cipher
            .encrypt(&nonce, Payload { msg: plaintext, aad: &authenticated })
            .expect("AES-GCM refuses only values longer than 64 GiB");
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        sealed
    }

    /// Opens a value that [`seal`](Self::seal) returned, with the key that it names and the same `aad`.
    ///
    /// # Errors
    /// When the value is malformed, its key is not configured, or value and `aad` do not belong together.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<SecretBytes, OpenError> {
        let parts = split(sealed).ok_or(OpenError::Malformed)?;
        let key =
            self.key(parts.key_id).ok_or_else(|| OpenError::UnknownKey { id: parts.key_id.to_owned() })?;
        let authenticated = [parts.header, aad].concat();
        // Decrypted in a buffer of exactly its size, so that no reallocation leaves a copy behind.
        let mut plaintext: Zeroizing<Box<[u8]>> = Zeroizing::new(parts.ciphertext.into());
        key.cipher
            .decrypt_inout_detached(
                parts.nonce.into(),
                &authenticated,
                plaintext.as_mut().into(),
                parts.tag.into(),
            )
            .map_err(|_| OpenError::Mismatch)?;
        Ok(SecretBytes::new(std::mem::take(&mut *plaintext)))
    }

    /// Whether a sealed value should be opened and sealed again, because a key other than the first sealed it. Also true for a
    /// malformed value: opening it then reports the error.
    pub fn needs_reseal(&self, sealed: &[u8]) -> bool {
        split(sealed).is_none_or(|parts| parts.key_id != self.sealing.id)
    }

    fn key(&self, id: &str) -> Option<&SealingKey> {
        std::iter::once(&self.sealing).chain(&self.retired).find(|key| key.id == id)
    }
}

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let retired: Vec<&str> = self.retired.iter().map(|key| key.id.as_str()).collect();
        f.debug_struct("SealingKeys")
            .field("sealing", &self.sealing.id)
            .field("retired", &retired)
            .finish_non_exhaustive()
    }
}

fn parse_key(entry: &str, position: usize) -> Result<SealingKey, SealingKeysError> {
    let (id, key) = entry.split_once(':').ok_or(SealingKeysError::Form { position })?;
    if !is_key_id(id) {
        return Err(SealingKeysError::Id { position });
    }
    let key = Zeroizing::new(BASE64_STANDARD.decode(key).map_err(|_| SealingKeysError::Base64 { position })?);
    let cipher = Aes256Gcm::new_from_slice(&key)
        .map_err(|_| SealingKeysError::Length { position, length: key.len() })?;
    Ok(SealingKey { id: id.to_owned(), cipher })
}

fn is_key_id(id: &str) -> bool {
    (1..=LONGEST_KEY_ID).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// The parts of a sealed value, not yet authenticated.
struct SealedParts<'a> {
    header: &'a [u8],
    key_id: &'a str,
    nonce: &'a [u8; NONCE_BYTES],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG_BYTES],
}

fn split(sealed: &[u8]) -> Option<SealedParts<'_>> {
    let [VERSION, id_length, ..] = *sealed else { return None };
    let (header, rest) = sealed.split_at_checked(2 + usize::from(id_length))?;
    let key_id = std::str::from_utf8(&header[2..]).ok().filter(|id| is_key_id(id))?;
    let (nonce, rest) = rest.split_first_chunk()?;
    let (ciphertext, tag) = rest.split_last_chunk()?;
    Some(SealedParts { header, key_id, nonce, ciphertext, tag })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    const KEY_BYTES: usize = 32;

    fn entry(id: &str, byte: u8) -> String {
        format!("{id}:{}", BASE64_STANDARD.encode([byte; KEY_BYTES]))
    }

    fn keys(entries: &[(&str, u8)]) -> SealingKeys {
        let text: Vec<String> = entries.iter().map(|(id, byte)| entry(id, *byte)).collect();
        SealingKeys::parse(&text.join(",")).unwrap()
    }

    proptest! {
        #[test]
        fn a_sealed_value_opens(aad: Vec<u8>, plaintext: Vec<u8>) {
            let keys = keys(&[("k1", 1)]);
            let sealed = keys.seal(&aad, &plaintext);
            let opened = keys.open(&aad, &sealed).unwrap();
            prop_assert_eq!(opened.expose_secret(), plaintext.as_slice());
            prop_assert_eq!(sealed.len(), 2 + 2 + NONCE_BYTES + plaintext.len() + TAG_BYTES);
        }

        #[test]
        fn another_context_does_not_open(aad: Vec<u8>, other: Vec<u8>, plaintext: Vec<u8>) {
            prop_assume!(aad != other);
            let keys = keys(&[("k1", 1)]);
            let sealed = keys.seal(&aad, &plaintext);
            prop_assert_eq!(keys.open(&other, &sealed).unwrap_err(), OpenError::Mismatch);
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(sealed: Vec<u8>) {
            prop_assert!(keys(&[("k1", 1)]).open(b"", &sealed).is_err());
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_does_not_open() {
        // The second key shares all but one bit of its id with the first, so a flip there selects a configured key.
        let keys = keys(&[("k1", 1), ("k0", 1)]);
        let sealed = keys.seal(b"row 1", b"a secret");
        for bit in 0..sealed.len() * 8 {
            let mut altered = sealed.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(keys.open(b"row 1", &altered).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_truncated_value_does_not_open() {
        let keys = keys(&[("k1", 1)]);
        let sealed = keys.seal(b"", b"a secret");
        for length in 0..sealed.len() {
            assert!(keys.open(b"", &sealed[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn equal_plaintexts_are_sealed_differently() {
        let keys = keys(&[("k1", 1)]);
        assert_ne!(keys.seal(b"", b"a secret"), keys.seal(b"", b"a secret"));
    }

    #[test]
    fn a_key_that_is_not_configured_is_named() {
        let sealed = keys(&[("2024", 1)]).seal(b"", b"a secret");
        let error = keys(&[("2025", 2)]).open(b"", &sealed).unwrap_err();
        assert_eq!(error, OpenError::UnknownKey { id: "2024".to_owned() });
    }

    #[test]
    fn another_key_under_the_same_id_does_not_open() {
        let sealed = keys(&[("k1", 1)]).seal(b"", b"a secret");
        assert_eq!(keys(&[("k1", 2)]).open(b"", &sealed).unwrap_err(), OpenError::Mismatch);
    }

    #[test]
    fn a_rotation_opens_old_values_and_asks_to_seal_them_again() {
        let old = keys(&[("2024", 1)]);
        let both = keys(&[("2025", 2), ("2024", 1)]);
        let sealed = old.seal(b"row 1", b"a secret");
        assert!(!old.needs_reseal(&sealed));
        assert!(both.needs_reseal(&sealed));
        let opened = both.open(b"row 1", &sealed).unwrap();

        let resealed = both.seal(b"row 1", opened.expose_secret());
        assert!(!both.needs_reseal(&resealed));
        let new = keys(&[("2025", 2)]);
        assert_eq!(new.open(b"row 1", &resealed).unwrap().expose_secret(), b"a secret");
    }

    #[test]
    fn malformed_key_lists_are_refused_by_position() {
        fn check(text: &str, expected: SealingKeysError) {
            assert_eq!(SealingKeys::parse(text).unwrap_err(), expected, "{text}");
        }
        let good = entry("k1", 1);
        let long_id = "a".repeat(LONGEST_KEY_ID + 1);
        check("", SealingKeysError::Empty);
        check("  ", SealingKeysError::Empty);
        check(&format!("{good},"), SealingKeysError::Form { position: 2 });
        check(&BASE64_STANDARD.encode([7; KEY_BYTES]), SealingKeysError::Form { position: 1 });
        check(&entry("", 1), SealingKeysError::Id { position: 1 });
        check(&entry("K1", 1), SealingKeysError::Id { position: 1 });
        check(&entry(&long_id, 1), SealingKeysError::Id { position: 1 });
        check(&format!("{good},{good}"), SealingKeysError::DuplicateId { position: 2 });
        check("k1:not base64", SealingKeysError::Base64 { position: 1 });
        check(
            &format!("k1:{}", BASE64_STANDARD.encode([1; 16])),
            SealingKeysError::Length { position: 1, length: 16 },
        );
    }

    #[test]
    fn spaces_around_entries_are_ignored() {
        let text = format!(" {} , {}\n", entry("k2", 2), entry("k1", 1));
        assert_eq!(SealingKeys::parse(&text).unwrap().sealing.id, "k2");
    }

    #[test]
    fn nothing_printed_carries_a_secret() {
        let material = BASE64_STANDARD.encode([7; KEY_BYTES]);
        let keys = SealingKeys::parse(&format!("k1:{material}")).unwrap();
        let opened = keys.open(b"", &keys.seal(b"", b"a secret")).unwrap();
        assert_eq!(format!("{keys:?}"), r#"SealingKeys { sealing: "k1", retired: [], .. }"#);
        assert!(!format!("{opened:?}").contains("secret"));
        let error = SealingKeys::parse(&material).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&material));
    }
}
