//! Keyed hashes of what answers are kept under. The key is random and of this process alone.

use ring::hmac::{Context, HMAC_SHA256, Key};
use ring::rand::SystemRandom;

/// The hash of a question.
pub(crate) type Digest = [u8; 32];

/// Makes the hashes of one process.
pub(crate) struct Digests(Key);

impl Digests {
    /// Makes a random key.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub(crate) fn new() -> Result<Self, ring::error::Unspecified> {
        Key::generate(HMAC_SHA256, &SystemRandom::new()).map(Self)
    }

    /// Hashes the parts, each with its length, so that no two lists of parts have the same hash.
    pub(crate) fn of<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
        let mut context = Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut digest = Digest::default();
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_parts_differ_by_their_borders_and_processes_by_their_keys() {
        let digests = Digests::new().expect("random bytes");
        let of = |parts: &[&str]| digests.of(parts.iter().map(|part| part.as_bytes()));
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
        assert_ne!(of(&["a", "b"]), of(&["ab"]));
        assert_ne!(of(&["a", ""]), of(&["a"]));
        assert_ne!(of(&["a"]), Digests::new().expect("random bytes").of([&b"a"[..]]));
    }
}
