//! Forms: each is checked to be from one of our pages before its handler runs.

use axum::extract::{FromRequestParts, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::Method;
use http::request::Parts;

use super::answer::Refused;
use super::visitor::Visitor;
use super::{browser, csrf};
use crate::http::envelope::{ApiError, ErrorCode};
use crate::management::read_body;

/// The longest form: a captured request is pasted into one.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// The fields of a form, in its order.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads the fields of a request.
    pub(super) async fn read(request: Request) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = read_body(&parts.headers, body, MAX_BYTES).await?;
        Ok(Self(url::form_urlencoded::parse(&bytes).into_owned().collect()))
    }

    /// Returns the value of a field; an empty one counts as missing.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    /// Returns each value of a field, such as those of checked boxes.
    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Fields {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        // There for every method but GET.
        parts.extensions.get().cloned().ok_or_else(|| Refused(ApiError::internal()))
    }
}

/// Lets a form through with its fields if its token is the visitor's.
pub(super) async fn check(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let Some(visitor) = parts.extensions.get::<Visitor>().cloned() else {
        return Refused(ApiError::internal()).into_response();
    };
    if browser::comes_from_another_site(&parts.headers) {
        return Refused(foreign()).into_response();
    }
    let mut form = Request::new(body);
    form.headers_mut().clone_from(&parts.headers);
    let fields = match Fields::read(form).await {
        Ok(fields) => fields,
        Err(error) => return Refused(error).into_response(),
    };
    if !fields.get(csrf::FIELD).is_some_and(|token| visitor.accepts_csrf_token(token)) {
        return Refused(foreign()).into_response();
    }
    parts.extensions.insert(fields);
    next.run(Request::from_parts(parts, axum::body::Body::empty())).await
}

/// The answer to a form that is not from one of our pages.
pub(super) fn foreign() -> ApiError {
    let message = "The form is not from a page of this session, so nothing was done. Open the page again, and send it from there";
    ApiError::new(ErrorCode::Forbidden, message)
}
