//! What the Integrations of one namespace may take of the platform together: a number of objects, and of workers.
//!
//! Both go by age, so that the answer is the same in every pass and after every restart: the oldest objects keep what
//! they have, and a new one takes nothing from them.

use std::collections::HashMap;

use grapnel_crds::names;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

/// The platform's limits for each namespace.
#[derive(Debug, Clone, Copy)]
pub struct NamespaceLimits {
    pub integrations: usize,
    /// The workers that may run.
    pub workers: i32,
}

/// The order of age. The API server keeps seconds, so the name decides among objects of the same second.
pub fn age(meta: &ObjectMeta) -> impl Ord + '_ {
    (meta.creation_timestamp.as_ref().map(|time| time.0), meta.name.as_deref())
}

/// Returns whether an object is one of the `limit` oldest of its namespace.
pub fn is_within<'a>(meta: &ObjectMeta, all: impl Iterator<Item = &'a ObjectMeta>, limit: usize) -> bool {
    let older = all.filter(|other| other.namespace == meta.namespace && age(other) < age(meta));
    older.take(limit).count() < limit
}

/// The workers that each namespace may still run, in a walk over Integrations from the oldest to the youngest.
#[derive(Debug)]
pub struct WorkerBudget {
    limit: i32,
    left: HashMap<String, i32>,
}

impl WorkerBudget {
    pub fn new(limit: i32) -> Self {
        Self { limit, left: HashMap::new() }
    }

    pub fn left(&self, namespace: &str) -> i32 {
        self.left.get(namespace).copied().unwrap_or(self.limit)
    }

    pub fn take(&mut self, namespace: &str, workers: i32) {
        let left = self.left(namespace) - workers;
        self.left.insert(namespace.to_owned(), left.max(0));
    }
}

/// Returns how many more workers a namespace may run beside those that its Deployments already ask for.
pub fn room<'a>(namespace: &str, deployments: impl Iterator<Item = &'a Deployment>, limit: i32) -> i32 {
    let own = deployments.filter(|deployment| {
        deployment.labels().get(names::INTEGRATION_NAMESPACE_LABEL).is_some_and(|label| label == namespace)
    });
    let wanted = own.filter_map(|deployment| deployment.spec.as_ref()?.replicas);
    (limit - wanted.fold(0, i32::saturating_add)).max(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_oldest_of_a_namespace_are_within_its_limit() {
        let meta = |namespace: &str, name: &str, created: &str| -> ObjectMeta {
            let meta = json!({"namespace": namespace, "name": name, "creationTimestamp": created});
            serde_json::from_value(meta).unwrap()
        };
        let all = [
            meta("shop", "c", "2026-11-23T10:00:00Z"),
            meta("shop", "b", "2026-11-23T10:00:01Z"),
            meta("shop", "a", "2026-11-23T10:00:01Z"),
            meta("other", "z", "2026-11-23T10:00:02Z"),
        ];
        let within = |limit| all.iter().map(|meta| is_within(meta, all.iter(), limit)).collect::<Vec<_>>();
        assert_eq!(within(1), [true, false, false, true]);
        assert_eq!(within(2), [true, false, true, true]);
        assert_eq!(within(3), [true; 4]);
    }

    #[test]
    fn namespaces_have_budgets_of_their_own() {
        let mut budget = WorkerBudget::new(5);
        budget.take("shop", 3);
        budget.take("shop", 4);
        assert_eq!((budget.left("shop"), budget.left("other")), (0, 5));
    }
}
