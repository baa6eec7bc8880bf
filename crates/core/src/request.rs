//! A request as it was received, and the values in it.

use http::{HeaderMap, Method, Uri};

use json::FoundValues;
pub use source::Source;

mod source;
pub mod content_coding;
pub mod content_type;
pub mod form;
pub mod json;
pub mod multipart;
pub mod template;

/// A request as it was received.
#[derive(Debug, Clone, Copy)]
pub struct IncomingRequest<'a> {
    pub method: &'a Method,
    /// The path and the query as they came.
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    /// Without the content coding that it may have had.
    pub body: &'a [u8],
    /// The body as it came, if it had a content coding and its signature covers it as it came.
    pub encoded_body: Option<&'a [u8]>,
    /// The fields of a form in the encoding of forms, if they are not the body itself: it has parts, or is a field of the form.
    pub form: Option<&'a [u8]>,
    /// The part before the path of the URL that providers call, without a slash at its end.
    pub public_url: Option<&'a str>,
    /// Values of a JSON body that were looked up together. Any other value is looked up when it is needed.
    pub json: Option<&'a FoundValues<'a>>,
}

impl<'a> IncomingRequest<'a> {
    /// The query, if it is what the request carries: that of a GET without a body.
    pub fn query_as_payload(&self) -> Option<&'a str> {
        let is_payload = *self.method == Method::GET && self.body.is_empty();
        is_payload.then(|| self.uri.query().unwrap_or_default())
    }

    /// The fields of a form, in the encoding of forms.
    pub fn form_fields(&self) -> &'a [u8] {
        self.form.unwrap_or(self.body)
    }

    /// The body that a signature covers.
    pub fn signed_body(&self) -> &'a [u8] {
        self.encoded_body.unwrap_or(self.body)
    }
}
