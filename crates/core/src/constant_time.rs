//! The only way to compare a value of a request with one that only the owner of a secret can know.
//!
//! Invariants: secrets that a request is checked with, and values that were computed with one, are held in a
//! [`ConstantTime`] or in a key of the cryptographic library. Neither has `==`, and a [`ConstantTime`] does not hand out its
//! bytes, so no code can compare them in another way by mistake.

use subtle::ConstantTimeEq;

/// Bytes that are a secret or were computed with one.
#[derive(Clone, Copy)]
pub struct ConstantTime<T>(T);

impl ConstantTime<&'static [u8]> {
    /// No bytes, where nothing is computed with a secret.
    pub const EMPTY: Self = Self(b"");
}

impl<T: AsRef<[u8]>> ConstantTime<T> {
    pub fn new(bytes: T) -> Self {
        Self(bytes)
    }

    /// Whether the candidate equals these bytes. The time that this takes depends on the number of bytes alone: every byte is
    /// looked at, whatever the first ones are.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.0.as_ref().ct_eq(candidate).into()
    }

    pub fn by_ref(&self) -> ConstantTime<&[u8]> {
        ConstantTime(self.0.as_ref())
    }

    /// Passes the bytes to a computation over them, such as a digest.
    pub(crate) fn feed(&self, sink: &mut dyn FnMut(&[u8])) {
        sink(self.0.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Deref;

    use ring::{digest, hmac};

    use super::*;

    /// Has the method that the compiler cannot choose between when the type has `==` or hands out its bytes.
    trait HasNoOtherComparison<A> {
        fn holds() -> bool {
            true
        }
    }
    impl<T> HasNoOtherComparison<()> for T {}
    struct Comparable;
    impl<T: PartialEq> HasNoOtherComparison<Comparable> for T {}
    struct ComparableWithBytes;
    impl<T: for<'a> PartialEq<&'a [u8]>> HasNoOtherComparison<ComparableWithBytes> for T {}
    struct Readable;
    impl<T: AsRef<[u8]>> HasNoOtherComparison<Readable> for T {}
    struct Dereferenceable;
    impl<T: Deref> HasNoOtherComparison<Dereferenceable> for T {}

    /// The same for types whose bytes can be read, for the result that is sent.
    trait HasNoEquality<A> {
        fn holds() -> bool {
            true
        }
    }
    impl<T> HasNoEquality<()> for T {}
    impl<T: PartialEq> HasNoEquality<Comparable> for T {}

    /// This measures no time, which no test on a shared machine can. It shows that there is one way to compare, over all
    /// bytes: the test compiles only while the type has no `==` and cannot be read as bytes.
    #[test]
    fn constant_time_comparison() {
        assert!(<ConstantTime<[u8; 32]> as HasNoOtherComparison<_>>::holds());
        assert!(<ConstantTime<Vec<u8>> as HasNoOtherComparison<_>>::holds());
        assert!(<hmac::Key as HasNoEquality<_>>::holds());
        assert!(<hmac::Tag as HasNoEquality<_>>::holds());
        assert!(<digest::Digest as HasNoEquality<_>>::holds());
        let bytes: [u8; 64] = std::array::from_fn(|index| index as u8);
        let known = ConstantTime::new(bytes);
        assert!(known.matches(&bytes));
        for index in 0..bytes.len() {
            let mut other = bytes;
            other[index] ^= 1;
            assert!(!known.matches(&other), "a difference at {index}");
            assert!(!known.matches(&bytes[..index]), "the first {index} bytes alone");
        }
        assert!(!known.matches(&[&bytes[..], b"x"].concat()));
    }
}
