//! Content codings: the compression of a body on its way (RFC 9110, section 8.4).
//!
//! A body is decoded in one piece, up to a limit, and what it takes is asked for before it is allocated. A body that ends early,
//! or goes on after its end, is broken: what is missing or ignored could be an event.

use std::io::Read;

use flate2::bufread::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use http::{HeaderMap, header};
use thiserror::Error;

/// The codings that a body may have on top of each other.
const MAX_CODINGS: usize = 2;

/// The parts of a body in gzip, each with a header of its own. Senders have one.
const MAX_GZIP_MEMBERS: usize = 64;

/// Memory for the shortest decoded body.
const MIN_CAPACITY: usize = 1024;

/// The characters of a coding that are shown in an error.
const SHOWN_CHARACTERS: usize = 32;

/// The codings of a body, in the order in which they were applied; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentCodings(Vec<ContentCoding>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContentCoding {
    Gzip,
    /// In the format of zlib; many senders leave out its header and its checksum.
    Deflate,
}

/// A coding that is not known, or the codings if there are too many.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the content-encoding {0} is not supported: a body may be sent with gzip, deflate or none")]
pub struct UnsupportedCoding(pub String);

/// A reason why a body cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("the decoded body is larger than the limit")]
    TooLarge,
    #[error("the body is not what its content-encoding says")]
    Broken,
    /// Memory was asked for, and not granted.
    #[error("the decoded body needs more memory than there is")]
    NoMemory,
}

impl ContentCodings {
    /// Returns the codings of a body; `None` if it came as it is.
    ///
    /// # Errors
    /// When a coding is not known, or there are too many.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, UnsupportedCoding> {
        let mut codings = Vec::new();
        for value in headers.get_all(header::CONTENT_ENCODING) {
            for name in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if name.is_empty() || name.eq_ignore_ascii_case(b"identity") {
                    continue;
                }
                codings.push(ContentCoding::parse(name).ok_or_else(|| unsupported(name))?);
                if codings.len() > MAX_CODINGS {
                    return Err(unsupported(value.as_bytes()));
                }
            }
        }
        Ok((!codings.is_empty()).then_some(Self(codings)))
    }

    /// Decodes a body. `reserve` is asked before memory is allocated, with the number of bytes. No body at all has no coding
    /// either.
    ///
    /// # Errors
    /// When the body is broken, larger than the limit, or memory is not granted.
    pub fn decode(
        &self,
        body: &[u8],
        limit: usize,
        mut reserve: impl FnMut(usize) -> bool,
    ) -> Result<Vec<u8>, DecodeError> {
        if body.is_empty() {
            return Ok(Vec::new());
        }
        let mut decoded: Option<Vec<u8>> = None;
        for coding in self.0.iter().rev() {
            let encoded = decoded.as_deref().unwrap_or(body);
            decoded = Some(read_all(Decoder::new(*coding, encoded), encoded.len(), limit, &mut reserve)?);
        }
        Ok(decoded.unwrap_or_default())
    }

    /// Returns the names of the codings, as in the header.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|coding| coding.name()).collect();
        names.join(", ")
    }
}

impl ContentCoding {
    fn parse(name: &[u8]) -> Option<Self> {
        // `x-gzip` is the name that the first browsers had for it.
        if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Self::Gzip);
        }
        name.eq_ignore_ascii_case(b"deflate").then_some(Self::Deflate)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }
}

fn unsupported(name: &[u8]) -> UnsupportedCoding {
    let visible = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' };
    UnsupportedCoding(name.iter().take(SHOWN_CHARACTERS).map(visible).collect())
}

/// Reads all that the decoder has. The memory that is asked for is what is allocated.
fn read_all(
    mut decoder: Decoder<'_>,
    encoded_length: usize,
    limit: usize,
    reserve: &mut impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, DecodeError> {
    let mut decoded = Vec::new();
    let mut length = 0;
    loop {
        if length == decoded.len() {
            if length == limit {
                let is_more = decoder.read(&mut [0])? > 0;
                return if is_more { Err(DecodeError::TooLarge) } else { Ok(decoded) };
            }
            // Most bodies become some four times as long.
            let wanted = if length == 0 { encoded_length.saturating_mul(4) } else { length * 2 };
            let capacity = wanted.max(MIN_CAPACITY).min(limit);
            if !reserve(capacity - length) {
                return Err(DecodeError::NoMemory);
            }
            decoded.reserve_exact(capacity - length);
            decoded.resize(capacity, 0);
        }
        match decoder.read(&mut decoded[length..])? {
            0 => break,
            read => length += read,
        }
    }
    decoded.truncate(length);
    Ok(decoded)
}

enum Decoder<'a> {
    Gzip { member: GzDecoder<&'a [u8]>, members: usize },
    Deflate { state: Decompress, rest: &'a [u8], has_ended: bool },
}

impl<'a> Decoder<'a> {
    fn new(coding: ContentCoding, encoded: &'a [u8]) -> Self {
        match coding {
            ContentCoding::Gzip => Self::Gzip { member: GzDecoder::new(encoded), members: 1 },
            ContentCoding::Deflate => Self::Deflate {
                state: Decompress::new(has_zlib_header(encoded)),
                rest: encoded,
                has_ended: false,
            },
        }
    }

    /// Writes what comes next, and returns how much it is; nothing at the end. There must be room for a byte.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, DecodeError> {
        match self {
            Self::Gzip { member, members } => loop {
                let read = member.read(out).map_err(|_| DecodeError::Broken)?;
                let rest = *member.get_ref();
                if read > 0 || rest.is_empty() {
                    return Ok(read);
                }
                if *members == MAX_GZIP_MEMBERS {
                    return Err(DecodeError::Broken);
                }
                (*member, *members) = (GzDecoder::new(rest), *members + 1);
            },
            Self::Deflate { has_ended: true, .. } => Ok(0),
            Self::Deflate { state, rest, has_ended } => {
                let (read, written) = (state.total_in(), state.total_out());
                let status = state.decompress(rest, out, FlushDecompress::None);
                let status = status.map_err(|_| DecodeError::Broken)?;
                *rest = &rest[usize::try_from(state.total_in() - read).unwrap_or(rest.len())..];
                let written = usize::try_from(state.total_out() - written).unwrap_or(0);
                *has_ended = status == Status::StreamEnd;
                let is_cut = !*has_ended && written == 0;
                if is_cut || *has_ended && !rest.is_empty() { Err(DecodeError::Broken) } else { Ok(written) }
            }
        }
    }
}

/// Whether a body begins as zlib writes it (RFC 1950): the method, and a check of it. Without one it begins otherwise, since its
/// first byte would be that of a stored block whose padding is not zero.
fn has_zlib_header(encoded: &[u8]) -> bool {
    let [first, second, ..] = encoded else { return true };
    first & 0x0f == 8 && (u16::from(*first) << 8 | u16::from(*second)).is_multiple_of(31)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    fn codings(values: &[&str]) -> Result<Option<ContentCodings>, UnsupportedCoding> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CONTENT_ENCODING, value.parse().expect("a value"));
        }
        ContentCodings::of(&headers)
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).expect("memory");
        encoder.finish().expect("memory")
    }

    fn zlib(body: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).expect("memory");
        encoder.finish().expect("memory")
    }

    fn raw_deflate(body: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).expect("memory");
        encoder.finish().expect("memory")
    }

    fn decode(coding: &str, body: &[u8], limit: usize) -> Result<Vec<u8>, DecodeError> {
        codings(&[coding]).expect("known").expect("a coding").decode(body, limit, |_| true)
    }

    #[test]
    fn codings_are_read_in_any_case_and_identity_is_none() {
        for none in [&[][..], &[""], &["identity"], &["Identity, ,identity"]] {
            assert_eq!(codings(none), Ok(None), "{none:?}");
        }
        for (values, names) in [
            (&["GZip"][..], "gzip"),
            (&["x-gzip"], "gzip"),
            (&["deflate, identity"], "deflate"),
            (&[" deflate ,gzip"], "deflate, gzip"),
            (&["deflate", "gzip"], "deflate, gzip"),
        ] {
            assert_eq!(codings(values).expect("known").expect("a coding").names(), names);
        }
    }

    #[test]
    fn another_coding_is_named_and_so_are_too_many() {
        for (value, named) in [("br", "br"), ("gzip, ZSTD", "ZSTD"), ("gzip,gzip,gzip", "gzip,gzip,gzip")] {
            assert_eq!(codings(&[value]), Err(UnsupportedCoding(named.to_owned())));
        }
        let long = codings(&[&format!("a b{}", "x".repeat(100))]).expect_err("unknown");
        assert_eq!(long.0, format!("a?b{}", "x".repeat(29)));
    }

    #[test]
    fn several_codings_are_taken_off_in_reverse() {
        let body = gzip(&zlib(b"hello"));
        assert_eq!(decode("deflate, gzip", &body, 100).as_deref(), Ok(&b"hello"[..]));
        assert_eq!(decode("gzip, deflate", &body, 100), Err(DecodeError::Broken));
    }

    #[test]
    fn no_body_has_no_coding() {
        assert_eq!(decode("gzip", b"", 100), Ok(Vec::new()));
        assert_eq!(decode("gzip", &gzip(b""), 100), Ok(Vec::new()));
        assert_eq!(decode("deflate", &zlib(b""), 100), Ok(Vec::new()));
    }

    #[test]
    fn gzip_may_have_several_members_but_not_any_number() {
        let members = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
        assert_eq!(decode("gzip", &members, 100).as_deref(), Ok(&b"one two"[..]));
        assert_eq!(decode("gzip", &gzip(b"a").repeat(64), 100).map(|body| body.len()), Ok(64));
        assert_eq!(decode("gzip", &gzip(b"a").repeat(65), 100), Err(DecodeError::Broken));
    }

    #[test]
    fn memory_is_asked_for_before_it_is_taken() {
        let body = zlib(&vec![b'x'; 100_000]);
        let codings = codings(&["deflate"]).expect("known").expect("a coding");
        let mut granted = 0;
        let decoded = codings.decode(&body, 1 << 20, |bytes| {
            granted += bytes;
            true
        });
        let capacity = decoded.expect("a body").capacity();
        assert!(granted == capacity && granted < 300_000, "{granted} for {capacity}");
        assert_eq!(codings.decode(&body, 1 << 20, |bytes| bytes < 5000), Err(DecodeError::NoMemory));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_up_to_the_limit(
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 1..5000),
                (any::<u8>(), 1usize..200_000).prop_map(|(byte, length)| vec![byte; length]),
            ],
        ) {
            for (coding, encoded) in [("gzip", gzip(&body)), ("deflate", zlib(&body)), ("deflate", raw_deflate(&body))] {
                prop_assert_eq!(decode(coding, &encoded, body.len()), Ok(body.clone()));
                prop_assert_eq!(decode(coding, &encoded, body.len() + 1), Ok(body.clone()));
                prop_assert_eq!(decode(coding, &encoded, body.len() - 1), Err(DecodeError::TooLarge));
            }
        }

        #[test]
        fn a_body_that_ends_early_or_goes_on_is_broken(body in prop::collection::vec(any::<u8>(), 0..300), cut in any::<prop::sample::Index>()) {
            for (coding, encoded) in [("gzip", gzip(&body)), ("deflate", zlib(&body)), ("deflate", raw_deflate(&body))] {
                let cut = 1 + cut.index(encoded.len() - 1);
                prop_assert_eq!(decode(coding, &encoded[..cut], 1000), Err(DecodeError::Broken), "{} {}", coding, cut);
                let longer = [&encoded[..], b"{}"].concat();
                prop_assert_eq!(decode(coding, &longer, 1000), Err(DecodeError::Broken));
            }
        }

        #[test]
        fn any_bytes_are_decoded_or_refused_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            for coding in ["gzip", "deflate", "deflate, gzip"] {
                prop_assert!(decode(coding, &body, 1000).map_or(true, |decoded| decoded.len() <= 1000));
            }
        }
    }
}
