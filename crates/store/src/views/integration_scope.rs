//! Which integrations a list is about.

use grapnel_core::ids::IntegrationId;
use sqlx::Row;
use uuid::Uuid;

use super::snapshot::Snapshot;
use crate::database::Database;
use crate::error::Result;

/// The integrations whose own index is looked into for one list; of more, the rows of all are walked.
const NARROW: usize = 64;

/// An integration as an operator names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntegrationRef {
    Id(Uuid),
    /// Each that has had this name: one that was deleted and made again has several ids.
    Name {
        namespace: String,
        name: String,
    },
}

/// The integrations that a list is about. Absent filters restrict nothing; deleted integrations belong to the namespace that they had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IntegrationSelection {
    pub integration: Option<IntegrationRef>,
    /// Only those in one of these namespaces.
    pub namespaces: Option<Vec<String>>,
}

/// A selection as ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IntegrationScope(Option<Vec<Uuid>>);

impl IntegrationSelection {
    /// Whether it restricts anything.
    pub fn is_any(&self) -> bool {
        self.integration.is_none() && self.namespaces.is_none()
    }

    /// Finds the ids; `None` is any.
    pub async fn ids(&self, db: &Database) -> Result<Option<Vec<IntegrationId>>> {
        let scope = self.resolve(db).await?;
        Ok(scope.0.map(|ids| ids.into_iter().map(IntegrationId::new).collect()))
    }

    /// Finds the ids.
    pub(super) async fn resolve(&self, db: &Database) -> Result<IntegrationScope> {
        let (id, name) = match &self.integration {
            None if self.namespaces.is_none() => return Ok(IntegrationScope(None)),
            // Its row may be gone.
            Some(IntegrationRef::Id(id)) if self.namespaces.is_none() => {
                return Ok(IntegrationScope(Some(vec![*id])));
            }
            None => (None, None),
            Some(IntegrationRef::Id(id)) => (Some(*id), None),
            Some(IntegrationRef::Name { namespace, name }) => {
                (None, Some((namespace.as_str(), name.as_str())))
            }
        };
        db.bounded(async {
            let mut snapshot = Snapshot::take(db).await?;
            // There are as many rows as there are, and were, objects in the cluster: they are read.
            let rows = sqlx::query(
                "/* views::integration_scope */
                SELECT i.id FROM integrations i
                WHERE ($1::uuid IS NULL OR i.id = $1)
                    AND ($2::text IS NULL OR i.namespace = $2)
                    AND ($3::text IS NULL OR i.name = $3)
                    AND ($4::text[] IS NULL OR i.namespace = ANY($4))
                ORDER BY i.id",
            )
            .bind(id)
            .bind(name.map(|(namespace, _)| namespace))
            .bind(name.map(|(_, name)| name))
            .bind(self.namespaces.as_deref())
            .fetch_all(snapshot.connection())
            .await?;
            snapshot.release().await?;
            let ids = rows.iter().map(|row| Ok(row.try_get("id")?)).collect::<Result<_>>()?;
            Ok(IntegrationScope(Some(ids)))
        })
        .await
    }
}

impl IntegrationScope {
    /// The part of it that is among these; `None` is any.
    pub(super) fn within(self, visible: Option<&[IntegrationId]>) -> Self {
        let Some(visible) = visible else { return self };
        let visible = visible.iter().map(|id| id.uuid());
        Self(Some(match self.0 {
            None => visible.collect(),
            Some(ids) => visible.filter(|id| ids.contains(id)).collect(),
        }))
    }

    /// The scope of these ids; `None` is any.
    #[cfg(test)]
    pub(super) fn of(ids: Option<Vec<Uuid>>) -> Self {
        Self(ids)
    }

    /// The ids; `None` is any.
    pub(super) fn ids(&self) -> Option<&[Uuid]> {
        self.0.as_deref()
    }

    /// Whether it restricts nothing.
    pub(super) fn is_any(&self) -> bool {
        self.0.is_none()
    }

    /// Whether no row can be in it.
    pub(super) fn is_nothing(&self) -> bool {
        self.0.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether the index of each integration is looked into.
    pub(super) fn is_narrow(&self) -> bool {
        self.0.as_ref().is_some_and(|ids| ids.len() <= NARROW)
    }
}
