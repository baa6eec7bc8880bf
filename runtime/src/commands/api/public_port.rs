//! Serves the public port. Nearly all requests to it are webhooks, which do not take the way through the router.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use grapnel_platform::http_server::{self, PortBounds};
use http::Request;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http::server;
use crate::ingress::receive::{Ingress, receive};

/// The beginning of the paths of webhooks. One segment follows, and perhaps a slash.
const WEBHOOKS: &str = "/api/v1/webhooks/";

/// Serves until the token is cancelled and the requests in flight are answered, or `drain` has passed. `router` has all other routes.
pub(super) async fn serve(
    listener: TcpListener,
    bounds: PortBounds,
    ingress: Arc<Ingress>,
    router: Router,
    stop: CancellationToken,
    drain: Duration,
) {
    let handler = move |request: Request<Incoming>, peer: SocketAddr| {
        let (ingress, router) = (Arc::clone(&ingress), router.clone());
        async move {
            if is_webhook(request.uri().path()) {
                // Boxed: it is large, and a connection keeps the room for it from its first request to its end.
                Box::pin(receive(ingress, request.map(Body::new), peer)).await
            } else {
                server::respond(router, request, peer).await
            }
        }
    };
    http_server::serve(listener, bounds, handler, stop, drain).await;
}

/// Returns whether a path is that of a webhook, of whichever route.
fn is_webhook(path: &str) -> bool {
    path.strip_prefix(WEBHOOKS).is_some_and(|rest| {
        let route = rest.strip_suffix('/').unwrap_or(rest);
        !route.is_empty() && !route.contains('/')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhook_has_one_segment_after_the_beginning() {
        for path in ["/api/v1/webhooks/acme", "/api/v1/webhooks/acme/", "/api/v1/webhooks/a%2Fb"] {
            assert!(is_webhook(path), "{path}");
        }
        let others = [
            "/api/v1/webhooks",
            "/api/v1/webhooks/",
            "/api/v1/webhooks//",
            "/api/v1/webhooks/a/b",
            "/webhooks/acme",
        ];
        for path in others {
            assert!(!is_webhook(path), "{path}");
        }
    }
}
