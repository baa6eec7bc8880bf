//! The Integrations that a visitor may list, by their ids: lists of the API have only ids.

use std::collections::HashMap;

use uuid::Uuid;

use crate::console::visitor::Visitor;
use crate::http::envelope::{ApiError, ErrorCode};
use crate::management::model::IntegrationView;

/// Pages of a hundred Integrations that are read.
const MAX_PAGES: usize = 10;

/// An Integration as lists name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) id: Uuid,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) route: String,
    pub(super) destinations: Vec<String>,
}

impl Known {
    /// Returns the form in which the API's queries name it.
    pub(super) fn reference(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// The Integrations that there are and that may be seen, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct KnownIntegrations {
    pub(super) all: Vec<Known>,
    by_id: HashMap<Uuid, usize>,
}

impl KnownIntegrations {
    /// Reads them. Whoever may list none of them sees ids instead.
    pub(super) async fn read(visitor: &Visitor) -> Result<Self, ApiError> {
        if !visitor.rights.integrations {
            return Ok(Self::default());
        }
        let (mut all, mut cursor) = (Vec::new(), String::new());
        for _ in 0..MAX_PAGES {
            let listed = match visitor.operator.integrations(&format!("pageSize=100{cursor}")).await {
                // There may be none, and then no right to any.
                Err(error) if error.code() == ErrorCode::Forbidden => break,
                listed => listed?,
            };
            all.extend(listed.items.into_iter().map(known));
            let Some(next) = listed.meta.next_cursor else { break };
            cursor = format!("&cursor={next}");
        }
        Ok(Self::of(all))
    }

    fn of(mut all: Vec<Known>) -> Self {
        all.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let by_id = all.iter().enumerate().map(|(index, known)| (known.id, index)).collect();
        Self { all, by_id }
    }

    pub(super) fn get(&self, id: Uuid) -> Option<&Known> {
        self.all.get(*self.by_id.get(&id)?)
    }

    /// Returns the Integration that a query names, by its id or as `namespace/name`.
    pub(super) fn named(&self, reference: &str) -> Option<&Known> {
        let is_meant = |known: &&Known| known.id.to_string() == reference || known.reference() == reference;
        self.all.iter().find(is_meant)
    }
}

fn known(integration: IntegrationView) -> Known {
    Known {
        id: integration.id,
        namespace: integration.namespace,
        name: integration.name,
        route: integration.route,
        destinations: integration.destinations.into_iter().map(|destination| destination.name).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integration_is_found_by_its_id_and_its_name() {
        let known = |name: &str, id| Known {
            id: Uuid::from_u128(id),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            route: name.to_owned(),
            destinations: Vec::new(),
        };
        let integrations = KnownIntegrations::of(vec![known("orders", 1), known("assets", 2)]);
        assert_eq!(
            integrations.get(Uuid::from_u128(1)).map(Known::reference).as_deref(),
            Some("shop/orders")
        );
        assert_eq!(integrations.named("shop/assets").map(|known| known.id), Some(Uuid::from_u128(2)));
        assert_eq!(
            integrations.named(&Uuid::from_u128(2).to_string()).map(|known| &*known.name),
            Some("assets")
        );
        assert!(integrations.named("shop/none").is_none() && integrations.get(Uuid::nil()).is_none());
        assert_eq!(integrations.all[0].name, "assets");
    }
}
