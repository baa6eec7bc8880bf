//! A request as it was received, and the values in it.

use http::{HeaderMap, Method, Uri};

use json::FoundValues;
pub use source::Source;

mod source;
pub mod content_type;
pub mod form;
pub mod json;
pub mod template;

/// A request as it was received.
#[derive(Debug, Clone, Copy)]
pub struct IncomingRequest<'a> {
    pub method: &'a Method,
    /// The path and the query as they came.
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    /// The part before the path of the URL that providers call, without a slash at its end.
    pub public_url: Option<&'a str>,
    /// Values of a JSON body that were looked up together. Any other value is looked up when it is needed.
    pub json: Option<&'a FoundValues<'a>>,
}
