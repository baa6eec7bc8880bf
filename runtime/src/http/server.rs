//! Serves a router on the bounded HTTP server of the platform.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use grapnel_platform::http_server::{self, PortBounds};
use http::Request;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Serves until the token is cancelled and the requests in flight are answered, or `drain` has passed.
pub(crate) async fn serve(
    listener: TcpListener,
    bounds: PortBounds,
    router: Router,
    stop: CancellationToken,
    drain: Duration,
) {
    let handler = move |request, peer| respond(router.clone(), request, peer);
    http_server::serve(listener, bounds, handler, stop, drain).await;
}

pub(crate) async fn respond(router: Router, mut request: Request<Incoming>, peer: SocketAddr) -> Response {
    request.extensions_mut().insert(ConnectInfo(peer));
    match router.oneshot(request.map(Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
