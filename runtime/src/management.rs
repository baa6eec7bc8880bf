//! The management API, for operators: events, deliveries, replays and the audit trail.
//!
//! Every route but the delivery sink requires a key, which is checked before anything else of the request: without one,
//! a client learns nothing, not even whether an id exists. Routes and their OpenAPI description come from the same
//! functions. There is no SQL here, and nothing is published: a replay is committed, and the dispatcher woken.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use grapnel_store::Database;
use tokio::sync::Notify;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::fallback::{method_not_allowed, not_found};

mod keys;
pub mod health;
pub mod openapi;
mod query;
mod model;
mod cursor;
mod path;
mod body;
mod answer;
mod integrations;
mod events;
mod replay;
mod deliveries;
mod audit;
mod replay_requests;
mod sink;

pub use keys::ManagementKeys;

/// Notified when a replay was committed: the dispatcher has work.
pub type ReplayWaker = Arc<Notify>;

/// The state that the routes share.
#[derive(Clone)]
pub struct ManagementState {
    pub db: Database,
    pub keys: ManagementKeys,
    /// Whether the delivery sink is routed: never in production.
    pub delivery_sink: bool,
    pub replays: ReplayWaker,
    /// As in `grapnel_crds::names::queue_name`.
    pub queue_prefix: String,
}

/// Characters of a name that is filtered by, such as a provider's.
const MAX_NAME_CHARS: usize = 100;

/// Characters of other text that is filtered by.
const MAX_FILTER_CHARS: usize = 255;

/// The routes, relative to `/api/v1`, with answers in the envelope for unknown paths and methods.
pub fn router(state: ManagementState) -> Router {
    let require_key = from_fn_with_state(state.keys.clone(), keys::require_key);
    let (managed, _) = managed_routes().split_for_parts();
    // In this order, so that without a key nobody can find out which methods a path has.
    let mut router = managed.method_not_allowed_fallback(method_not_allowed).route_layer(require_key);
    if state.delivery_sink {
        let (sink, _) = sink_route().split_for_parts();
        router = router.merge(sink.method_not_allowed_fallback(method_not_allowed));
    }
    router.fallback(not_found).with_state(state)
}

/// The routes that take a key.
pub(crate) fn managed_routes() -> OpenApiRouter<ManagementState> {
    OpenApiRouter::new()
        .routes(routes!(integrations::list))
        .routes(routes!(events::list))
        .routes(routes!(events::read))
        .routes(routes!(events::status))
        .routes(routes!(events::processing_status))
        .routes(routes!(replay::request))
        .routes(routes!(deliveries::list))
        .routes(routes!(audit::list))
        .routes(routes!(replay_requests::list))
        .routes(routes!(replay_requests::read))
}

/// The route that stands in for a destination in development.
pub(crate) fn sink_route() -> OpenApiRouter<ManagementState> {
    OpenApiRouter::new().routes(routes!(sink::deliver))
}
