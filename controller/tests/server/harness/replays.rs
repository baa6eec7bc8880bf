//! Replays of the tests: objects, their jobs, and deliveries that failed.

use std::sync::LazyLock;
use std::time::Instant;

use grapnel_crds::{Replay, ReplayPhase, conditions};
use grapnel_testing::{WAIT_TIMEOUT, wait_until};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Installation;

/// Returns the spec of a Replay of what failed in the last hour.
pub(crate) fn failed_spec(integration: &str) -> Value {
    // Once, so that the same spec is written the same.
    static AFTER: LazyLock<String> = LazyLock::new(|| {
        let after = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
        format!("{after:.0}")
    });
    json!({
        "integrationRef": {"name": integration}, "select": "Failed", "reason": "the receiver was down",
        "receivedAfter": *AFTER,
    })
}

impl Installation {
    pub(crate) fn replays(&self) -> Api<Replay> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies a Replay as a user does.
    pub(crate) async fn apply_replay(&self, name: &str, spec: &Value) -> Replay {
        let object = json!({
            "apiVersion": grapnel_crds::API_VERSION, "kind": grapnel_crds::REPLAY_KIND,
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        });
        let parameters = PatchParams::apply("kubectl").force();
        self.replays().patch(name, &parameters, &Patch::Apply(&object)).await.expect("apply a Replay")
    }

    pub(crate) async fn replay(&self, name: &str) -> Option<Replay> {
        self.replays().get_opt(name).await.expect("read a Replay")
    }

    pub(crate) async fn delete_replay(&self, name: &str) {
        self.replays().delete(name, &DeleteParams::default()).await.expect("delete a Replay");
        wait_until("the Replay to be gone", async || self.replay(name).await.is_none()).await;
    }

    /// Waits until the Replay can be deleted without the controller.
    pub(crate) async fn wait_until_released(&self, name: &str) {
        let is_released = |object: Replay| object.finalizers().is_empty();
        wait_until("the Replay to be released", async || self.replay(name).await.is_some_and(is_released))
            .await;
    }

    /// Waits until the Replay is in this phase for this reason, at its current generation.
    pub(crate) async fn wait_for_replay(&self, name: &str, phase: ReplayPhase, reason: &str) -> Replay {
        let mut last = None;
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while Instant::now() < deadline {
            last = self.replay(name).await;
            if let Some(object) = last.as_ref().filter(|object| is_in(object, phase, reason)) {
                return object.clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let found = last.map(|object| serde_json::to_string(&object.status).expect("JSON"));
        panic!("{name} is not {phase:?} ({reason}): {found:?}");
    }

    /// Returns the jobs that were made for objects of this name, oldest first.
    pub(crate) async fn jobs(&self, name: &str) -> Vec<Value> {
        let sql = format!(
            "SELECT id::text, object_uid::text AS uid, state, desired_state AS desired, rate_per_second AS rate, actor,
                matched, fed, succeeded, failed
            FROM replay_jobs WHERE object_name = '{name}' AND object_namespace = '{}' ORDER BY id",
            self.namespace
        );
        self.database.rows(&sql).await
    }

    /// Inserts this many events of an Integration whose delivery to `orders` has failed.
    pub(crate) async fn insert_failed(&self, id: Uuid, count: usize) {
        for number in 0..count {
            let insert = format!(
                "WITH event AS (
                    INSERT INTO events (id, integration_id, provider, event_type, occurred_at, received_at, correlation_id,
                        headers, raw_body, payload_key, payload_start, payload_length, idempotency_key)
                    VALUES (uuidv7_now(), '{id}', 'acme', 'order.created', now(), now(), 'c', '[]', '{{}}', 'data', 0, 2,
                        'failed-{number}')
                    RETURNING id
                )
                INSERT INTO deliveries (event_id, destination, integration_id, status, attempts, started_at, finished_at,
                    last_error, updated_at)
                SELECT id, 'orders', '{id}', 'failed', 1, now(), now(), 'HTTP 503', now() FROM event"
            );
            self.database.execute(&insert).await;
        }
        // The window of an object ends with the second in which it is created.
        let second = jiff::Timestamp::now().as_second();
        wait_until("the next second", async || jiff::Timestamp::now().as_second() > second).await;
    }
}

fn is_in(object: &Replay, phase: ReplayPhase, reason: &str) -> bool {
    let Some(status) = &object.status else { return false };
    let does = conditions::find(&status.conditions, conditions::replay::RUNNING);
    status.phase == Some(phase)
        && status.observed_generation == object.metadata.generation
        && does.is_some_and(|condition| condition.reason == reason)
}
