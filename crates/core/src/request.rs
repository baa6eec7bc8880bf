//! A place in a request where a value is: a header, a parameter of the query or of a form, or a member of a JSON body.
//!
//! A value that stands twice in headers, query or form is no value: which one counts would be a matter of taste.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method, Uri};
use serde_json::value::RawValue;

use json::{Document, Found, Pointer};

pub mod json;
pub mod template;

/// A request as it was received.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    pub method: &'a Method,
    /// The path and the query as they came.
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    /// What stands before the path in the URL that providers call, without a slash at its end.
    pub public_url: Option<&'a str>,
    /// Values of the body that were looked up together; others are when they are asked for.
    pub json: Option<&'a Found<'a>>,
}

/// Where a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Header(HeaderName),
    Query(String),
    Form(String),
    Json(Pointer),
}

impl Place {
    /// `None` when the text names no place.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        match kind {
            "header" => HeaderName::try_from(name).ok().map(Self::Header),
            "query" if !name.is_empty() => Some(Self::Query(name.to_owned())),
            "form" if !name.is_empty() => Some(Self::Form(name.to_owned())),
            "json" => Pointer::parse(name).filter(|pointer| !pointer.is_whole()).map(Self::Json),
            _ => None,
        }
    }

    /// The value there, if there is exactly one.
    pub fn find<'a>(&self, incoming: &Incoming<'a>) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Header(name) => {
                let mut values = incoming.headers.get_all(name).iter();
                let value = values.next()?;
                values.next().is_none().then(|| Cow::Borrowed(value.as_bytes()))
            }
            Self::Query(name) => parameter(incoming.uri.query()?.as_bytes(), name),
            Self::Form(name) => parameter(incoming.body, name),
            Self::Json(pointer) => json::scalar(member(incoming, pointer)?).map(|text| match text {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            }),
        }
    }

    /// Whether anything is there: a value, of whatever kind, or several.
    pub fn is_there(&self, incoming: &Incoming<'_>) -> bool {
        let named =
            |encoded: &[u8], name: &str| url::form_urlencoded::parse(encoded).any(|(known, _)| known == name);
        match self {
            Self::Header(name) => incoming.headers.contains_key(name),
            Self::Query(name) => incoming.uri.query().is_some_and(|query| named(query.as_bytes(), name)),
            Self::Form(name) => named(incoming.body, name),
            Self::Json(pointer) => member(incoming, pointer).is_some(),
        }
    }

    /// The pointer of a member of a JSON body.
    pub fn pointer(&self) -> Option<&Pointer> {
        match self {
            Self::Json(pointer) => Some(pointer),
            Self::Header(_) | Self::Query(_) | Self::Form(_) => None,
        }
    }

    /// In the words of an error.
    pub fn describe(&self) -> String {
        match self {
            Self::Header(name) => format!("the header {name}"),
            Self::Query(name) => format!("the query parameter {name}"),
            Self::Form(name) => format!("the form field {name}"),
            Self::Json(pointer) => pointer.field.clone(),
        }
    }
}

fn member<'a>(incoming: &Incoming<'a>, pointer: &Pointer) -> Option<&'a RawValue> {
    match incoming.json.and_then(|found| found.get(pointer)) {
        Some(found) => found,
        None => Document::parse(incoming.body).ok()?.find(pointer),
    }
}

/// The decoded parameter of that name, if there is exactly one.
fn parameter<'a>(encoded: &'a [u8], name: &str) -> Option<Cow<'a, [u8]>> {
    let mut values = url::form_urlencoded::parse(encoded).filter(|(known, _)| known == name);
    let (_, value) = values.next()?;
    if values.next().is_some() {
        return None;
    }
    Some(match value {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    })
}
