//! The source of a value in a request: a header, a parameter of the query or of a form, or a member of a JSON body.
//!
//! A repeated header, query parameter or form field is treated as missing: picking one of its values would be arbitrary.

use std::borrow::Cow;

use http::HeaderName;
use serde_json::value::RawValue;

use super::json::{self, JsonDocument, Pointer};
use super::{IncomingRequest, form};

/// Where a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Header(HeaderName),
    Query(String),
    Form(String),
    Json(Pointer),
}

impl Source {
    /// Parses `header:…`, `query:…`, `form:…` or `json:/…`; `None` for any other text.
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

    /// Returns the value, if there is exactly one.
    pub fn value<'a>(&self, request: &IncomingRequest<'a>) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Header(name) => {
                let mut values = request.headers.get_all(name).iter();
                let value = values.next()?;
                values.next().is_none().then(|| Cow::Borrowed(value.as_bytes()))
            }
            Self::Query(name) => form::value(request.uri.query()?.as_bytes(), name).map(into_bytes),
            Self::Form(name) => form::value(request.form_fields(), name).map(into_bytes),
            Self::Json(pointer) => json::scalar(member(request, pointer)?).map(into_bytes),
        }
    }

    /// Whether the request has anything there: a value of any kind, or several.
    pub fn is_present(&self, request: &IncomingRequest<'_>) -> bool {
        match self {
            Self::Header(name) => request.headers.contains_key(name),
            Self::Query(name) => {
                request.uri.query().is_some_and(|query| form::contains(query.as_bytes(), name))
            }
            Self::Form(name) => form::contains(request.form_fields(), name),
            Self::Json(pointer) => member(request, pointer).is_some(),
        }
    }

    /// The pointer to a member of a JSON body.
    pub fn pointer(&self) -> Option<&Pointer> {
        match self {
            Self::Json(pointer) => Some(pointer),
            Self::Header(_) | Self::Query(_) | Self::Form(_) => None,
        }
    }

    /// Describes the source for an error message.
    pub fn describe(&self) -> String {
        match self {
            Self::Header(name) => format!("the header {name}"),
            Self::Query(name) => format!("the query parameter {name}"),
            Self::Form(name) => format!("the form field {name}"),
            Self::Json(pointer) => pointer.field.clone(),
        }
    }
}

fn member<'a>(request: &IncomingRequest<'a>, pointer: &Pointer) -> Option<&'a RawValue> {
    match request.json.and_then(|found| found.get(pointer)) {
        Some(value) => value,
        None => JsonDocument::parse(request.body).ok()?.find(pointer),
    }
}

fn into_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}
