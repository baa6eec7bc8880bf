//! What the caller may do: decided for every route by its line of the table, before the handler runs.
//!
//! What a caller may not get does not exist for it (404); what it may get and not do is 403. A list is of what it may see, and 403
//! where that is nothing at all.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use grapnel_access::{Namespaces, Place, Unavailable, User};
use grapnel_core::ids::{EventId, IntegrationId, ReplayId};
use grapnel_store::audit::Requester;
use grapnel_store::replay_jobs::{ReplayOwner, ReplayTarget};
use grapnel_store::views::{
    Owner, owner_of_event, owner_of_integration, owner_of_named, owner_of_replay_request, owner_of_route,
    owners,
};
use http::request::Parts;
use uuid::Uuid;

use super::identify::{Caller, Who, undecided};
use super::path::PathId;
use super::query::Query;
use super::rights::{Resource, Verb};
use super::routes::{RouteAccess, Scope};
use super::{ClusterAccess, ManagementState, answer, body, rejections, replays};
use crate::http::envelope::{ApiError, ErrorCode};

/// The Integrations of which a caller may see something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Visible {
    All,
    Of(Vec<IntegrationId>),
}

impl Visible {
    /// Returns the Integrations that a list is restricted to, if it is.
    pub(super) fn filter(&self) -> Option<Vec<IntegrationId>> {
        match self {
            Self::All => None,
            Self::Of(ids) => Some(ids.clone()),
        }
    }

    pub(super) fn includes(&self, id: IntegrationId) -> bool {
        match self {
            Self::All => true,
            Self::Of(ids) => ids.contains(&id),
        }
    }

    /// Returns the Integration, where it is one alone: that which the decision was about.
    pub(super) fn only(&self) -> Option<IntegrationId> {
        match self {
            Self::Of(ids) if ids.len() == 1 => ids.first().copied(),
            Self::All | Self::Of(_) => None,
        }
    }

    /// Returns those that are in both.
    pub(super) fn and(self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, other) => other.clone(),
            (own, Self::All) => own,
            (Self::Of(own), other) => Self::Of(own.into_iter().filter(|id| other.includes(*id)).collect()),
        }
    }

    fn in_namespaces(namespaces: Namespaces, owners: &[Owner]) -> Self {
        let Namespaces::These(names) = namespaces else { return Self::All };
        let allowed = owners.iter().filter(|owner| names.binary_search(&owner.namespace).is_ok());
        Self::Of(allowed.map(|owner| owner.id).collect())
    }
}

/// What a handler needs to know of a caller that was let through.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    /// What a list may show.
    pub(super) visible: Visible,
    /// Of which Integrations bodies and headers may be shown.
    pub(super) payloads: Visible,
    pub(super) requester: Requester,
}

impl Grant {
    fn everything(caller: &Caller) -> Self {
        Self { visible: Visible::All, payloads: Visible::All, requester: caller.requester() }
    }

    /// Returns what a list may show that is filtered by any of these parameters, which read bodies: who may not see them could ask for
    /// their text letter by letter.
    pub(super) fn visible_with(
        &self,
        query: &Query<'_>,
        reading: &[&'static str],
    ) -> Result<&Visible, ApiError> {
        let Some(name) = query.first_of(reading) else { return Ok(&self.visible) };
        if self.payloads == Visible::Of(Vec::new()) {
            let right = Resource::Payloads.name();
            let message = format!("The right to get {right}.grapnel.dev is needed for {name}");
            return Err(ApiError::new(ErrorCode::Forbidden, message));
        }
        Ok(&self.payloads)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Grant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // Every route of the table has one.
        parts.extensions.get().cloned().ok_or_else(ApiError::internal)
    }
}

/// Lets a request through with its grant.
pub(super) async fn authorize(
    State((state, access)): State<(ManagementState, RouteAccess)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let (target, body) = match target(access, &parts, body).await {
        Ok(read) => read,
        Err(refusal) => return refusal.into_response(),
    };
    match grant(&state, access, &mut parts, target).await {
        Ok(grant) => {
            parts.extensions.insert(grant);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Reads what a body is about, where rights depend on it, and returns the body for the handler.
async fn target(
    access: RouteAccess,
    parts: &Parts,
    body: Body,
) -> Result<(Option<ReplayTarget>, Body), ApiError> {
    if access.scope != Scope::Body {
        return Ok((None, body));
    }
    let bytes = body::read_json(&parts.headers, body, replays::MAX_BODY_BYTES).await?;
    Ok((Some(replays::start::target(&bytes)?), Body::from(bytes)))
}

async fn grant(
    state: &ManagementState,
    access: RouteAccess,
    parts: &mut Parts,
    target: Option<ReplayTarget>,
) -> Result<Grant, ApiError> {
    let caller = parts.extensions.get::<Caller>().cloned().ok_or_else(ApiError::internal)?;
    if caller.may_do_everything() {
        return Ok(Grant::everything(&caller));
    }
    let subject = match access.scope {
        Scope::List => Subject::All,
        Scope::Route => Subject::Route(rejections::route(parts.uri.query())?),
        Scope::Body => Subject::Replay(target.ok_or_else(ApiError::internal)?),
        Scope::Event | Scope::Integration | Scope::ReplayRequest | Scope::Replay => {
            let PathId(id) = PathId::from_request_parts(parts, state).await?;
            Subject::Id(id)
        }
    };
    decide(state, access, &caller, subject).await
}

/// What a request is about, in the scope of its route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    All,
    Id(Uuid),
    Route(String),
    /// What a replay is to be of.
    Replay(ReplayTarget),
}

/// Decides whether the caller may do this, and what it sees of it.
pub(super) async fn decide(
    state: &ManagementState,
    access: RouteAccess,
    caller: &Caller,
    subject: Subject,
) -> Result<Grant, ApiError> {
    let Some((user, cluster)) = judged(state, caller)? else { return Ok(Grant::everything(caller)) };
    let requester = caller.requester();
    let decision = Decision { state, cluster, access, user, requester: &requester };
    let db = &state.db;
    let (visible, payloads) = match (access.scope, subject) {
        (Scope::List, _) => decision.of_list().await?,
        (Scope::Event, Subject::Id(id)) => {
            decision.of_one(owner_of_event(db, EventId::new(id)).await?, "event").await?
        }
        (Scope::Integration, Subject::Id(id)) => {
            decision.of_one(owner_of_integration(db, IntegrationId::new(id)).await?, "integration").await?
        }
        (Scope::Route, Subject::Route(route)) => {
            decision.of_one(owner_of_route(db, &route).await?, "route").await?
        }
        (Scope::ReplayRequest, Subject::Id(id)) => {
            let owner = owner_of_replay_request(db, ReplayId::new(id)).await?;
            decision.of_one(owner, "replay request").await?
        }
        (Scope::Replay, Subject::Id(id)) => match replays::owner(state, id).await? {
            Some(ReplayOwner::Integration(owner)) => decision.of_one(Some(owner), replays::KIND).await?,
            Some(ReplayOwner::Namespace(namespace)) => {
                decision.of_namespace(&namespace, replays::KIND).await?
            }
            None => return Err(answer::not_found(replays::KIND)),
        },
        (Scope::Body, Subject::Replay(ReplayTarget::Integration(integration))) => {
            decision.of_one(owner_of_named(db, &integration).await?, "integration").await?
        }
        (Scope::Body, Subject::Replay(ReplayTarget::Namespace(namespace))) => {
            decision.of_namespace(&namespace, "namespace").await?
        }
        _ => return Err(ApiError::internal()),
    };
    Ok(Grant { visible, payloads, requester })
}

/// Returns the Integrations of which the caller has the right.
pub(super) async fn visible(
    state: &ManagementState,
    caller: &Caller,
    access: RouteAccess,
    owners: &[Owner],
) -> Result<Visible, ApiError> {
    let Some((user, cluster)) = judged(state, caller)? else { return Ok(Visible::All) };
    let decision = Decision { state, cluster, access, user, requester: &caller.requester() };
    decision.visible(access.resource, access.verb, owners).await
}

/// Returns whether the caller has the right somewhere: in a namespace that has Integrations, or in all.
pub(super) async fn may_somewhere(
    state: &ManagementState,
    caller: &Caller,
    access: RouteAccess,
    owners: &[Owner],
) -> Result<bool, ApiError> {
    Ok(visible(state, caller, access, owners).await? != Visible::Of(Vec::new()))
}

/// Returns whether the caller has the right for an Integration. To be asked about is no attempt, so a denial is not recorded.
pub(super) async fn may_for(
    state: &ManagementState,
    caller: &Caller,
    (resource, verb): (Resource, Verb),
    id: IntegrationId,
) -> Result<bool, ApiError> {
    let Some((user, cluster)) = judged(state, caller)? else { return Ok(true) };
    let Some(owner) = owner_of_integration(&state.db, id).await? else { return Ok(false) };
    let access = RouteAccess { resource, verb, scope: Scope::Integration, shows_payloads: false };
    let decision = Decision { state, cluster, access, user, requester: &caller.requester() };
    decision.may(resource, verb, &owner).await
}

/// Returns the user whose rights count, and who knows them; `None`: the caller may do everything.
fn judged<'a>(
    state: &'a ManagementState,
    caller: &'a Caller,
) -> Result<Option<(&'a User, &'a ClusterAccess)>, ApiError> {
    match (&caller.who, &state.cluster) {
        (Who::Key(_) | Who::Local, _) => Ok(None),
        (Who::User(user) | Who::ProxyUser(user), Some(cluster)) => Ok(Some((user, cluster))),
        (Who::User(_) | Who::ProxyUser(_), None) => Err(ApiError::internal()),
    }
}

/// The decision about one request of a user.
struct Decision<'a> {
    state: &'a ManagementState,
    cluster: &'a ClusterAccess,
    access: RouteAccess,
    user: &'a User,
    requester: &'a Requester,
}

impl Decision<'_> {
    /// Decides what a list shows, and of what it shows payloads.
    async fn of_list(&self) -> Result<(Visible, Visible), ApiError> {
        let owners = owners(&self.state.db).await?;
        let visible = self.visible(self.access.resource, self.access.verb, &owners).await?;
        if visible == Visible::Of(Vec::new()) {
            self.state.denials.count("forbidden");
            let right = self.right_text();
            let message = format!("The right to {right} is needed in a namespace that has Integrations");
            return Err(ApiError::new(ErrorCode::Forbidden, message));
        }
        let payloads = if self.access.shows_payloads {
            self.visible(Resource::Payloads, Verb::Get, &owners).await?
        } else {
            Visible::Of(Vec::new())
        };
        Ok((visible, payloads))
    }

    async fn visible(&self, resource: Resource, verb: Verb, owners: &[Owner]) -> Result<Visible, ApiError> {
        let namespaces: BTreeSet<&String> = owners.iter().map(|owner| &owner.namespace).collect();
        let namespaces = namespaces.into_iter().cloned().collect();
        let allowed = self.cluster.authorizer.namespaces(self.user, resource.right(verb), namespaces).await;
        Ok(Visible::in_namespaces(allowed.map_err(|error| self.undecided(error))?, owners))
    }

    /// Decides about something of one Integration. `kind` is what the path names.
    async fn of_one(&self, owner: Option<Owner>, kind: &str) -> Result<(Visible, Visible), ApiError> {
        let Some(owner) = owner else { return Err(answer::not_found(kind)) };
        if !self.may(self.access.resource, self.access.verb, &owner).await? {
            let (resource, verb) = self.getting();
            let is_get = (resource, verb) == (self.access.resource, self.access.verb);
            let exists = !is_get && self.may(resource, verb, &owner).await?;
            self.state.denials.record(&self.state.db, self.requester, &owner, self.access).await;
            return Err(if exists {
                let message = format!("The right to {} is needed for the Integration", self.right_text());
                ApiError::new(ErrorCode::Forbidden, message)
            } else {
                answer::not_found(kind)
            });
        }
        let shows_payloads =
            self.access.shows_payloads && self.may(Resource::Payloads, Verb::Get, &owner).await?;
        let own = Visible::Of(vec![owner.id]);
        let payloads = if shows_payloads { own.clone() } else { Visible::Of(Vec::new()) };
        Ok((own, payloads))
    }

    /// Decides about something of all Integrations of a namespace.
    async fn of_namespace(&self, namespace: &str, kind: &str) -> Result<(Visible, Visible), ApiError> {
        let may = async |resource: Resource, verb: Verb| {
            let right = resource.right(verb);
            let allowed = self.cluster.authorizer.may(self.user, right, Place::Namespace(namespace)).await;
            allowed.map_err(|error| self.undecided(error))
        };
        if !may(self.access.resource, self.access.verb).await? {
            self.state.denials.count("forbidden");
            let (resource, verb) = self.getting();
            return Err(if may(resource, verb).await? {
                let message = format!("The right to {} is needed in the namespace", self.right_text());
                ApiError::new(ErrorCode::Forbidden, message)
            } else {
                answer::not_found(kind)
            });
        }
        let shows_payloads = self.access.shows_payloads && may(Resource::Payloads, Verb::Get).await?;
        let payloads = if shows_payloads { Visible::All } else { Visible::Of(Vec::new()) };
        Ok((Visible::All, payloads))
    }

    /// The right to see that what the path names exists.
    fn getting(&self) -> (Resource, Verb) {
        match self.access.scope {
            Scope::ReplayRequest | Scope::Replay | Scope::Body => (Resource::Replays, Verb::Get),
            Scope::Integration => (Resource::Integrations, Verb::Get),
            Scope::Event | Scope::Route | Scope::List => (Resource::Events, Verb::Get),
        }
    }

    async fn may(&self, resource: Resource, verb: Verb, owner: &Owner) -> Result<bool, ApiError> {
        let place = Place::Object { namespace: &owner.namespace, name: &owner.name };
        let allowed = self.cluster.authorizer.may(self.user, resource.right(verb), place).await;
        allowed.map_err(|error| self.undecided(error))
    }

    fn undecided(&self, _: Unavailable) -> ApiError {
        self.state.denials.count("unavailable");
        undecided()
    }

    fn right_text(&self) -> String {
        format!("{} {}.grapnel.dev", self.access.verb.name(), self.access.resource.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_of_the_integrations_in_the_allowed_namespaces() {
        let owner = |namespace: &str| Owner {
            id: IntegrationId::generate(),
            namespace: namespace.to_owned(),
            name: "acme".to_owned(),
        };
        let owners = [owner("bank"), owner("shop"), owner("shop"), owner("zoo")];
        let these = |names: &[&str]| Namespaces::These(names.iter().map(|name| (*name).to_owned()).collect());
        let visible = Visible::in_namespaces(these(&["shop", "zoo"]), &owners);
        assert_eq!(visible, Visible::Of(owners[1..].iter().map(|owner| owner.id).collect()));
        assert!(visible.includes(owners[1].id) && !visible.includes(owners[0].id));
        assert_eq!(Visible::in_namespaces(these(&["bank"]), &owners).filter(), Some(vec![owners[0].id]));
        assert_eq!(Visible::in_namespaces(these(&[]), &owners), Visible::Of(Vec::new()));
        assert_eq!(Visible::in_namespaces(Namespaces::All, &owners).filter(), None);
    }
}
