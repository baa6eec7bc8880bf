//! What an Integration may set of its worker pods.
//!
//! Worker pods run in the platform's namespace and have its credentials, while whoever may edit any namespace can write an
//! Integration. So a field that reaches a pod has an effect only as far as the platform's list permits it. Everything else
//! is left out and named, and the object stays valid: an object that was accepted before the list became shorter still
//! works.

use std::collections::BTreeMap;

use grapnel_crds::{Resources, Workers, exceeds_quantity};
use serde::Deserialize;

/// The platform's list. Nothing is permitted by default, and resources have an upper bound.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkerPolicy {
    /// Keys of annotations. One that ends in `*` permits every key that begins with the rest; so do all lists.
    pub annotations: Vec<String>,
    /// Keys of labels.
    pub labels: Vec<String>,
    /// Keys of node labels.
    pub node_selector: Vec<String>,
    /// Keys of taints that may be tolerated.
    pub tolerations: Vec<String>,
    /// Names of PriorityClasses.
    pub priority_class_names: Vec<String>,
    /// The most that a worker may request or be limited to, by the name of the resource.
    pub max_resources: BTreeMap<String, String>,
}

impl Default for WorkerPolicy {
    fn default() -> Self {
        let max = [("cpu", "2"), ("memory", "2Gi"), ("ephemeral-storage", "2Gi")];
        Self {
            annotations: Vec::new(),
            labels: Vec::new(),
            node_selector: Vec::new(),
            tolerations: Vec::new(),
            priority_class_names: Vec::new(),
            max_resources: max.map(|(name, most)| (name.to_owned(), most.to_owned())).into(),
        }
    }
}

/// The part of `spec.workers` that takes effect.
#[derive(Debug, Clone, PartialEq)]
pub struct PermittedWorkers {
    pub workers: Workers,
    /// The fields that have no effect, or less than they ask for.
    pub restricted: Vec<String>,
}

impl WorkerPolicy {
    /// Returns what takes effect. Pure.
    pub fn permit(&self, asked: &Workers) -> PermittedWorkers {
        let (mut workers, mut restricted) = (asked.clone(), Vec::new());
        for (field, map, permitted) in [
            ("podAnnotations", &mut workers.pod_annotations, &self.annotations),
            ("podLabels", &mut workers.pod_labels, &self.labels),
            ("nodeSelector", &mut workers.node_selector, &self.node_selector),
        ] {
            map.retain(|key, _| {
                let is_permitted = is_listed(permitted, key);
                if !is_permitted {
                    restricted.push(format!("spec.workers.{field}[{key}]"));
                }
                is_permitted
            });
        }
        let mut index = 0;
        workers.tolerations.retain(|toleration| {
            // Without a key it tolerates every taint.
            let is_permitted = toleration.key.as_ref().is_some_and(|key| is_listed(&self.tolerations, key));
            if !is_permitted {
                restricted.push(format!("spec.workers.tolerations[{index}]"));
            }
            index += 1;
            is_permitted
        });
        if let Some(class) = &workers.priority_class_name
            && !is_listed(&self.priority_class_names, class)
        {
            restricted.push("spec.workers.priorityClassName".to_owned());
            workers.priority_class_name = None;
        }
        self.bound(&mut workers.resources, &mut restricted);
        PermittedWorkers { workers, restricted }
    }

    /// Lowers quantities to the platform's maximum.
    fn bound(&self, resources: &mut Resources, restricted: &mut Vec<String>) {
        for (field, quantities) in [("requests", &mut resources.requests), ("limits", &mut resources.limits)]
        {
            for (name, quantity) in quantities.iter_mut().flatten() {
                let most = self.max_resources.get(name).filter(|most| exceeds_quantity(quantity, most));
                if let Some(most) = most {
                    restricted.push(format!("spec.workers.resources.{field}.{name} (at most {most})"));
                    most.clone_into(quantity);
                }
            }
        }
    }
}

/// Returns the message of the condition Restricted, if anything is restricted.
pub fn restriction_message(restricted: &[String]) -> Option<String> {
    (!restricted.is_empty())
        .then(|| format!("the platform does not permit, and so leaves out: {}", restricted.join(", ")))
}

fn is_listed(permitted: &[String], key: &str) -> bool {
    permitted.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix),
        None => pattern == key,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workers() -> Workers {
        serde_json::from_value(json!({
            "podAnnotations": {"sidecar.istio.io/inject": "true", "team.example.com/cost": "7"},
            "podLabels": {"team": "orders"},
            "nodeSelector": {"disk": "fast"},
            "priorityClassName": "system-node-critical",
            "tolerations": [{"operator": "Exists"}, {"key": "dedicated", "operator": "Exists"}],
            "resources": {"requests": {"cpu": "500", "memory": "64Mi"}, "limits": {"cpu": "500"}},
        }))
        .unwrap()
    }

    #[test]
    fn nothing_is_permitted_by_default() {
        let PermittedWorkers { workers, restricted } = WorkerPolicy::default().permit(&workers());
        assert!(workers.pod_annotations.is_empty() && workers.pod_labels.is_empty());
        assert!(workers.node_selector.is_empty() && workers.tolerations.is_empty());
        assert_eq!(workers.priority_class_name, None);
        assert_eq!(
            serde_json::to_value(&workers.resources).unwrap(),
            json!({"requests": {"cpu": "2", "memory": "64Mi"}, "limits": {"cpu": "2"}})
        );
        assert_eq!(
            restricted,
            [
                "spec.workers.podAnnotations[sidecar.istio.io/inject]",
                "spec.workers.podAnnotations[team.example.com/cost]",
                "spec.workers.podLabels[team]",
                "spec.workers.nodeSelector[disk]",
                "spec.workers.tolerations[0]",
                "spec.workers.tolerations[1]",
                "spec.workers.priorityClassName",
                "spec.workers.resources.requests.cpu (at most 2)",
                "spec.workers.resources.limits.cpu (at most 2)",
            ]
        );
    }

    #[test]
    fn what_the_platform_lists_is_permitted() {
        let policy: WorkerPolicy = serde_json::from_value(json!({
            "annotations": ["team.example.com/*"], "labels": ["team"], "nodeSelector": ["disk"],
            "tolerations": ["dedicated"], "priorityClassNames": ["low"], "maxResources": {},
        }))
        .unwrap();
        let PermittedWorkers { workers: permitted, restricted } = policy.permit(&workers());
        assert_eq!(
            restricted,
            [
                "spec.workers.podAnnotations[sidecar.istio.io/inject]",
                "spec.workers.tolerations[0]",
                "spec.workers.priorityClassName",
            ]
        );
        assert_eq!(permitted.resources, workers().resources);
        assert_eq!(permitted.tolerations, workers().tolerations[1..]);
    }
}
