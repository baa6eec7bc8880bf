//! The routes that take a credential, in one table: what each is about, what it does, and whose rights count.
//!
//! The router, the security in the OpenAPI document and the test of all routes with all roles are made from it. There is no
//! other way to add a route, so there is none without a decision.

use axum::Router;
use axum::middleware::from_fn_with_state;
use serde_json::json;
use utoipa::openapi::OpenApi;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::Operation;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use super::rights::{Resource, Verb};
use super::{
    ManagementState, audit, authorize, deliveries, events, integrations, openapi, rejections, replay,
    replay_requests, replays, stream, test_events,
};

/// How a route finds the Integrations in whose namespaces rights are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// All of them: the list is of those where the caller has the right.
    List,
    /// That of the event in the path.
    Event,
    /// That of the path.
    Integration,
    /// That at the route which the query names.
    Route,
    /// That of the replay request in the path.
    ReplayRequest,
    /// That of the replay in the path, or its namespace.
    Replay,
    /// That which the body names, or the namespace that it names.
    Body,
}

impl Scope {
    fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Event => "event",
            Self::Integration => "integration",
            Self::Route => "route",
            Self::ReplayRequest => "replayRequest",
            Self::Replay => "replay",
            Self::Body => "body",
        }
    }
}

/// What it takes to use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RouteAccess {
    pub(super) resource: Resource,
    pub(super) verb: Verb,
    pub(super) scope: Scope,
    /// Whether the answer has bodies and headers, which are withheld from who may not see [`Resource::Payloads`].
    pub(super) shows_payloads: bool,
}

/// What it takes to use each route; the console goes by the same.
pub(super) mod access {
    use super::Resource::{Audit, Deliveries, Events, Integrations, Payloads, Replays};
    use super::Verb::{Create, Delete, Get, List, Update};
    use super::{Resource, RouteAccess, Scope, Verb};

    const fn of(resource: Resource, verb: Verb, scope: Scope) -> RouteAccess {
        RouteAccess { resource, verb, scope, shows_payloads: false }
    }

    const fn with_payloads(access: RouteAccess) -> RouteAccess {
        RouteAccess { shows_payloads: true, ..access }
    }

    pub(in crate::management) const LIST_INTEGRATIONS: RouteAccess = of(Integrations, List, Scope::List);
    pub(in crate::management) const READ_INTEGRATION: RouteAccess = of(Integrations, Get, Scope::Integration);
    pub(in crate::management) const SEND_TEST_EVENT: RouteAccess = of(Replays, Create, Scope::Integration);
    /// Of no route: what reads payloads, or helps to make some that verify.
    pub(in crate::management) const USE_PAYLOADS: RouteAccess =
        with_payloads(of(Payloads, Get, Scope::Integration));
    pub(in crate::management) const LIST_EVENTS: RouteAccess = with_payloads(of(Events, List, Scope::List));
    pub(in crate::management) const READ_EVENT: RouteAccess = with_payloads(of(Events, Get, Scope::Event));
    pub(in crate::management) const ERASE_EVENT: RouteAccess = of(Events, Delete, Scope::Event);
    pub(in crate::management) const READ_STATUS: RouteAccess = of(Events, Get, Scope::Event);
    pub(in crate::management) const REPLAY_EVENT: RouteAccess = of(Replays, Create, Scope::Event);
    pub(in crate::management) const LIST_DELIVERIES: RouteAccess =
        with_payloads(of(Deliveries, List, Scope::List));
    pub(in crate::management) const LIST_AUDIT: RouteAccess = of(Audit, List, Scope::List);
    pub(in crate::management) const LIST_REJECTIONS: RouteAccess = of(Events, List, Scope::Route);
    pub(in crate::management) const LIST_REPLAY_REQUESTS: RouteAccess = of(Replays, List, Scope::List);
    pub(in crate::management) const READ_REPLAY_REQUEST: RouteAccess = of(Replays, Get, Scope::ReplayRequest);
    pub(in crate::management) const WATCH_EVENTS: RouteAccess = of(Events, List, Scope::List);
    pub(in crate::management) const START_REPLAY: RouteAccess =
        with_payloads(of(Replays, Create, Scope::Body));
    pub(in crate::management) const LIST_REPLAYS: RouteAccess = of(Replays, List, Scope::List);
    pub(in crate::management) const READ_REPLAY: RouteAccess = of(Replays, Get, Scope::Replay);
    pub(in crate::management) const CHANGE_REPLAY: RouteAccess = of(Replays, Update, Scope::Replay);
}

struct ManagedRoute {
    handler: UtoipaMethodRouter<ManagementState>,
    access: RouteAccess,
}

fn route(handler: UtoipaMethodRouter<ManagementState>, access: RouteAccess) -> ManagedRoute {
    ManagedRoute { handler, access }
}

fn table() -> Vec<ManagedRoute> {
    vec![
        route(routes!(integrations::list), access::LIST_INTEGRATIONS),
        route(routes!(integrations::read), access::READ_INTEGRATION),
        route(routes!(integrations::stats), access::READ_INTEGRATION),
        route(routes!(test_events::send), access::SEND_TEST_EVENT),
        route(routes!(events::list), access::LIST_EVENTS),
        route(routes!(events::read), access::READ_EVENT),
        route(routes!(events::erase), access::ERASE_EVENT),
        route(routes!(events::status), access::READ_STATUS),
        route(routes!(events::processing_status), access::READ_STATUS),
        route(routes!(replay::request), access::REPLAY_EVENT),
        route(routes!(deliveries::list), access::LIST_DELIVERIES),
        route(routes!(audit::list), access::LIST_AUDIT),
        route(routes!(rejections::list), access::LIST_REJECTIONS),
        route(routes!(replay_requests::list), access::LIST_REPLAY_REQUESTS),
        route(routes!(replay_requests::read), access::READ_REPLAY_REQUEST),
        route(routes!(stream::events), access::WATCH_EVENTS),
        route(routes!(replays::start::start), access::START_REPLAY),
        route(routes!(replays::list), access::LIST_REPLAYS),
        route(routes!(replays::read), access::READ_REPLAY),
        route(routes!(replays::change), access::CHANGE_REPLAY),
        route(routes!(replays::pause), access::CHANGE_REPLAY),
        route(routes!(replays::resume), access::CHANGE_REPLAY),
        route(routes!(replays::cancel), access::CHANGE_REPLAY),
    ]
}

/// Returns the routes, each behind its decision.
pub(super) fn router(state: &ManagementState) -> Router<ManagementState> {
    let mut router = OpenApiRouter::new();
    for ManagedRoute { handler: (schemas, paths, methods), access } in table() {
        let decision = from_fn_with_state((state.clone(), access), authorize::authorize);
        router = router.routes((schemas, paths, methods.route_layer(decision)));
    }
    router.split_for_parts().0
}

/// Returns the description of the routes, each with what it takes to use it.
pub(super) fn described() -> OpenApi {
    let mut router = OpenApiRouter::<ManagementState>::new();
    for ManagedRoute { handler: (schemas, mut paths, methods), access } in table() {
        for operation in paths.paths.values_mut().flat_map(openapi::operations) {
            describe(operation, access);
        }
        router = router.routes((schemas, paths, methods));
    }
    router.into_openapi()
}

fn describe(operation: &mut Operation, access: RouteAccess) {
    let right = json!({
        "resource": access.resource.name(), "verb": access.verb.name(), "scope": access.scope.name(),
        "showsPayloads": access.shows_payloads,
    });
    operation.extensions.get_or_insert(Extensions::default()).insert("x-grapnel-access".to_owned(), right);
}
