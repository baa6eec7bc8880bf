//! The value of a placeholder: a part of the request, or a computation over several.

use super::{Mac, TemplateContext};
use crate::request::content_type::ContentType;
use crate::request::{IncomingRequest, Source, form};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Body,
    Timestamp,
    Method,
    Url,
    Secret,
    SortedForm,
    Source(Source),
    /// The integration's MAC over the joined values.
    Hmac(Vec<Source>),
    /// The integration's signature over the joined values.
    Sign(Vec<Source>),
}

impl Value {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let sources = |list: &str| list.split('+').map(Source::parse).collect::<Option<Vec<_>>>();
        Some(match name {
            "body" => Self::Body,
            "timestamp" => Self::Timestamp,
            "method" => Self::Method,
            "url" => Self::Url,
            "secret" => Self::Secret,
            "form:sorted" => Self::SortedForm,
            _ => match name.split_once(':') {
                Some(("hmac", list)) => Self::Hmac(sources(list)?),
                Some(("sign", list)) => Self::Sign(sources(list)?),
                _ => Self::Source(Source::parse(name)?),
            },
        })
    }

    pub(super) fn write(&self, context: &TemplateContext<'_>, mac: &dyn Mac, sink: &mut dyn FnMut(&[u8])) {
        let request = &context.request;
        let values = |sources: &[Source]| {
            sources.iter().map(|source| source.value(request).unwrap_or_default()).collect::<Vec<_>>()
        };
        match self {
            Self::Body => sink(request.signed_body()),
            Self::Timestamp => sink(context.timestamp),
            Self::Method => sink(request.method.as_str().as_bytes()),
            Self::Secret => context.secret.feed(sink),
            Self::Url => context.url.write(request, sink),
            Self::SortedForm => write_sorted_form(request, sink),
            Self::Source(source) => sink(&source.value(request).unwrap_or_default()),
            Self::Hmac(sources) => sink(&mac.hmac(&values(sources))),
            Self::Sign(sources) => sink(&mac.sign(&values(sources))),
        }
    }
}

/// Writes each name followed by its value, sorted by name; a repeated name has its distinct values, sorted.
fn write_sorted_form(request: &IncomingRequest<'_>, sink: &mut dyn FnMut(&[u8])) {
    if !ContentType::of(request.headers).is_form() {
        return;
    }
    let mut fields: Vec<_> = form::fields(request.body).collect();
    fields.sort_unstable();
    fields.dedup();
    for (name, value) in &fields {
        sink(name.as_bytes());
        sink(value.as_bytes());
    }
}
