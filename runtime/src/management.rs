//! The management API, for operators: events, deliveries, replays and the audit trail.
//!
//! Every route but the delivery sink requires a credential, a key or a token of the cluster, which is checked before anything else
//! of the request: without one, a client learns nothing, not even whether an id exists. What a user of the cluster may see and do
//! is decided by one table (`routes`) before a handler runs; a key may do everything. Routes and their OpenAPI description come
//! from the same functions. There is no SQL here, and nothing is published: a replay is committed, and the dispatcher woken.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use grapnel_access::{ApiServer, Authenticator, Authorizer};
use grapnel_store::Database;
use ipnet::IpNet;
use tokio::sync::Notify;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::fallback::{method_not_allowed, not_found};
use crate::rejections::Rejections;

mod keys;
mod rights;
mod routes;
mod identify;
mod authorize;
mod denials;
pub mod health;
pub mod openapi;
mod query;
mod time_bounds;
pub(crate) mod model;
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
mod filter_trial;
mod test_events;
mod rejections;
mod sink;
mod overview;
mod series;
mod operator;
mod replays;
mod live;
mod stream;

pub(crate) use answer::{ListMeta, Listed};
pub(crate) use body::read as read_body;
pub use denials::Denials;
pub(crate) use filter_trial::FilterTrial;
pub(crate) use identify::{Caller, Unidentified, Who, key_holder, peer, source, token_holder};
pub use keys::ManagementKeys;
pub use live::LiveEvents;
pub(crate) use operator::{Operator, Rights};
pub(crate) use overview::{DestinationHealth, IntegrationHealth, OverviewCache, RECENT};
pub(crate) use replays::start::{Begun, EstimateView, EstimatedDestinationView};
pub(crate) use series::{Series, SeriesWindow};
pub(crate) use test_events::TestEventSent;

/// Notified when a replay was committed: the dispatcher has work.
pub type ReplayWaker = Arc<Notify>;

/// The state that the routes share.
#[derive(Clone)]
pub struct ManagementState {
    pub db: Database,
    pub keys: ManagementKeys,
    /// Where tokens of a cluster are accepted: who has one, and which rights.
    pub cluster: Option<Arc<ClusterAccess>>,
    /// Whose `x-forwarded-for` says where a request comes from.
    pub trusted_proxies: Arc<[IpNet]>,
    pub denials: Denials,
    pub live: LiveEvents,
    /// Whether the delivery sink is routed: never in production.
    pub delivery_sink: bool,
    pub replays: ReplayWaker,
    /// Where Redis is known.
    pub rejections: Option<Rejections>,
    /// As in `grapnel_crds::names::queue_name`.
    pub queue_prefix: String,
}

/// The users of a cluster and their rights.
pub struct ClusterAccess {
    authenticator: Authenticator,
    authorizer: Authorizer,
}

impl ClusterAccess {
    /// Uses the API server that the pod's account or KUBECONFIG names. It need not answer yet.
    pub async fn find() -> anyhow::Result<Self> {
        let server = ApiServer::find().await?;
        let random = |_| anyhow::anyhow!("the system gives no random bytes");
        Ok(Self {
            authenticator: Authenticator::new(server.clone()).map_err(random)?,
            authorizer: Authorizer::new(server).map_err(random)?,
        })
    }
}

/// Characters of a name that is filtered by, such as a provider's.
const MAX_NAME_CHARS: usize = 100;

/// Characters of other text that is filtered by.
const MAX_FILTER_CHARS: usize = 255;

/// The routes, relative to `/api/v1`, with answers in the envelope for unknown paths and methods.
pub fn router(state: ManagementState) -> Router {
    let identified = from_fn_with_state(state.clone(), identify::identify);
    // In this order, so that without a credential nobody can find out which methods a path has.
    let managed = routes::router(&state).method_not_allowed_fallback(method_not_allowed);
    let mut router = managed.route_layer(identified);
    if state.delivery_sink {
        router = router.merge(delivery_sink());
    }
    router.fallback(not_found).with_state(state)
}

/// The route that stands in for a destination in development.
pub(crate) fn delivery_sink<S: Clone + Send + Sync + 'static>() -> Router<S> {
    sink_route().split_for_parts().0.method_not_allowed_fallback(method_not_allowed)
}

fn sink_route<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S> {
    OpenApiRouter::new().routes(routes!(sink::deliver))
}
