//! Filters of a placeholder's value, such as `{timestamp|crc32}`.

use ring::digest;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    /// The CRC-32 in decimal.
    Crc32,
    /// The SHA-256 in hexadecimal.
    Sha256,
    /// Decodes twelve percent-escapes of a URL and leaves the others.
    Unescape,
    /// A JSON string with its quotes.
    Json,
    Hex,
    Base64,
}

/// Characters whose escapes are decoded: the others of a URL stay as they were sent.
const UNESCAPED: [(&[u8; 3], u8); 12] = [
    (b"%3A", b':'),
    (b"%2F", b'/'),
    (b"%3F", b'?'),
    (b"%40", b'@'),
    (b"%21", b'!'),
    (b"%24", b'$'),
    (b"%27", b'\''),
    (b"%28", b'('),
    (b"%29", b')'),
    (b"%2A", b'*'),
    (b"%2C", b','),
    (b"%3B", b';'),
];

impl Filter {
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "crc32" => Some(Self::Crc32),
            "sha256" => Some(Self::Sha256),
            "unescape" => Some(Self::Unescape),
            "json" => Some(Self::Json),
            "hex" => Some(Self::Hex),
            "base64" => Some(Self::Base64),
            _ => None,
        }
    }

    pub(super) fn apply(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Crc32 => crc32fast::hash(bytes).to_string().into_bytes(),
            Self::Sha256 => hex::encode(digest::digest(&digest::SHA256, bytes)).into_bytes(),
            Self::Unescape => unescape(bytes),
            Self::Json => serde_json::to_vec(&String::from_utf8_lossy(bytes))
                .expect("a string can be written to a vector"),
            Self::Hex => hex::encode(bytes).into_bytes(),
            Self::Base64 => {
                base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes).into_bytes()
            }
        }
    }
}

fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let escape = rest.get(..3).filter(|_| *first == b'%').map(<[u8]>::to_ascii_uppercase);
        let decoded = UNESCAPED.iter().find(|(encoded, _)| escape.as_deref() == Some(&encoded[..]));
        out.push(decoded.map_or(*first, |(_, plain)| *plain));
        rest = &rest[if decoded.is_some() { 3 } else { 1 }..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twelve_escapes_are_decoded_and_others_are_not() {
        assert_eq!(unescape(b"https%3A%2f%2Fx%20%C3%a9%"), b"https://x%20%C3%a9%");
    }
}
