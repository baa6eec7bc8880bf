//! Who asks: the first thing that is found out about a request, and the only one without which a client learns nothing.
//!
//! A request that has the header of the key is judged by it alone, so a key works although the API server of the cluster is away, and
//! behind a proxy that uses `authorization` for itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use grapnel_access::{Refusal, User};
use grapnel_platform::client_network::ClientNetwork;
use grapnel_store::audit::Requester;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};

use super::ManagementState;
use super::keys::MatchingKey;
use crate::http::envelope::{ApiError, ErrorCode};
use crate::http::{KEY_HEADER, RETRY_AFTER_SECONDS};
use crate::ingress::client_ip;

/// An authenticated caller.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) who: Who,
    pub(crate) source: IpAddr,
}

#[derive(Debug, Clone)]
pub(crate) enum Who {
    /// Whoever has a key may do everything.
    Key(MatchingKey),
    /// So may whoever uses this machine, where the port is open to nobody else.
    Local,
    /// A user by its token.
    User(Arc<User>),
    /// A user whom an authenticating proxy names.
    ProxyUser(Arc<User>),
}

impl Caller {
    /// Whether no rights in a cluster limit what the caller sees and does.
    pub(crate) fn may_do_everything(&self) -> bool {
        matches!(self.who, Who::Key(_) | Who::Local)
    }

    /// Returns the caller as the audit trail names it.
    pub(crate) fn requester(&self) -> Requester {
        match &self.who {
            Who::Key(MatchingKey::Current) => Requester::key("current", self.source),
            Who::Key(MatchingKey::Previous) => Requester::key("previous", self.source),
            Who::Local => Requester::local(self.source),
            Who::User(user) => Requester::user(&user.name, user.groups.len(), self.source),
            Who::ProxyUser(user) => Requester::proxy_user(&user.name, user.groups.len(), self.source),
        }
    }
}

/// Why nobody is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unidentified {
    NoCredential,
    TooMany,
    Unavailable,
}

/// Lets a request through with its caller, and answers any other before anything else of it is read.
pub(super) async fn identify(State(state): State<ManagementState>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match caller(&state, &parts).await {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(unidentified) => refuse(&state, unidentified),
    }
}

async fn caller(state: &ManagementState, parts: &Parts) -> Result<Caller, Unidentified> {
    let headers = &parts.headers;
    let source = source(state, parts);
    if headers.contains_key(KEY_HEADER) {
        let key = state.keys.matching(headers).ok_or(Unidentified::NoCredential)?;
        return Ok(Caller { who: Who::Key(key), source });
    }
    let token = bearer_token(headers).ok_or(Unidentified::NoCredential)?;
    token_holder(state, token, source).await
}

/// Returns the address that the request came from, which a trusted proxy reports.
pub(crate) fn source(state: &ManagementState, parts: &Parts) -> IpAddr {
    client_ip::address(peer(parts), &parts.headers, &state.trusted_proxies)
}

/// Returns the address of the other end of the connection.
pub(crate) fn peer(parts: &Parts) -> IpAddr {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    // Every served request has a peer.
    peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// Identifies who has this management key.
pub(crate) fn key_holder(state: &ManagementState, key: &str, source: IpAddr) -> Result<Caller, Unidentified> {
    let key = state.keys.matching_text(key.as_bytes()).ok_or(Unidentified::NoCredential)?;
    Ok(Caller { who: Who::Key(key), source })
}

/// Identifies who has this token of the cluster.
pub(crate) async fn token_holder(
    state: &ManagementState,
    token: &str,
    source: IpAddr,
) -> Result<Caller, Unidentified> {
    let cluster = state.cluster.as_ref().ok_or(Unidentified::NoCredential)?;
    let user = cluster.authenticator.authenticate(token, ClientNetwork::of(source).address()).await;
    match user {
        Ok(user) => Ok(Caller { who: Who::User(user), source }),
        Err(Refusal::Unknown) => Err(Unidentified::NoCredential),
        Err(Refusal::TooMany) => Err(Unidentified::TooMany),
        Err(Refusal::Unavailable) => Err(Unidentified::Unavailable),
    }
}

/// Returns the token of the only `authorization` header, whose scheme may be in any case.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut presented = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (presented.next(), presented.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn refuse(state: &ManagementState, unidentified: Unidentified) -> Response {
    match unidentified {
        Unidentified::NoCredential => {
            state.denials.count("unauthenticated");
            let message = format!("A valid {KEY_HEADER} header or bearer token is required");
            let mut response = ApiError::new(ErrorCode::Unauthorized, message).into_response();
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
        Unidentified::TooMany => {
            state.denials.count("throttled");
            let message = "Too many tokens were sent; try again in a moment";
            ApiError::new(ErrorCode::RateLimited, message).retry_after(1).into_response()
        }
        Unidentified::Unavailable => {
            state.denials.count("unavailable");
            undecided().into_response()
        }
    }
}

/// The answer while the API server of the cluster decides nothing.
pub(super) fn undecided() -> ApiError {
    let message = "The API server of the cluster does not answer, so nobody's rights are known; a management key still works";
    ApiError::new(ErrorCode::DependencyUnavailable, message).retry_after(RETRY_AFTER_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bearer_token_is_read() {
        let token = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            bearer_token(&headers).map(str::to_owned)
        };
        assert_eq!(token(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(token(&["bearer  abc "]).as_deref(), Some("abc"));
        for none in [&[][..], &["Bearer"], &["Bearer "], &["Basic abc"], &["abc"], &["Bearer a", "Bearer b"]]
        {
            assert_eq!(token(none), None, "{none:?}");
        }
    }
}
