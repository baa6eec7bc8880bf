//! Configured integrations.

use grapnel_core::integration::RowState;
use grapnel_store::views::IntegrationSummary;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{InvalidJson, ObjectStatusView, Rfc3339Millis};

/// A configured source and its destinations.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Integration)]
pub(crate) struct IntegrationView {
    pub(crate) id: Uuid,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) display_name: String,
    pub(crate) provider: String,
    /// The last segment of the path that the provider posts to.
    pub(crate) route: String,
    pub(crate) state: IntegrationStateView,
    /// Whether webhooks are accepted: the state is `Active` or `DeliveryPaused`.
    pub(crate) is_active: bool,
    pub(crate) destinations: Vec<DestinationView>,
    pub(crate) created_at: Rfc3339Millis,
    pub(crate) updated_at: Rfc3339Millis,
    #[serde(flatten)]
    pub(crate) status: ObjectStatusView,
}

impl IntegrationView {
    /// Renders a row.
    pub(in crate::management) fn from_summary(summary: IntegrationSummary) -> Result<Self, InvalidJson> {
        let destinations = serde_json::from_str(&summary.destinations).map_err(|source| InvalidJson {
            table: "integrations",
            column: "spec",
            id: summary.id.uuid(),
            source,
        })?;
        Ok(Self {
            id: summary.id.uuid(),
            namespace: summary.namespace,
            name: summary.name,
            display_name: summary.display_name,
            provider: summary.provider,
            route: summary.route,
            state: summary.state.into(),
            is_active: matches!(summary.state, RowState::Active | RowState::DeliveryPaused),
            destinations,
            created_at: summary.created_at.into(),
            updated_at: summary.updated_at.into(),
            status: ObjectStatusView::new(summary.status),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = IntegrationState)]
pub(crate) enum IntegrationStateView {
    /// Webhooks are accepted and delivered.
    Active,
    /// Webhooks are accepted and stored, and nothing is delivered.
    DeliveryPaused,
    /// Webhooks are refused.
    Disabled,
    /// Its object is being deleted: webhooks are refused, and the accepted ones are still delivered.
    Draining,
}

impl From<RowState> for IntegrationStateView {
    fn from(state: RowState) -> Self {
        match state {
            RowState::Active => Self::Active,
            RowState::DeliveryPaused => Self::DeliveryPaused,
            RowState::Disabled => Self::Disabled,
            RowState::Draining => Self::Draining,
        }
    }
}

/// A named callback URL.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Destination)]
pub(crate) struct DestinationView {
    pub(crate) name: String,
    pub(crate) url: String,
}
