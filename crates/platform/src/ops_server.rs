//! The operations port: `/livez`, `/readyz` and `/metrics`.
//!
//! Live means that the process works; ready means that it should receive traffic. Neither depends on a datastore that the
//! process can run without.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::{TcpListener, TcpSocket};

use crate::http_server::{self, ConnectionDeadlines, ConnectionSlots, PortBounds};
use crate::shutdown::Stage;

/// Connections to the operations port: those of the kubelet and of whoever reads metrics.
const OPS_CONNECTIONS: usize = 500;

/// How long the operations port still answers after the stop.
const OPS_DRAIN: Duration = Duration::from_secs(1);

/// Bytes of answers that the kernel holds for a connection whose client does not read: a container's memory includes them.
/// By default it may be some megabytes.
const SEND_BUFFER: u32 = 64 * 1024;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// How often histograms are compacted, so that they do not grow while nothing scrapes them.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// The health of a process, as the kubelet probes it.
pub trait ProcessHealth: Send + Sync + 'static {
    /// Returns why the process should be restarted, if it should.
    fn dead(&self) -> Option<String>;
    /// Returns why the process should receive no traffic, if it should not.
    fn not_ready(&self) -> Option<String>;
}

/// Starts the metrics of the process.
pub fn start_metrics() -> anyhow::Result<PrometheusHandle> {
    PrometheusBuilder::new()
        .set_buckets(&[
            0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 256.0,
        ])
        .context("configure metrics")?
        .install_recorder()
        .context("start metrics")
}

/// Binds a port. An error names the option and the address.
pub async fn bind(address: SocketAddr, name: &str) -> anyhow::Result<TcpListener> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        // Inherited by the connections.
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().with_context(|| format!("{name}: cannot listen on {address}"))
}

/// Serves the operations port in a stage of its own, the last to stop.
pub fn ops_stage(listener: TcpListener, health: Arc<dyn ProcessHealth>, metrics: PrometheusHandle) -> Stage {
    let mut stage = Stage::default();
    let token = stage.token();
    let rendered = metrics.clone();
    let answer = move |request: Request<hyper::body::Incoming>, _peer| {
        let response = respond(request.method(), request.uri().path(), &*health, &rendered);
        async move { response }
    };
    let bounds = PortBounds {
        slots: ConnectionSlots::new(OPS_CONNECTIONS, Arc::new([])),
        deadlines: ConnectionDeadlines::default(),
    };
    stage.spawn("operations port", http_server::serve(listener, bounds, answer, token.clone(), OPS_DRAIN));
    stage.spawn("metrics upkeep", async move {
        while token.run_until_cancelled(tokio::time::sleep(METRICS_UPKEEP)).await.is_some() {
            metrics.run_upkeep();
        }
    });
    stage
}

fn respond(
    method: &Method,
    path: &str,
    health: &dyn ProcessHealth,
    metrics: &PrometheusHandle,
) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if !matches!(path, "/livez" | "/readyz" | "/metrics") {
        return text(StatusCode::NOT_FOUND, None, String::new());
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, None, String::new());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
        return response;
    }
    let failure = match path {
        "/livez" => health.dead(),
        "/readyz" => health.not_ready(),
        _ => return text(StatusCode::OK, Some("text/plain; version=0.0.4"), metrics.render()),
    };
    match failure {
        None => text(StatusCode::OK, Some(TEXT), "ok\n".to_owned()),
        Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, Some(TEXT), format!("{reason}\n")),
    }
}

fn text(status: StatusCode, content_type: Option<&'static str>, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}
