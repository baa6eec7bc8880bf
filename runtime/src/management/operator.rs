//! What the console reads and does: the functions behind the routes, for a caller that it has identified itself.
//!
//! Each goes through the same decision as its route, by the same line of the table, so nothing is seen here that the API would withhold.
//! Queries are those of the API, as text, and so are the errors about them.

use grapnel_core::ids::{EventId, IntegrationId};
use grapnel_core::replay::DesiredState;
use grapnel_crds::IntegrationSpec;
use grapnel_store::views::owners;
use grapnel_store::{audit as trail, integrations as rows};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::answer::{self, Listed};
use super::authorize::{Grant, Subject, Visible, decide, may_for, may_somewhere, visible};
use super::events::ErasedEvent;
use super::filter_trial::{FilterTrial, try_expression};
use super::identify::Caller;
use super::model::{
    AttemptView, AuditEntryView, EventRecordView, EventView, IntegrationRecordView, IntegrationStatsView,
    IntegrationView, ReplayRequestView, ReplayView,
};
use super::overview::{IntegrationHealth, OverviewCache};
use super::rejections::RejectionsMeta;
use super::replay::{ReplayAccepted, ReplayBody};
use super::replays::start::{Begun, begin, target_in};
use super::rights::{Resource, Verb};
use super::routes::{RouteAccess, access};
use super::series::{Series, SeriesWindow};
use super::test_events::{TestEventBody, TestEventSent, store_and_wake};
use super::{
    ManagementState, audit, deliveries, events, integrations, overview, rejections, replay, replay_requests,
    replays, series,
};
use crate::http::envelope::{ApiError, ErrorCode};
use crate::rejections::Rejection;

/// A caller at the management API, in this process.
#[derive(Clone)]
pub(crate) struct Operator {
    state: ManagementState,
    pub(crate) caller: Caller,
}

/// What a caller may do at all: in a namespace that has Integrations, or in all of them. Pages that are about one Integration ask for
/// that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rights {
    pub(crate) integrations: bool,
    pub(crate) events: bool,
    pub(crate) deliveries: bool,
    pub(crate) audit: bool,
    pub(crate) replays: bool,
    /// To request replays, not only to see them.
    pub(crate) replaying: bool,
    /// To see bodies and headers, and what needs that.
    pub(crate) payloads: bool,
}

impl Rights {
    const ALL: Self = Self {
        integrations: true,
        events: true,
        deliveries: true,
        audit: true,
        replays: true,
        replaying: true,
        payloads: true,
    };
}

impl Operator {
    pub(crate) fn new(state: ManagementState, caller: Caller) -> Self {
        Self { state, caller }
    }

    /// Returns what the caller may do somewhere.
    pub(crate) async fn rights(&self) -> Result<Rights, ApiError> {
        if self.caller.may_do_everything() {
            return Ok(Rights::ALL);
        }
        let owners = owners(&self.state.db).await?;
        let may = |access| may_somewhere(&self.state, &self.caller, access, &owners);
        Ok(Rights {
            integrations: may(access::LIST_INTEGRATIONS).await?,
            events: may(access::LIST_EVENTS).await?,
            deliveries: may(access::LIST_DELIVERIES).await?,
            audit: may(access::LIST_AUDIT).await?,
            replays: may(access::LIST_REPLAY_REQUESTS).await?,
            replaying: may(access::REPLAY_EVENT).await?,
            payloads: may(access::USE_PAYLOADS).await?,
        })
    }

    /// Whether the caller may replay events of this Integration.
    pub(crate) async fn may_replay(&self, integration: Uuid) -> Result<bool, ApiError> {
        self.may((Resource::Replays, Verb::Create), integration).await
    }

    /// Whether the caller may erase events of this Integration.
    pub(crate) async fn may_erase(&self, integration: Uuid) -> Result<bool, ApiError> {
        self.may((Resource::Events, Verb::Delete), integration).await
    }

    /// Whether the caller may see bodies and headers of this Integration.
    pub(crate) async fn may_see_payloads(&self, integration: Uuid) -> Result<bool, ApiError> {
        self.may((Resource::Payloads, Verb::Get), integration).await
    }

    async fn may(&self, right: (Resource, Verb), integration: Uuid) -> Result<bool, ApiError> {
        may_for(&self.state, &self.caller, right, IntegrationId::new(integration)).await
    }

    /// `GET /integrations`.
    pub(crate) async fn integrations(&self, query: &str) -> Result<Listed<IntegrationView>, ApiError> {
        let grant = self.grant(access::LIST_INTEGRATIONS, Subject::All).await?;
        integrations::find(&self.state, &grant, Some(query)).await
    }

    /// How each Integration does whose statistics the caller may see.
    pub(crate) async fn overview(&self, cache: &OverviewCache) -> Result<Vec<IntegrationHealth>, ApiError> {
        let listed = self.grant(access::LIST_INTEGRATIONS, Subject::All).await?.visible;
        let owners =
            if self.caller.may_do_everything() { Vec::new() } else { owners(&self.state.db).await? };
        let counted = visible(&self.state, &self.caller, access::READ_INTEGRATION, &owners).await?;
        let with_errors = visible(&self.state, &self.caller, access::LIST_DELIVERIES, &owners).await?;
        overview::read(&self.state.db, cache, &listed.and(&counted), &with_errors).await
    }

    /// `GET /integrations/{id}`, with the spec of the object.
    pub(crate) async fn integration(&self, id: Uuid) -> Result<(IntegrationRecordView, Value), ApiError> {
        self.grant(access::READ_INTEGRATION, Subject::Id(id)).await?;
        integrations::load(&self.state, id).await
    }

    /// The traffic and the workers of an Integration over time.
    pub(crate) async fn series(&self, id: Uuid, window: SeriesWindow) -> Result<Series, ApiError> {
        self.grant(access::READ_INTEGRATION, Subject::Id(id)).await?;
        series::read(&self.state.db, IntegrationId::new(id), window).await
    }

    /// `GET /integrations/{id}/stats`.
    pub(crate) async fn stats(&self, id: Uuid, query: &str) -> Result<IntegrationStatsView, ApiError> {
        self.grant(access::READ_INTEGRATION, Subject::Id(id)).await?;
        integrations::count(&self.state, id, Some(query)).await
    }

    /// `GET /events`.
    pub(crate) async fn events(&self, query: &str) -> Result<Listed<EventView>, ApiError> {
        let grant = self.grant(access::LIST_EVENTS, Subject::All).await?;
        events::find(&self.state, &grant, Some(query)).await
    }

    /// `GET /events/{id}`, as somebody gets it who may not see payloads.
    pub(crate) async fn event_without_payload(&self, id: Uuid) -> Result<EventRecordView, ApiError> {
        let grant = self.grant(access::READ_EVENT, Subject::Id(id)).await?;
        events::load(&self.state, &Grant { payloads: Visible::Of(Vec::new()), ..grant }, id).await
    }

    /// `GET /events/{id}` for somebody who asked to see the payload and may, which is audited before it is returned.
    pub(crate) async fn event_with_payload(&self, id: Uuid) -> Result<EventRecordView, ApiError> {
        let grant = self.grant(access::READ_EVENT, Subject::Id(id)).await?;
        let record = events::load(&self.state, &grant, id).await?;
        if !grant.payloads.includes(IntegrationId::new(record.event.integration_id)) {
            return Err(payloads_needed());
        }
        trail::payload_shown(&self.state.db, EventId::new(id), &grant.requester).await?;
        Ok(record)
    }

    /// Returns the spec of an Integration, to somebody who may see its payloads.
    pub(crate) async fn spec_for_payloads(&self, id: Uuid) -> Result<IntegrationSpec, ApiError> {
        self.grant(access::USE_PAYLOADS, Subject::Id(id)).await?;
        let found = rows::find(&self.state.db, IntegrationId::new(id)).await?;
        let row = found.filter(|found| !found.deleted).ok_or_else(|| answer::not_found("integration"))?.row;
        serde_json::from_str(&row.spec).map_err(|_| {
            let message = "The integration's spec is not one that this version can read";
            ApiError::new(ErrorCode::Conflict, message)
        })
    }

    /// Refuses whoever may see the payloads of no Integration.
    pub(crate) async fn require_payloads_somewhere(&self) -> Result<(), ApiError> {
        if self.rights().await?.payloads { Ok(()) } else { Err(payloads_needed()) }
    }

    /// Tries an expression on the last events of an Integration.
    pub(crate) async fn try_filter(&self, id: Uuid, expression: &str) -> Result<FilterTrial, ApiError> {
        let grant = self.grant(access::USE_PAYLOADS, Subject::Id(id)).await?;
        try_expression(&self.state, &grant, id, expression).await
    }

    /// `POST /integrations/{id}/test-events`, with the members of its body.
    pub(crate) async fn send_test_event(
        &self,
        id: Uuid,
        mut body: Map<String, Value>,
    ) -> Result<TestEventSent, ApiError> {
        let grant = self.grant(access::SEND_TEST_EVENT, Subject::Id(id)).await?;
        store_and_wake(&self.state, &grant, id, TestEventBody::of(&mut body)?).await
    }

    /// `DELETE /events/{id}`.
    pub(crate) async fn erase(&self, id: Uuid) -> Result<ErasedEvent, ApiError> {
        let grant = self.grant(access::ERASE_EVENT, Subject::Id(id)).await?;
        events::blank(&self.state, &grant, id).await
    }

    /// `POST /events/{id}/replay`, with the members of its body.
    pub(crate) async fn replay(
        &self,
        id: Uuid,
        mut body: Map<String, Value>,
    ) -> Result<ReplayAccepted, ApiError> {
        let grant = self.grant(access::REPLAY_EVENT, Subject::Id(id)).await?;
        replay::ask(&self.state, &grant, id, ReplayBody::of(&mut body)?).await
    }

    /// `GET /deliveries`.
    pub(crate) async fn deliveries(&self, query: &str) -> Result<Listed<AttemptView>, ApiError> {
        let grant = self.grant(access::LIST_DELIVERIES, Subject::All).await?;
        deliveries::find(&self.state, &grant, Some(query)).await
    }

    /// `GET /audit-entries`.
    pub(crate) async fn audit_entries(&self, query: &str) -> Result<Listed<AuditEntryView>, ApiError> {
        let grant = self.grant(access::LIST_AUDIT, Subject::All).await?;
        audit::find(&self.state, &grant, Some(query)).await
    }

    /// `GET /rejections`.
    pub(crate) async fn rejections(&self, route: &str) -> Result<(Vec<Rejection>, RejectionsMeta), ApiError> {
        let grant = self.grant(access::LIST_REJECTIONS, Subject::Route(route.to_owned())).await?;
        rejections::read(&self.state, &grant, route).await
    }

    /// `GET /replays`.
    pub(crate) async fn replays(&self, query: &str) -> Result<Listed<ReplayView>, ApiError> {
        let grant = self.grant(access::LIST_REPLAYS, Subject::All).await?;
        replays::find(&self.state, &grant, Some(query)).await
    }

    /// `GET /replays/{id}`.
    pub(crate) async fn replay_job(&self, id: Uuid) -> Result<ReplayView, ApiError> {
        self.grant(access::READ_REPLAY, Subject::Id(id)).await?;
        replays::load(&self.state, id).await
    }

    /// `POST /replays`, with the members of its body.
    pub(crate) async fn start_replay(&self, body: Map<String, Value>) -> Result<Begun, ApiError> {
        let grant = self.grant(access::START_REPLAY, Subject::Replay(target_in(&body)?)).await?;
        begin(&self.state, grant, body).await
    }

    /// `POST /replays/{id}/pause`, `resume` and `cancel`.
    pub(crate) async fn ask_replay(&self, id: Uuid, desired: DesiredState) -> Result<ReplayView, ApiError> {
        let grant = self.grant(access::CHANGE_REPLAY, Subject::Id(id)).await?;
        replays::ask_for(&self.state, &grant, id, desired).await
    }

    /// `PATCH /replays/{id}`, with the members of its body.
    pub(crate) async fn change_replay(
        &self,
        id: Uuid,
        body: Map<String, Value>,
    ) -> Result<ReplayView, ApiError> {
        let grant = self.grant(access::CHANGE_REPLAY, Subject::Id(id)).await?;
        replays::change_to(&self.state, &grant, id, body).await
    }

    /// Whether the caller may pause, resume and cancel replays of this Integration, and change their rate.
    pub(crate) async fn may_change_replays(&self, integration: Uuid) -> Result<bool, ApiError> {
        self.may((Resource::Replays, Verb::Update), integration).await
    }

    /// `GET /replay-requests`.
    pub(crate) async fn replay_requests(&self, query: &str) -> Result<Listed<ReplayRequestView>, ApiError> {
        let grant = self.grant(access::LIST_REPLAY_REQUESTS, Subject::All).await?;
        replay_requests::find(&self.state, &grant, Some(query)).await
    }

    async fn grant(&self, access: RouteAccess, subject: Subject) -> Result<Grant, ApiError> {
        decide(&self.state, access, &self.caller, subject).await
    }
}

fn payloads_needed() -> ApiError {
    let right = Resource::Payloads.name();
    ApiError::new(ErrorCode::Forbidden, format!("The right to get {right}.grapnel.dev is needed"))
}
