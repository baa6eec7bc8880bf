//! Query strings, read strictly: an unknown name, a repeated name and an invalid value are each a 400 that names the
//! parameter. Nothing is ignored, so a misspelt filter never shows everything.

use std::borrow::Cow;
use std::num::NonZeroU32;

use jiff::Timestamp;
use utoipa::IntoParams;
use uuid::Uuid;

use super::cursor::{self, ListOrder};
use crate::http::envelope::ApiError;
use grapnel_store::views::{IntegrationRef, PageRequest, Start, TOTAL_CAP};

const DEFAULT_PAGE_SIZE: u32 = 20;
pub(super) const MAX_PAGE_SIZE: u32 = 100;

/// Characters of the name of an object.
const MAX_OBJECT_NAME: usize = 253;

/// The parameters that all lists share.
pub(super) const PAGING: [&str; 3] = ["page", "pageSize", "cursor"];

/// The description of [`PAGING`].
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
#[expect(dead_code, reason = "only described, never made")]
pub(super) struct PagingParameters {
    /// The number of the page, from 1. Items beyond the 10,000th have no page: go on with `cursor`.
    #[param(minimum = 1)]
    page: Option<u32>,
    /// Items of a page; 20 by default.
    #[param(minimum = 1, maximum = 100)]
    page_size: Option<u32>,
    /// `meta.nextCursor` of the page before, with the same filters and order; not together with `page`.
    #[param(min_length = 39, max_length = 39, pattern = "^[A-Za-z0-9_-]{39}$")]
    cursor: Option<String>,
}

/// The parameters of a request, each name known and given once.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// `names` are those that the route has in addition to [`PAGING`].
    pub(super) fn of_list(raw: Option<&'a str>, names: &[&str]) -> Result<Self, ApiError> {
        Self::parse(raw.unwrap_or_default(), |name| names.contains(&name) || PAGING.contains(&name))
    }

    /// For routes that are no lists; `names` are all that they have.
    pub(super) fn of_item(raw: Option<&'a str>, names: &[&str]) -> Result<Self, ApiError> {
        Self::parse(raw.unwrap_or_default(), |name| names.contains(&name))
    }

    /// For routes without parameters.
    pub(super) fn none(raw: Option<&'a str>) -> Result<(), ApiError> {
        Self::parse(raw.unwrap_or_default(), |_| false).map(|_| ())
    }

    fn parse(raw: &'a str, knows: impl Fn(&str) -> bool) -> Result<Self, ApiError> {
        let mut parameters: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or_else(|| ApiError::invalid(name, "is not UTF-8"))?;
            if !knows(&name) {
                return Err(ApiError::invalid(&name, "is not a parameter of this route"));
            }
            if parameters.iter().any(|(known, _)| *known == name) {
                return Err(ApiError::invalid(&name, "must be given once"));
            }
            let value = decode(value).ok_or_else(|| ApiError::invalid(&name, "is not UTF-8"))?;
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// Text of 1 to `max_chars` characters.
    pub(super) fn text(&self, name: &str, max_chars: usize) -> Result<Option<String>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        if value.is_empty() || value.chars().count() > max_chars {
            return Err(ApiError::invalid(name, format!("must have 1 to {max_chars} characters")));
        }
        if value.contains('\0') {
            return Err(ApiError::invalid(name, "must not contain U+0000"));
        }
        Ok(Some(value.to_owned()))
    }

    /// One of the given words.
    pub(super) fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match choices.iter().find(|(word, _)| *word == value) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
                Err(ApiError::invalid(name, format!("must be one of {}", words.join(", "))))
            }
        }
    }

    pub(super) fn uuid(&self, name: &str) -> Result<Option<Uuid>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        parse_uuid(value).map(Some).ok_or_else(|| ApiError::invalid(name, "must be a UUID"))
    }

    /// An integration: its id, or `namespace/name`.
    pub(super) fn integration(&self, name: &str) -> Result<Option<IntegrationRef>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let invalid = || ApiError::invalid(name, "must be the id of an integration, or namespace/name");
        parse_integration(value).map(Some).ok_or_else(invalid)
    }

    /// The status of an HTTP answer.
    pub(super) fn http_status(&self, name: &str) -> Result<Option<i16>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let status = value.parse().ok().filter(|status| value.len() == 3 && (100..=599).contains(status));
        status.map(Some).ok_or_else(|| ApiError::invalid(name, "must be an HTTP status from 100 to 599"))
    }

    /// Returns the first of the names that is given.
    pub(super) fn first_of<'n>(&self, names: &[&'n str]) -> Option<&'n str> {
        names.iter().copied().find(|name| self.get(name).is_some())
    }

    /// An RFC 3339 time.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        parse_time(value).map(Some).ok_or_else(|| {
            ApiError::invalid(
                name,
                "must be an RFC 3339 time such as 2026-01-31T09:30:00Z (a + is written as %2B)",
            )
        })
    }

    fn number(&self, name: &str, max: u32) -> Result<Option<NonZeroU32>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let number = value.parse().ok().filter(|number: &NonZeroU32| digits && number.get() <= max);
        number
            .map(Some)
            .ok_or_else(|| ApiError::invalid(name, format!("must be a whole number from 1 to {max}")))
    }

    /// Reads the page of a search. Behind a parameter without an index (`walked`) only a cursor goes on: a page by number would be walked to from
    /// the front each time.
    pub(super) fn page_of_search(
        &self,
        order: ListOrder,
        walked: Option<&str>,
    ) -> Result<PageRequest, ApiError> {
        let request = self.page(order)?;
        match (walked, request.start) {
            (Some(walked), Start::Page(page)) if page > NonZeroU32::MIN => {
                let reason =
                    format!("cannot be above 1 with {walked}, which has no index: go on with cursor");
                Err(ApiError::invalid("page", reason))
            }
            _ => Ok(request),
        }
    }

    /// Reads the page that is asked for, of a list in this order.
    pub(super) fn page(&self, order: ListOrder) -> Result<PageRequest, ApiError> {
        let size = self.number("pageSize", MAX_PAGE_SIZE)?.map_or(DEFAULT_PAGE_SIZE, NonZeroU32::get);
        let page = self.number("page", u32::MAX)?;
        let start = match self.get("cursor") {
            Some(_) if page.is_some() => {
                return Err(ApiError::invalid("cursor", "cannot be combined with page"));
            }
            Some(text) => {
                let (position, page) = cursor::decode(text, order).ok_or_else(|| {
                    ApiError::invalid("cursor", "is not a nextCursor of a list in this order")
                })?;
                Start::After { position, page }
            }
            None => Start::Page(page.unwrap_or(NonZeroU32::MIN)),
        };
        if let Start::Page(page) = start
            && u64::from(page.get() - 1) * u64::from(size) > u64::from(TOTAL_CAP)
        {
            let reason = format!("is more than {TOTAL_CAP} items into the list: go on with cursor instead");
            return Err(ApiError::invalid("page", reason));
        }
        Ok(PageRequest { start, size })
    }
}

/// Decodes form encoding: `+` is a space, `%` and two hexadecimal digits a byte. Returns `None` when it is not UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['+', '%']) {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        let escaped = match tail {
            [high, low, ..] if *byte == b'%' => hex_byte(*high, *low),
            _ => None,
        };
        match escaped {
            Some(escaped) => {
                decoded.push(escaped);
                rest = &tail[2..];
            }
            None => {
                decoded.push(if *byte == b'+' { b' ' } else { *byte });
                rest = tail;
            }
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Reads an integration: its id, or `namespace/name`.
pub(super) fn parse_integration(text: &str) -> Option<IntegrationRef> {
    if let Some(id) = parse_uuid(text) {
        return Some(IntegrationRef::Id(id));
    }
    let is_name = |text: &str| {
        !text.is_empty()
            && text.len() <= MAX_OBJECT_NAME
            && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
    };
    match text.split_once('/') {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => {
            Some(IntegrationRef::Name { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => None,
    }
}

/// The form with hyphens, in either case; no other form that the library would take.
pub(super) fn parse_uuid(text: &str) -> Option<Uuid> {
    if text.len() == 36 { Uuid::try_parse(text).ok() } else { None }
}

/// RFC 3339 and nothing else of what the library would take, such as a space for the T or a zone in brackets.
fn parse_time(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let matches = |(byte, form): (&u8, &u8)| match form {
        b'd' => byte.is_ascii_digit(),
        form => byte.eq_ignore_ascii_case(form),
    };
    if bytes.len() <= shape.len() || !bytes.iter().zip(shape).all(matches) {
        return None;
    }
    let mut rest = &bytes[shape.len()..];
    if let [b'.', fraction @ ..] = rest {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        rest = &fraction[digits..];
    }
    let is_offset = match rest {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', a, b, b':', c, d] => [a, b, c, d].iter().all(|byte| byte.is_ascii_digit()),
        _ => false,
    };
    if is_offset { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(raw: &str) -> Option<String> {
        Query::of_list(Some(raw), &["provider", "status"]).err().map(|error| format!("{error:?}"))
    }

    #[test]
    fn unknown_and_repeated_names_are_refused() {
        assert!(refused("provider=acme&status=failed&page=1").is_none());
        assert!(refused("").is_none());
        assert!(refused("&&provider=acme&").is_none());
        assert!(refused("Provider=acme").unwrap().contains("Provider"));
        assert!(refused("provider=a&provider=a").unwrap().contains("once"));
        assert!(refused("provider=a&%70rovider=a").unwrap().contains("once"));
        assert!(refused("provider=%ff").unwrap().contains("UTF-8"));
        assert!(refused("%ff=1").unwrap().contains("UTF-8"));
        assert!(Query::none(Some("page=1")).is_err());
        assert!(Query::none(None).is_ok());
    }

    #[test]
    fn values_are_decoded_as_forms_are() {
        let value = |raw| decode(raw).map(Cow::into_owned);
        assert_eq!(value("a+b%20c%2Bd").as_deref(), Some("a b c+d"));
        assert_eq!(value("%c3%A9%").as_deref(), Some("é%"));
        assert_eq!(value("%zz%1").as_deref(), Some("%zz%1"));
        assert_eq!(value("%c3"), None);
    }

    #[test]
    fn only_rfc_3339_is_a_time() {
        for good in [
            "2026-01-31T09:30:00Z",
            "2026-01-31t09:30:00z",
            "2026-01-31T09:30:00.123456789+05:30",
            "2026-06-30T23:59:60Z",
        ] {
            assert!(parse_time(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "2026-01-31",
            "2026-01-31T09:30:00",
            "2026-01-31 09:30:00Z",
            "2026-01-31T09:30:00.Z",
            "2026-01-31T09:30:00+0100",
            "2026-01-31T09:30:00+01",
            "2026-01-31T09:30:00Z[UTC]",
            "2026-02-30T09:30:00Z",
            "+02026-01-31T09:30:00Z",
            "2026-01-31T09:30:00 01:00",
        ] {
            assert!(parse_time(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn pages_are_bounded() {
        let page = |raw: &str| Query::of_list(Some(raw), &[]).unwrap().page(ListOrder::Attempts);
        assert_eq!(page("").unwrap(), PageRequest { start: Start::Page(NonZeroU32::MIN), size: 20 });
        assert!(page("page=101&pageSize=100").is_ok());
        assert!(page("page=10001&pageSize=1").is_ok());
        for bad in [
            "page=0",
            "page=-1",
            "page=",
            "page=1.0",
            "page=%2B1",
            "page=4294967296",
            "page=x",
            "pageSize=0",
            "pageSize=101",
            "page=102&pageSize=100",
            "page=4294967295&pageSize=100",
            "page=10002&pageSize=1",
            "cursor=",
            "cursor=abc",
        ] {
            assert!(page(bad).is_err(), "{bad}");
        }
    }
}
