//! Configured integrations.

use grapnel_core::integration::RowState;
use grapnel_store::views::IntegrationSummary;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{InvalidJson, Rfc3339Millis};

/// A configured source and its destinations.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Integration)]
pub(in crate::management) struct IntegrationView {
    id: Uuid,
    namespace: String,
    name: String,
    display_name: String,
    provider: String,
    /// The last segment of the path that the provider posts to.
    route: String,
    state: IntegrationStateView,
    /// Whether webhooks are accepted: the state is `Active` or `DeliveryPaused`.
    is_active: bool,
    destinations: Vec<DestinationView>,
    created_at: Rfc3339Millis,
    updated_at: Rfc3339Millis,
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
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = IntegrationState)]
enum IntegrationStateView {
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
struct DestinationView {
    name: String,
    url: String,
}
