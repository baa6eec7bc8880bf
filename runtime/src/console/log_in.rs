//! The log-in with a token of the cluster or a management key, and the log-out.

use askama::Template;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::{StatusCode, header};
use secrecy::SecretString;

use super::answer::bare_error_page;
use super::assets::NAMES;
use super::forms::{self, Fields};
use super::sessions::{self, Credential, SessionId};
use super::visitor::Visitor;
use super::{Console, Outcome, Shared, browser, csrf};
use crate::http::RETRY_AFTER_SECONDS;
use crate::http::envelope::{ApiError, ErrorCode};
use crate::management::{Unidentified, source};

/// The cookie of the form, as long as there is no session.
const FORM_COOKIE: &str = "grapnel_log_in";

/// How long the form can be sent.
const FORM_SECONDS: u64 = 3600;

#[derive(Template)]
#[template(path = "console/log_in.html")]
struct LogInPage<'a> {
    root: &'a str,
    style: &'a str,
    csrf: String,
    /// The page to go on to, below the root.
    next: &'a str,
    takes_token: bool,
    takes_key: bool,
    has_ended: bool,
    /// Why nobody was let in.
    refusal: Option<&'a str>,
}

/// Shows the form.
pub(super) async fn page(State(console): State<Shared>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let value = |name: &str| query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    if console.settings.is_local {
        return Redirect::to(&format!("{}/", console.root)).into_response();
    }
    let shown = Shown { next: own_page(value("next")), has_ended: value("ended").is_some(), refusal: None };
    show(&console, &parts, StatusCode::OK, &shown)
}

struct Shown<'a> {
    next: &'a str,
    has_ended: bool,
    refusal: Option<&'a str>,
}

fn show(console: &Console, parts: &http::request::Parts, status: StatusCode, shown: &Shown<'_>) -> Response {
    let known = browser::cookie(&parts.headers, FORM_COOKIE).and_then(SessionId::parse);
    let form = match known.map_or_else(SessionId::generate, Ok) {
        Ok(form) => form,
        Err(error) => return bare_error_page(&console.root, &error),
    };
    let page = LogInPage {
        root: &console.root,
        style: &NAMES.style,
        csrf: console.settings.csrf.token(&form_subject(&form)),
        next: shown.next,
        takes_token: console.management.cluster.is_some(),
        takes_key: !console.management.keys.is_empty(),
        has_ended: shown.has_ended,
        refusal: shown.refusal,
    };
    let Ok(text) = page.render() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let mut response = (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response();
    let is_https = browser::is_https(console, parts);
    let cookie =
        browser::new_cookie(FORM_COOKIE, &form.cookie_value(), FORM_SECONDS, &console.root, is_https);
    if let Some(cookie) = cookie {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

fn form_subject(form: &SessionId) -> Vec<u8> {
    [b"log-in:", form.bytes()].concat()
}

/// Begins a session for whoever has a credential. The session of before ends, so that an id that somebody else put into the browser is of no use.
pub(super) async fn log_in(State(console): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut form = Request::new(body);
    form.headers_mut().clone_from(&parts.headers);
    match try_log_in(&console, &parts, form).await {
        Ok(response) => response,
        Err(error) => bare_error_page(&console.root, &error),
    }
}

async fn try_log_in(
    console: &Console,
    parts: &http::request::Parts,
    form: Request,
) -> Result<Response, ApiError> {
    let fields = Fields::read(form).await?;
    let form_id = browser::cookie(&parts.headers, FORM_COOKIE).and_then(SessionId::parse);
    let is_ours = form_id
        .zip(fields.get(csrf::FIELD))
        .is_some_and(|(form_id, token)| console.settings.csrf.accepts(&form_subject(&form_id), token));
    let next = own_page(fields.get("next"));
    let again = |status, reason| {
        show(console, parts, status, &Shown { next, has_ended: false, refusal: Some(reason) })
    };
    if browser::comes_from_another_site(&parts.headers) {
        return Err(forms::foreign());
    }
    if !is_ours {
        return Ok(again(StatusCode::FORBIDDEN, "The form was too old. Please try again."));
    }
    let text = SecretString::from(fields.get("credential").unwrap_or_default().trim());
    let credential = match fields.get("kind") {
        Some("key") => Credential::Key(text),
        _ => Credential::Token(text),
    };
    let caller = match credential.holder(console, source(&console.management, parts)).await {
        Ok(caller) => caller,
        Err(Unidentified::NoCredential) => {
            console.management.denials.count_unauthenticated();
            let reason = match credential {
                Credential::Key(_) => "This is not the management key.",
                Credential::Token(_) => "The cluster does not accept this token. It may have expired.",
            };
            return Ok(again(StatusCode::UNAUTHORIZED, reason));
        }
        Err(undecided_now) => return Err(undecided(undecided_now)),
    };
    if let Some(before) = browser::cookie(&parts.headers, sessions::COOKIE).and_then(SessionId::parse) {
        sessions::end(console, &before).await?;
    }
    let id = sessions::begin(console, &credential, &caller).await?;
    let mut response = Redirect::to(&format!("{}/{next}", console.root)).into_response();
    let is_https = browser::is_https(console, parts);
    let cookies = [
        browser::new_cookie(
            sessions::COOKIE,
            &id.cookie_value(),
            sessions::LASTS.as_secs(),
            &console.root,
            is_https,
        ),
        browser::new_cookie(FORM_COOKIE, "", 0, &console.root, is_https),
    ];
    for cookie in cookies.into_iter().flatten() {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Ends the session.
pub(super) async fn log_out(State(console): State<Shared>, visitor: Visitor) -> Outcome {
    if let Some(id) = &visitor.session {
        sessions::end(&console, id).await?;
    }
    let mut response = visitor.go("/log-in");
    if let Some(cookie) = browser::new_cookie(sessions::COOKIE, "", 0, &console.root, false) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Returns the page to go on to: what can only be below the root. Anything else is the first page.
fn own_page(next: Option<&str>) -> &str {
    let is_ours = |next: &&str| {
        next.len() <= 2048
            && !next.starts_with(['/', '\\'])
            && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#')
            && !next.split(['/', '?']).any(|segment| segment == "..")
    };
    next.filter(is_ours).unwrap_or_default()
}

/// The answer while nobody can say who somebody is.
pub(super) fn undecided(why: Unidentified) -> ApiError {
    match why {
        Unidentified::NoCredential => ApiError::new(ErrorCode::Unauthorized, "Nobody is logged in"),
        Unidentified::TooMany => {
            ApiError::new(ErrorCode::RateLimited, "Too many tokens were sent; try again in a moment")
                .retry_after(1)
        }
        Unidentified::Unavailable => {
            let message = "The API server of the cluster does not answer, so nobody's rights are known. The management key works, where there is one";
            ApiError::new(ErrorCode::DependencyUnavailable, message).retry_after(RETRY_AFTER_SECONDS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_in_leads_to_a_page_of_ours_only() {
        for ours in ["events?status=failed&eventType=a%2Fb", "events/0199-1", "?window=7d", ""] {
            assert_eq!(own_page(Some(ours)), ours);
        }
        for other in [
            "//example.com",
            "/events",
            "\\\\example.com",
            "/\\example.com",
            "../../api/v1/events",
            "a/../../x",
            "a\nb",
            "é",
            "a b",
        ] {
            assert_eq!(own_page(Some(other)), "", "{other}");
        }
        assert_eq!(own_page(Some(&"a".repeat(2049))), "");
        // It follows the root and a slash, so even what looks like a URL is a path there.
        assert_eq!(own_page(Some("https://example.com")), "https://example.com");
    }
}
