//! The metrics of the controller. Labels are bounded: classes of errors, reasons and verbs, and the id of an
//! Integration only where a number is useless without it.

use std::collections::BTreeMap;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use kube::client::Body;
use tower::{Layer, Service};

use crate::error::CallError;
use crate::replicas::decide::Backlog;

pub fn reconciled(elapsed: Duration, error: Option<&CallError>) {
    metrics::histogram!("grapnel_controller_reconcile_duration_seconds").record(elapsed.as_secs_f64());
    metrics::counter!("grapnel_controller_reconciles_total").increment(1);
    if let Some(error) = error {
        metrics::counter!("grapnel_controller_reconcile_errors_total", "class" => error.class()).increment(1);
    }
}

pub fn replay_reconciled(elapsed: Duration, error: Option<&CallError>) {
    metrics::histogram!("grapnel_controller_replay_reconcile_duration_seconds").record(elapsed.as_secs_f64());
    metrics::counter!("grapnel_controller_replay_reconciles_total").increment(1);
    if let Some(error) = error {
        metrics::counter!("grapnel_controller_replay_reconcile_errors_total", "class" => error.class())
            .increment(1);
    }
}

/// `counts`: Replays by phase, of which there is a fixed number.
pub fn replays(counts: &BTreeMap<&'static str, usize>) {
    for (phase, count) in counts {
        metrics::gauge!("grapnel_controller_replays", "phase" => *phase).set(*count as f64);
    }
}

pub fn undecodable() {
    metrics::counter!("grapnel_controller_undecodable_objects_total").increment(1);
}

pub fn status_written() {
    metrics::counter!("grapnel_controller_status_writes_total").increment(1);
}

pub fn removed() {
    metrics::counter!("grapnel_controller_removed_total").increment(1);
}

pub fn crd_missing(missing: bool) {
    metrics::gauge!("grapnel_controller_crd_missing").set(f64::from(u8::from(missing)));
}

pub fn leading(leads: bool) {
    metrics::gauge!("grapnel_controller_leader").set(f64::from(u8::from(leads)));
}

pub fn objects(total: usize, ready: usize, in_backoff: usize) {
    metrics::gauge!("grapnel_controller_integrations", "ready" => "true").set(ready as f64);
    metrics::gauge!("grapnel_controller_integrations", "ready" => "false")
        .set(total.saturating_sub(ready) as f64);
    metrics::gauge!("grapnel_controller_objects_in_backoff").set(in_backoff as f64);
}

pub fn watch_failed(kind: &'static str) {
    metrics::counter!("grapnel_controller_watch_errors_total", "kind" => kind).increment(1);
}

pub fn tick(elapsed: Duration, late: Duration) {
    metrics::histogram!("grapnel_controller_scale_tick_duration_seconds").record(elapsed.as_secs_f64());
    metrics::gauge!("grapnel_controller_scale_tick_late_seconds").set(late.as_secs_f64());
}

pub fn backlog_unreadable() {
    metrics::counter!("grapnel_controller_backlog_read_errors_total").increment(1);
}

pub fn backlog(integration: &str, backlog: Backlog) {
    let id = || integration.to_owned();
    let messages =
        |state| metrics::gauge!("grapnel_queue_messages", "integration_id" => id(), "state" => state);
    messages("ready").set(backlog.ready as f64);
    messages("unacknowledged").set(backlog.unacknowledged as f64);
    metrics::gauge!("grapnel_queue_deliveries", "integration_id" => id()).set(backlog.load() as f64);
}

pub fn replicas(integration: &str, desired: i32, current: i32) {
    let id = || integration.to_owned();
    metrics::gauge!("grapnel_workers_desired", "integration_id" => id()).set(f64::from(desired));
    metrics::gauge!("grapnel_workers_current", "integration_id" => id()).set(f64::from(current));
}

pub fn scaled(reason: &'static str) {
    metrics::counter!("grapnel_controller_scale_decisions_total", "reason" => reason).increment(1);
}

/// A layer that counts the requests to the API server by verb, so that writes at rest become visible.
#[derive(Debug, Clone, Copy)]
pub struct RequestCountLayer;

impl<S> Layer<S> for RequestCountLayer {
    type Service = RequestCounter<S>;

    fn layer(&self, inner: S) -> RequestCounter<S> {
        RequestCounter { inner }
    }
}

#[derive(Debug, Clone)]
pub struct RequestCounter<S> {
    inner: S,
}

impl<S, B> Service<Request<Body>> for RequestCounter<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let verb = match *request.method() {
            Method::GET => "get",
            Method::POST => "post",
            Method::PUT => "put",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "other",
        };
        // A Lease is renewed all the time; its label separates it from writes that have a cause.
        let resource = if request.uri().path().contains("/leases") { "leases" } else { "other" };
        metrics::counter!("grapnel_controller_api_requests_total", "verb" => verb, "resource" => resource)
            .increment(1);
        self.inner.call(request)
    }
}
