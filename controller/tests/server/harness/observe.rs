//! Observations of the tests: objects and their conditions, rows, workers, Events.

use std::time::{Duration, Instant};

use grapnel_crds::{Integration, conditions, names};
use grapnel_testing::{WAIT_TIMEOUT, wait_until};
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::Value;
use uuid::Uuid;

use super::Installation;

impl Installation {
    pub(crate) async fn get(&self, name: &str) -> Option<Integration> {
        self.integrations().get_opt(name).await.expect("read an Integration")
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.integrations().delete(name, &DeleteParams::default()).await.expect("delete an Integration");
    }

    pub(crate) async fn wait_until_gone(&self, name: &str) {
        wait_until("the object to be gone", async || self.get(name).await.is_none()).await;
    }

    /// Waits until the condition has this status and reason at the object's current generation.
    pub(crate) async fn wait_for_condition(
        &self,
        name: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> Integration {
        let mut last = None;
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while Instant::now() < deadline {
            last = self.get(name).await;
            if let Some(object) = last.as_ref().filter(|object| has_condition(object, type_, status, reason))
            {
                return object.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let status_found = last.map(|object| serde_json::to_string(&object.status).expect("JSON"));
        panic!("{name}: {type_} is not {status}/{reason}: {status_found:?}");
    }

    pub(crate) async fn wait_until_ready(&self, name: &str) -> Integration {
        self.wait_for_condition(name, "Ready", "True", "AsDesired").await
    }

    /// Returns the row of an object, as JSON.
    pub(crate) async fn row(&self, id: Uuid) -> Option<Value> {
        let sql = format!(
            "SELECT generation, writer_epoch AS epoch, state, route, encode(secrets, 'hex') AS secrets,
                deleted_at IS NOT NULL AS deleted, spec, endpoints
            FROM integrations WHERE id = '{id}'"
        );
        self.database.rows(&sql).await.pop()
    }

    pub(crate) async fn replicas(&self, id: Uuid) -> Option<i32> {
        let deployment =
            self.deployments().get_opt(&names::worker_deployment(id)).await.expect("read a Deployment");
        deployment.and_then(|deployment| deployment.spec?.replicas)
    }

    pub(crate) async fn wait_for_replicas(&self, id: Uuid, expected: i32) {
        let mut last = None;
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while Instant::now() < deadline {
            last = self.replicas(id).await;
            if last == Some(expected) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{last:?} replicas instead of {expected}");
    }

    /// Returns the reasons of the Events about an object, oldest first.
    pub(crate) async fn event_reasons(&self, name: &str) -> Vec<String> {
        let api: Api<k8s_openapi::api::events::v1::Event> =
            Api::namespaced(self.client.clone(), &self.namespace);
        let mut events = api.list(&ListParams::default()).await.expect("list Events").items;
        events.retain(|event| event.regarding.as_ref().and_then(|it| it.name.as_deref()) == Some(name));
        events.sort_by_key(|event| event.event_time.clone());
        events.into_iter().filter_map(|event| event.reason).collect()
    }
}

/// Returns whether the condition has this status and reason at the current generation.
pub(crate) fn has_condition(object: &Integration, type_: &str, status: &str, reason: &str) -> bool {
    let found = object.status.as_ref().and_then(|found| conditions::find(&found.conditions, type_));
    found.is_some_and(|condition| {
        condition.status == status
            && condition.reason == reason
            && condition.observed_generation == object.metadata.generation
    })
}
