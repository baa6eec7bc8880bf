//! Finds the signatures in a request: one value or a list, each with its prefix, decoded strictly into a buffer.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use grapnel_crds::{Separator, SignatureEncoding, SignatureSource};
use http::HeaderName;

use super::{Incoming, Place, Refused, SchemeError, wrong};

/// The longest signature of any scheme, in bytes, with room.
pub(super) const LONGEST: usize = 96;

/// More candidates than any provider sends. Each costs a comparison, or an operation with a public key.
const MOST: usize = 32;

/// How bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Either case is read.
    Hex,
    /// Standard alphabet, padded.
    Base64,
}

impl Encoding {
    pub(super) fn of(encoding: Option<SignatureEncoding>) -> Self {
        match encoding {
            Some(SignatureEncoding::Base64) => Self::Base64,
            Some(SignatureEncoding::Hex) | None => Self::Hex,
        }
    }

    /// The bytes, when the text is exactly their encoding.
    pub(super) fn decode<'a>(self, text: &[u8], buffer: &'a mut [u8; LONGEST]) -> Option<&'a [u8]> {
        let length = match self {
            Self::Hex => {
                let length = text.len() / 2;
                hex::decode_to_slice(text, buffer.get_mut(..length)?).ok()?;
                length
            }
            Self::Base64 => STANDARD.decode_slice(text, buffer).ok()?,
        };
        (length > 0).then(|| &buffer[..length])
    }
}

/// Where signatures are and how they are written.
#[derive(Debug)]
pub(super) struct Signatures {
    from: From,
    separator: Option<u8>,
    field: Option<Vec<u8>>,
    prefix: Vec<u8>,
    prefix_optional: bool,
    encoding: Encoding,
}

#[derive(Debug)]
enum From {
    Place(Place),
    /// All headers whose names begin so.
    HeaderPrefix(String),
}

/// The values that hold signatures.
pub(super) enum Lines<'a> {
    One(Cow<'a, [u8]>),
    Many(Vec<Cow<'a, [u8]>>),
}

impl<'a> Lines<'a> {
    fn as_slice(&self) -> &[Cow<'a, [u8]>] {
        match self {
            Self::One(line) => std::slice::from_ref(line),
            Self::Many(lines) => lines,
        }
    }
}

impl Signatures {
    pub(super) fn new(source: Option<&SignatureSource>) -> Result<Self, SchemeError> {
        let source = source.ok_or_else(|| wrong("signature", "must have from"))?;
        let text = source.from.as_deref().ok_or_else(|| wrong("signature", "must have from"))?;
        let from = match text.strip_prefix("headerPrefix:") {
            Some(prefix) if !prefix.is_empty() => From::HeaderPrefix(prefix.to_ascii_lowercase()),
            _ => From::Place(Place::parse(text).ok_or_else(|| wrong("signature.from", "names no place"))?),
        };
        Ok(Self {
            from,
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
            prefix: source.prefix.clone().unwrap_or_default().into_bytes(),
            prefix_optional: source.prefix_optional.unwrap_or(false),
            encoding: Encoding::of(source.encoding),
        })
    }

    pub(super) fn is_list(&self) -> bool {
        self.separator.is_some()
    }

    pub(super) fn header(&self) -> Option<&HeaderName> {
        match &self.from {
            From::Place(Place::Header(name)) => Some(name),
            From::Place(_) | From::HeaderPrefix(_) => None,
        }
    }

    pub(super) fn place(&self) -> Option<&Place> {
        match &self.from {
            From::Place(place) => Some(place),
            From::HeaderPrefix(_) => None,
        }
    }

    /// The values that are there. A header that stands twice is one list only when lists are joined by commas.
    pub(super) fn lines<'a>(&self, incoming: &Incoming<'a>) -> Result<Lines<'a>, Refused> {
        let place = match &self.from {
            From::Place(place) => place,
            From::HeaderPrefix(prefix) => {
                let named =
                    incoming.headers.iter().filter(|(name, _)| name.as_str().starts_with(prefix.as_str()));
                let lines: Vec<_> = named.map(|(_, value)| Cow::Borrowed(value.as_bytes())).collect();
                if lines.is_empty() {
                    return Err(Refused::Missing(format!("a header that begins with {prefix}")));
                }
                return Ok(Lines::Many(lines));
            }
        };
        let missing = || Refused::Missing(place.describe());
        let Place::Header(name) = place else {
            return place.find(incoming).map(Lines::One).ok_or_else(missing);
        };
        let mut values = incoming.headers.get_all(name).iter();
        let first = values.next().ok_or_else(missing)?;
        match (values.next(), self.separator) {
            (None, _) => Ok(Lines::One(Cow::Borrowed(first.as_bytes()))),
            (Some(_), Some(b',')) => {
                let all = incoming.headers.get_all(name).iter();
                Ok(Lines::Many(all.map(|value| Cow::Borrowed(value.as_bytes())).collect()))
            }
            // Two values are two claims; which one counts would be a matter of taste.
            (Some(_), _) => Err(Refused::Repeated(place.describe())),
        }
    }

    /// The items of the list, in order.
    fn items<'a>(&'a self, lines: &'a Lines<'_>) -> impl Iterator<Item = &'a [u8]> {
        lines.as_slice().iter().flat_map(move |line| {
            let separator = self.separator;
            line.split(move |byte| Some(*byte) == separator)
                .map(move |item| if separator.is_some() { item.trim_ascii() } else { item })
        })
    }

    /// The text of each candidate: what follows the key and the prefix.
    pub(super) fn each_text(&self, lines: &Lines<'_>, mut seen: impl FnMut(&[u8])) {
        for text in self.items(lines).filter_map(|item| self.text_of(item)).take(MOST) {
            seen(text);
        }
    }

    fn text_of<'a>(&self, item: &'a [u8]) -> Option<&'a [u8]> {
        let item = match &self.field {
            Some(field) => item.strip_prefix(field.as_slice())?.strip_prefix(b"=")?,
            None => item,
        };
        match item.strip_prefix(self.prefix.as_slice()) {
            Some(text) => Some(text),
            None => self.prefix_optional.then_some(item),
        }
    }

    /// Whether any candidate that decodes is accepted.
    pub(super) fn any(&self, lines: &Lines<'_>, accepts: impl Fn(&[u8]) -> bool) -> bool {
        let mut texts = self.items(lines).filter_map(|item| self.text_of(item)).take(MOST);
        texts.any(|text| {
            let mut buffer = [0; LONGEST];
            self.encoding.decode(text, &mut buffer).is_some_and(&accepts)
        })
    }

    /// The value of the first item with this key.
    pub(super) fn field<'a>(&self, lines: &'a Lines<'_>, key: &[u8]) -> Option<&'a [u8]> {
        lines.as_slice().iter().find_map(|line| {
            let mut items = line.split(|byte| Some(*byte) == self.separator).map(<[u8]>::trim_ascii);
            items.find_map(|item| item.strip_prefix(key)?.strip_prefix(b"="))
        })
    }

    /// The item at this place of the list.
    pub(super) fn item<'a>(&self, lines: &'a Lines<'_>, index: usize) -> Option<&'a [u8]> {
        let line = lines.as_slice().first()?;
        line.split(|byte| Some(*byte) == self.separator).map(<[u8]>::trim_ascii).nth(index)
    }
}
