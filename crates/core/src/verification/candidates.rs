//! Finds the candidate signatures of a request: one value or a list, each with its prefix, decoded strictly into a buffer.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use grapnel_crds::{Separator, SignatureEncoding, SignatureSource};
use http::HeaderName;
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};

use super::error::{SchemeError, UNKNOWN_SOURCE, VerifyError, invalid};
use crate::request::{IncomingRequest, Source};

/// Padding adds nothing to a signature, and some senders leave it out.
const SIGNATURE_CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, SIGNATURE_CONFIG);
const BASE64URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, SIGNATURE_CONFIG);

/// More than the longest signature of any scheme has, in bytes.
pub(super) const MAX_SIGNATURE_BYTES: usize = 96;

/// More candidates than any provider sends. Each costs a comparison, or an operation with a public key.
const MAX_CANDIDATES: usize = 32;

/// The encoding of bytes as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// In either case.
    Hex,
    /// With the standard alphabet or the one for URLs, with or without padding.
    Base64,
}

impl Encoding {
    pub(super) fn of(encoding: Option<SignatureEncoding>) -> Self {
        match encoding {
            Some(SignatureEncoding::Base64) => Self::Base64,
            Some(SignatureEncoding::Hex) | None => Self::Hex,
        }
    }

    /// Decodes the text; `None` if it is not exactly the encoding of some bytes.
    pub(super) fn decode<'a>(
        self,
        text: &[u8],
        buffer: &'a mut [u8; MAX_SIGNATURE_BYTES],
    ) -> Option<&'a [u8]> {
        let length = match self {
            Self::Hex => {
                let length = text.len() / 2;
                hex::decode_to_slice(text, buffer.get_mut(..length)?).ok()?;
                length
            }
            Self::Base64 => {
                let is_for_urls = text.iter().any(|byte| matches!(byte, b'-' | b'_'));
                let alphabet = if is_for_urls { &BASE64URL } else { &BASE64 };
                alphabet.decode_slice(text, buffer).ok()?
            }
        };
        (length > 0).then(|| &buffer[..length])
    }
}

/// Where candidate signatures are, and how they are written.
#[derive(Debug)]
pub(super) struct SignatureFormat {
    from: SignatureLocation,
    separator: Option<u8>,
    field: Option<Vec<u8>>,
    prefix: Vec<u8>,
    prefix_optional: bool,
    /// The prefix is an authentication scheme, whose case has no meaning (RFC 9110, section 11.1).
    is_prefix_scheme: bool,
    encoding: Encoding,
}

#[derive(Debug)]
enum SignatureLocation {
    Source(Source),
    /// All headers whose names begin with this.
    HeaderPrefix(String),
}

/// The values of a request that hold signatures; most often they are headers.
pub(super) enum SignatureValues<'a> {
    One(Cow<'a, [u8]>),
    Many(Vec<Cow<'a, [u8]>>),
}

impl<'a> SignatureValues<'a> {
    fn as_slice(&self) -> &[Cow<'a, [u8]>] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

impl SignatureFormat {
    pub(super) fn new(source: Option<&SignatureSource>) -> Result<Self, SchemeError> {
        let source = source.ok_or_else(|| invalid("signature", "must have from"))?;
        let text = source.from.as_deref().ok_or_else(|| invalid("signature", "must have from"))?;
        let from = match text.strip_prefix("headerPrefix:") {
            Some(prefix) if !prefix.is_empty() => {
                SignatureLocation::HeaderPrefix(prefix.to_ascii_lowercase())
            }
            _ => SignatureLocation::Source(
                Source::parse(text).ok_or_else(|| invalid("signature.from", UNKNOWN_SOURCE))?,
            ),
        };
        let prefix = source.prefix.clone().unwrap_or_default();
        let is_authorization = matches!(&from, SignatureLocation::Source(Source::Header(name))
            if *name == AUTHORIZATION || *name == PROXY_AUTHORIZATION);
        Ok(Self {
            from,
            is_prefix_scheme: is_authorization && prefix.ends_with(' '),
            separator: match source.separator {
                None | Some(Separator::None) => None,
                Some(Separator::Comma) => Some(b','),
                Some(Separator::Semicolon) => Some(b';'),
                Some(Separator::Space) => Some(b' '),
            },
            field: source
                .field
                .as_ref()
                .filter(|field| !field.is_empty())
                .map(|field| field.clone().into_bytes()),
            prefix: prefix.into_bytes(),
            prefix_optional: source.prefix_optional.unwrap_or(false),
            encoding: Encoding::of(source.encoding),
        })
    }

    pub(super) fn is_list(&self) -> bool {
        self.separator.is_some()
    }

    /// Whether values are taken from this header.
    pub(super) fn is_in_header(&self, name: &HeaderName) -> bool {
        match &self.from {
            SignatureLocation::Source(Source::Header(header)) => header == name,
            SignatureLocation::Source(_) => false,
            SignatureLocation::HeaderPrefix(prefix) => name.as_str().starts_with(prefix.as_str()),
        }
    }

    pub(super) fn source(&self) -> Option<&Source> {
        match &self.from {
            SignatureLocation::Source(source) => Some(source),
            SignatureLocation::HeaderPrefix(_) => None,
        }
    }

    /// Returns the values that the request has. A repeated header is one list only if items are separated by commas.
    pub(super) fn values<'a>(
        &self,
        request: &IncomingRequest<'a>,
    ) -> Result<SignatureValues<'a>, VerifyError> {
        let source = match &self.from {
            SignatureLocation::Source(source) => source,
            SignatureLocation::HeaderPrefix(prefix) => {
                let named =
                    request.headers.iter().filter(|(name, _)| name.as_str().starts_with(prefix.as_str()));
                let values: Vec<_> = named.map(|(_, value)| Cow::Borrowed(value.as_bytes())).collect();
                if values.is_empty() {
                    return Err(VerifyError::Missing(format!("a header that begins with {prefix}")));
                }
                return Ok(SignatureValues::Many(values));
            }
        };
        let missing = || VerifyError::Missing(source.describe());
        let Source::Header(name) = source else {
            return source.value(request).map(SignatureValues::One).ok_or_else(missing);
        };
        let mut values = request.headers.get_all(name).iter();
        let first = values.next().ok_or_else(missing)?;
        match (values.next(), self.separator) {
            (None, _) => Ok(SignatureValues::One(Cow::Borrowed(first.as_bytes()))),
            (Some(_), Some(b',')) => {
                let all = request.headers.get_all(name).iter();
                Ok(SignatureValues::Many(all.map(|value| Cow::Borrowed(value.as_bytes())).collect()))
            }
            // Two values are two claims, and picking one would be arbitrary.
            (Some(_), _) => Err(VerifyError::Repeated(source.describe())),
        }
    }

    /// The items of the list, in order.
    fn items<'a>(&'a self, values: &'a SignatureValues<'_>) -> impl Iterator<Item = &'a [u8]> {
        values.as_slice().iter().flat_map(move |value| {
            let separator = self.separator;
            value
                .split(move |byte| Some(*byte) == separator)
                .map(move |item| if separator.is_some() { item.trim_ascii() } else { item })
        })
    }

    /// Calls `visit` with the text of each candidate: the part after the key and the prefix.
    pub(super) fn for_each_text(&self, values: &SignatureValues<'_>, mut visit: impl FnMut(&[u8])) {
        for text in self.items(values).filter_map(|item| self.text_of(item)).take(MAX_CANDIDATES) {
            visit(text);
        }
    }

    fn text_of<'a>(&self, item: &'a [u8]) -> Option<&'a [u8]> {
        let item = match &self.field {
            Some(field) => item.strip_prefix(field.as_slice())?.strip_prefix(b"=")?,
            None => item,
        };
        if self.is_prefix_scheme
            && let Some((scheme, text)) = item.split_at_checked(self.prefix.len())
            && scheme.eq_ignore_ascii_case(&self.prefix)
        {
            return Some(text.trim_ascii_start());
        }
        match item.strip_prefix(self.prefix.as_slice()) {
            Some(text) => Some(text),
            None => self.prefix_optional.then_some(item),
        }
    }

    /// Whether `accepts` holds for any candidate that can be decoded.
    pub(super) fn any(&self, values: &SignatureValues<'_>, accepts: impl Fn(&[u8]) -> bool) -> bool {
        let mut texts = self.items(values).filter_map(|item| self.text_of(item)).take(MAX_CANDIDATES);
        texts.any(|text| {
            let mut buffer = [0; MAX_SIGNATURE_BYTES];
            self.encoding.decode(text, &mut buffer).is_some_and(&accepts)
        })
    }

    /// Returns the value of the first item with this key.
    pub(super) fn field<'a>(&self, values: &'a SignatureValues<'_>, key: &[u8]) -> Option<&'a [u8]> {
        values.as_slice().iter().find_map(|value| {
            let mut items = value.split(|byte| Some(*byte) == self.separator).map(<[u8]>::trim_ascii);
            items.find_map(|item| item.strip_prefix(key)?.strip_prefix(b"="))
        })
    }

    /// Returns the item at this index of the list.
    pub(super) fn item<'a>(&self, values: &'a SignatureValues<'_>, index: usize) -> Option<&'a [u8]> {
        let value = values.as_slice().first()?;
        value.split(|byte| Some(*byte) == self.separator).map(<[u8]>::trim_ascii).nth(index)
    }
}
