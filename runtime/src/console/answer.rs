//! Pages, parts of pages, and what is shown instead of them.

use askama::Template;
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use http::{HeaderValue, StatusCode, header};

use super::shell::{Section, Shell};
use super::visitor::Visitor;
use super::{Outcome, assets};
use crate::http::envelope::{ApiError, ErrorCode};

/// Shorter pages are not compressed.
const MIN_COMPRESSED: usize = 1024;

/// An error of the management API as the answer to a visitor, who gets it as a page.
#[derive(Debug)]
pub(super) struct Refused(pub(super) ApiError);

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refused {
    /// The page is made by [`with_error_page`], which knows the visitor.
    fn into_response(self) -> Response {
        let mut response = self.0.code().status().into_response();
        response.extensions_mut().insert(self.0);
        response
    }
}

impl Visitor {
    /// Answers with a page, or with the part of it that is wanted.
    pub(super) fn answer(&self, page: &impl Template, part: &impl Template) -> Response {
        if self.view.is_fragment { self.html(StatusCode::OK, part) } else { self.html(StatusCode::OK, page) }
    }

    /// Answers with a page that has no live part.
    pub(super) fn page(&self, page: &impl Template) -> Response {
        self.html(StatusCode::OK, page)
    }

    fn html(&self, status: StatusCode, template: &impl Template) -> Response {
        match template.render() {
            Ok(text) => html(status, text, self.view.accepts_gzip),
            Err(error) => {
                tracing::error!(%error, "a page could not be rendered");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

fn html(status: StatusCode, text: String, accepts_gzip: bool) -> Response {
    let kind = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::VARY, "accept-encoding, cookie, hx-request"),
    ];
    if accepts_gzip && text.len() >= MIN_COMPRESSED {
        let compressed = assets::compress(text.as_bytes(), Compression::fast());
        return (status, kind, [(header::CONTENT_ENCODING, "gzip")], compressed).into_response();
    }
    (status, kind, text).into_response()
}

#[derive(Template)]
#[template(path = "console/error.html", blocks = ["live"])]
struct ErrorPage {
    shell: Shell,
    failure: Failure,
}

#[derive(Template)]
#[template(path = "console/bare_error.html")]
struct BareErrorPage<'a> {
    root: &'a str,
    style: &'a str,
    failure: Failure,
}

/// An error in words: what happened, and what one can do.
struct Failure {
    title: &'static str,
    message: String,
    advice: &'static str,
}

impl Failure {
    fn of(error: &ApiError) -> Self {
        let (title, advice) = match error.code() {
            ErrorCode::NotFound => {
                ("Not here", "It may be past its retention, or you may not be allowed to see it.")
            }
            ErrorCode::Forbidden => (
                "Not allowed",
                "Whoever administers the namespace can grant the right: docs/access.md has the table of rights.",
            ),
            ErrorCode::ValidationError => {
                ("That cannot be read", "Correct the address or the form, and try again.")
            }
            ErrorCode::Conflict => ("Not possible now", "Nothing was changed."),
            ErrorCode::RateLimited => ("Too many at once", "Wait a moment, and load the page again."),
            ErrorCode::DependencyUnavailable => (
                "Cannot be read now",
                "Webhooks are accepted and delivered all the same. Load the page again in a moment.",
            ),
            _ => (
                "That failed",
                "Nothing was changed that this page cannot show. The log of the process says why.",
            ),
        };
        Self { title, message: error.message().to_owned(), advice }
    }
}

/// Puts the page of an error into an answer that has one.
pub(super) fn with_error_page(visitor: &Visitor, mut response: Response) -> Response {
    let Some(error) = response.extensions_mut().remove::<ApiError>() else { return response };
    let page = ErrorPage { shell: Shell::new(visitor, Section::None), failure: Failure::of(&error) };
    let status = response.status();
    // A live part that fails is replaced by what happened, and asks again.
    if visitor.view.is_fragment { visitor.html(status, &page.as_live()) } else { visitor.html(status, &page) }
}

/// The page of an error before it is known who looks.
pub(super) fn bare_error_page(root: &str, error: &ApiError) -> Response {
    let page = BareErrorPage { root, style: &assets::NAMES.style, failure: Failure::of(error) };
    match page.render() {
        Ok(text) => {
            let mut response = html(error.code().status(), text, false);
            if error.code() == ErrorCode::DependencyUnavailable {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            response
        }
        Err(_) => error.code().status().into_response(),
    }
}

/// Answers a request for a page that there is not.
pub(super) async fn nothing_here(_: Visitor) -> Outcome {
    Err(ApiError::new(ErrorCode::NotFound, "There is no page at this address").into())
}
