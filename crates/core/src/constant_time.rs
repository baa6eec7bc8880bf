//! The only comparison of what a request brings with what only the owner of a secret can know.
//!
//! It looks at every byte, whatever the first ones are. A [`Known`] has no `==`, so none is made of it by mistake.

use subtle::ConstantTimeEq;

/// Bytes that were computed with a secret, or are one.
pub(crate) struct Known<T>(pub(crate) T);

impl<T: AsRef<[u8]>> Known<T> {
    /// Whether the candidate is these bytes. How long that takes depends on how many they are, and on nothing else.
    pub(crate) fn is(&self, candidate: &[u8]) -> bool {
        self.0.as_ref().ct_eq(candidate).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files that hold secrets and what is computed with them.
    const SOURCES: [(&str, &str); 6] = [
        ("verification.rs", include_str!("verification.rs")),
        ("verification/basic.rs", include_str!("verification/basic.rs")),
        ("verification/candidates.rs", include_str!("verification/candidates.rs")),
        ("verification/certificate.rs", include_str!("verification/certificate.rs")),
        ("verification/keys.rs", include_str!("verification/keys.rs")),
        ("handshake.rs", include_str!("handshake.rs")),
    ];

    /// What names such bytes there.
    const WORDS: [&str; 8] =
        ["candidate", "claimed", "computed", "credentials", "mac", "secret", "signature", "token"];

    /// Has the method that the compiler cannot choose between when the type has `==`.
    trait HasNoEquality<A> {
        fn holds() -> bool {
            true
        }
    }
    impl<T> HasNoEquality<()> for T {}
    struct Comparable;
    impl<T: PartialEq> HasNoEquality<Comparable> for T {}

    /// This measures no time, which no test on a shared machine can. It shows that there is one way to compare: a type that
    /// compiles without `==` alone, over all bytes; and that nothing that names such bytes is compared beside it.
    #[test]
    fn constant_time_comparison() {
        assert!(<Known<[u8; 32]> as HasNoEquality<_>>::holds());
        let bytes: [u8; 64] = std::array::from_fn(|index| index as u8);
        let known = Known(bytes);
        assert!(known.is(&bytes));
        for index in 0..bytes.len() {
            let mut other = bytes;
            other[index] ^= 1;
            assert!(!known.is(&other), "a difference at {index}");
            assert!(!known.is(&bytes[..index]), "the first {index} bytes alone");
        }
        assert!(!known.is(&[&bytes[..], b"x"].concat()));
        for (file, source) in SOURCES {
            let code = source.split("#[cfg(test)]").next().unwrap_or_default();
            assert!(!code.contains("ct_eq"), "{file} compares for itself");
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let compared =
                    ["==", "!=", ".eq(", ".cmp("].iter().filter_map(|operator| line.split_once(operator));
                for (left, right) in compared {
                    let sides = [left.split_whitespace().last(), right.split_whitespace().next()];
                    let mut words = sides
                        .into_iter()
                        .flatten()
                        .flat_map(|side| side.split(|character: char| !character.is_ascii_alphanumeric()));
                    assert!(!words.any(|word| WORDS.contains(&word)), "{file}: {line}");
                }
            }
        }
    }
}
