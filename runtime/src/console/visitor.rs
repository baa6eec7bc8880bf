//! Who looks: found out before any page is made.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::answer::{self, Refused};
use super::identity_proxy::Claimed;
use super::live_parts::PartKey;
use super::sessions::{self, NoSession, SessionId};
use super::{Console, Shared, browser, log_in};
use crate::http::envelope::{ApiError, ErrorCode};
use crate::management::{Caller, IntegrationHealth, Operator, Rights, Unidentified, Who, peer, source};

/// Who looks at a page, and how the page is wanted.
#[derive(Clone)]
pub(super) struct Visitor {
    /// What the visitor reads and does.
    pub(super) operator: Operator,
    /// What the visitor may do at all.
    pub(super) rights: Rights,
    pub(super) session: Option<SessionId>,
    pub(super) view: View,
    console: Shared,
}

/// How a page is wanted.
#[derive(Clone)]
pub(super) struct View {
    pub(super) is_fragment: bool,
    pub(super) accepts_gzip: bool,
    /// The path and the query of the page, below the root.
    pub(super) here: Arc<str>,
}

impl Visitor {
    pub(super) fn root(&self) -> &str {
        &self.console.root
    }

    /// Returns how each Integration does that the visitor may see.
    pub(super) async fn overview(&self) -> Result<Vec<IntegrationHealth>, ApiError> {
        self.operator.overview(&self.console.overview).await
    }

    /// Returns the name that the visitor is shown by.
    pub(super) fn name(&self) -> String {
        match &self.operator.caller.who {
            Who::Key(_) => "management key".to_owned(),
            Who::Local => "this machine".to_owned(),
            Who::User(user) | Who::ProxyUser(user) => user.name.clone(),
        }
    }

    /// Returns a new token for the visitor's forms.
    pub(super) fn csrf_token(&self) -> String {
        self.console.settings.csrf.token(&self.csrf_subject())
    }

    /// Whether a token is of the visitor's forms.
    pub(super) fn accepts_csrf_token(&self, token: &str) -> bool {
        self.console.settings.csrf.accepts(&self.csrf_subject(), token)
    }

    fn csrf_subject(&self) -> Vec<u8> {
        match &self.session {
            Some(session) => [b"session:", session.bytes()].concat(),
            None => format!("actor:{}", self.operator.caller.requester().actor).into_bytes(),
        }
    }

    /// Returns what a request asks for if it can be shared with other tabs.
    fn live_part(&self, method: &Method) -> Option<PartKey> {
        let View { is_fragment, accepts_gzip, here } = &self.view;
        (*is_fragment && method == Method::GET).then(|| PartKey {
            subject: self.csrf_subject(),
            here: Arc::clone(here),
            accepts_gzip: *accepts_gzip,
        })
    }

    /// Answers a form: the browser goes on to a page below the root, such as `/events`.
    pub(super) fn go(&self, path: &str) -> Response {
        Redirect::to(&format!("{}{path}", self.root())).into_response()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        // Every page is behind `identify`.
        parts.extensions.get().cloned().ok_or_else(|| Refused(ApiError::internal()))
    }
}

/// Why there is no visitor.
enum Stranger {
    /// Nobody is logged in.
    Unknown {
        had_session: bool,
    },
    Refused(ApiError),
}

impl From<ApiError> for Stranger {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

/// Lets a request through with its visitor, and leads anybody else to the log-in.
pub(super) async fn identify(State(console): State<Shared>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let view = view(&parts);
    match visitor(&console, &parts, &view).await {
        Ok(visitor) => {
            parts.extensions.insert(visitor.clone());
            let part = visitor.live_part(&parts.method);
            let made =
                async { answer::with_error_page(&visitor, next.run(Request::from_parts(parts, body)).await) };
            match part {
                Some(part) => console.live_parts.get(part, Instant::now(), made).await,
                None => made.await,
            }
        }
        Err(Stranger::Unknown { had_session }) => lead_to_log_in(&console, &parts, &view, had_session),
        Err(Stranger::Refused(error)) => answer::bare_error_page(&console.root, &error),
    }
}

async fn visitor(console: &Shared, parts: &Parts, view: &View) -> Result<Visitor, Stranger> {
    let (caller, session) = caller(console, parts).await?;
    let operator = Operator::new(console.management.clone(), caller);
    let rights = operator.rights().await?;
    Ok(Visitor { operator, rights, session, view: view.clone(), console: Arc::clone(console) })
}

async fn caller(console: &Console, parts: &Parts) -> Result<(Caller, Option<SessionId>), Stranger> {
    let source = source(&console.management, parts);
    if console.settings.is_local {
        if !browser::names_this_machine(parts) {
            let message =
                "Without a log-in, the console is only there under a name of this machine, such as localhost";
            return Err(ApiError::new(ErrorCode::Forbidden, message).into());
        }
        return Ok((Caller { who: Who::Local, source }, None));
    }
    if let Some(proxies) = &console.settings.identity_proxies {
        match proxies.claimed(peer(parts), &parts.headers) {
            Claimed::User(user) => return Ok((Caller { who: Who::ProxyUser(Arc::new(user)), source }, None)),
            Claimed::Refused(reason) => return Err(ApiError::new(ErrorCode::Forbidden, reason).into()),
            Claimed::Nobody => {}
        }
    }
    let id = browser::cookie(&parts.headers, sessions::COOKIE).and_then(SessionId::parse);
    let Some(id) = id else { return Err(Stranger::Unknown { had_session: false }) };
    match sessions::caller(console, &id, source).await {
        Ok(caller) => Ok((caller, Some(id))),
        Err(NoSession::None) => Err(Stranger::Unknown { had_session: true }),
        Err(NoSession::Undecided(why)) => Err(log_in::undecided(why).into()),
        Err(NoSession::Failed(error)) => Err(error.into()),
    }
}

fn view(parts: &Parts) -> View {
    // The root may be there with and without its prefix; pages are what follows the last part of it.
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let here = path.find("/console/").map_or("/", |at| &path[at + "/console".len()..]);
    View {
        is_fragment: browser::wants_fragment(&parts.headers),
        accepts_gzip: browser::accepts_gzip(&parts.headers),
        here: here.into(),
    }
}

/// A page leads to the log-in and back; a form, and what it contained, is lost.
fn lead_to_log_in(console: &Console, parts: &Parts, view: &View, had_session: bool) -> Response {
    let mut target = format!("{}/log-in", console.root);
    let next = utf8_percent_encode(view.here.trim_start_matches('/'), NON_ALPHANUMERIC).to_string();
    if parts.method == Method::GET && !next.is_empty() {
        target.push_str("?next=");
        target.push_str(&next);
    }
    if had_session {
        target.push(if target.contains('?') { '&' } else { '?' });
        target.push_str("ended=true");
    }
    let mut response = if view.is_fragment {
        // A redirect would put the log-in into the middle of the page.
        let mut response = StatusCode::UNAUTHORIZED.into_response();
        if let Ok(target) = HeaderValue::from_str(&target) {
            response.headers_mut().insert("hx-redirect", target);
        }
        response
    } else {
        Redirect::to(&target).into_response()
    };
    if had_session
        && let Some(cookie) =
            browser::new_cookie(sessions::COOKIE, "", 0, &console.root, browser::is_https(console, parts))
    {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

impl From<Unidentified> for Stranger {
    fn from(why: Unidentified) -> Self {
        Self::Refused(log_in::undecided(why))
    }
}
