//! The checks of workers.

use std::collections::BTreeMap;

use super::collector::ErrorCollector;
use crate::formats;
use crate::rules::{self, CelRule};
use crate::spec::resources::{Resources, Toleration, TolerationEffect, TolerationOperator};
use crate::spec::workers::Workers;

/// Not a rule of the schema: a rule over the keys of a map would exceed the API server's cost limit.
const LABEL_KEY: &str = "must have keys that are an optional DNS subdomain and '/', followed by at most 63 letters, \
                         digits, '-', '_' and '.'";

impl ErrorCollector {
    pub(super) fn workers(&mut self, path: &str, workers: &Workers) {
        let scaling = &workers.scaling;
        self.rule(
            scaling.min_replicas <= scaling.max_replicas,
            &format!("{path}.scaling.minReplicas"),
            rules::REPLICA_RANGE,
        );
        self.resources(&format!("{path}.resources"), &workers.resources);
        for (index, toleration) in workers.tolerations.iter().enumerate() {
            self.toleration(&format!("{path}.tolerations[{index}]"), toleration);
        }
        if let Some(name) = &workers.priority_class_name {
            self.rule(
                formats::is_dns_subdomain(name),
                &format!("{path}.priorityClassName"),
                rules::DNS_SUBDOMAIN,
            );
        }
        self.label_map(&format!("{path}.nodeSelector"), &workers.node_selector, None);
        self.label_map(&format!("{path}.podLabels"), &workers.pod_labels, Some(rules::RESERVED_LABELS));
        let path = format!("{path}.podAnnotations");
        let keys = || workers.pod_annotations.keys();
        self.rule(!keys().any(|key| key.starts_with("grapnel.dev/")), &path, rules::RESERVED_ANNOTATIONS);
        // The keys of annotations are compared in lower case, as the API server does.
        if !keys().all(|key| formats::is_label_key(&key.to_ascii_lowercase())) {
            self.add(&path, LABEL_KEY);
        }
    }

    fn label_map(&mut self, path: &str, labels: &BTreeMap<String, String>, reserved: Option<CelRule>) {
        if let Some(rule) = reserved {
            let taken =
                |key: &String| key.starts_with("grapnel.dev/") || key.starts_with("app.kubernetes.io/");
            self.rule(!labels.keys().any(taken), path, rule);
        }
        self.rule(labels.values().all(|value| formats::is_label_value(value)), path, rules::LABEL_VALUES);
        if !labels.keys().all(|key| formats::is_label_key(key)) {
            self.add(path, LABEL_KEY);
        }
    }

    fn resources(&mut self, path: &str, resources: &Resources) {
        for (name, quantities) in [("requests", &resources.requests), ("limits", &resources.limits)] {
            let Some(quantities) = quantities else { continue };
            let path = format!("{path}.{name}");
            let known = |key: &String| matches!(key.as_str(), "cpu" | "memory" | "ephemeral-storage");
            self.rule(quantities.keys().all(known), &path, rules::RESOURCE_NAMES);
            let valid =
                |text: &String| formats::parse_quantity(text).is_some_and(|quantity| !quantity.is_negative());
            self.rule(quantities.values().all(valid), &path, rules::RESOURCE_QUANTITIES);
        }
        let exceeds = |(name, request): (&String, &String)| {
            let limit = resources.limits.as_ref().and_then(|limits| limits.get(name));
            let limit = limit.and_then(|limit| formats::parse_quantity(limit));
            matches!((formats::parse_quantity(request), limit), (Some(request), Some(limit)) if request > limit)
        };
        let holds = !resources.requests.iter().flatten().any(exceeds);
        self.rule(holds, &format!("{path}.requests"), rules::REQUESTS_WITHIN_LIMITS);
    }

    fn toleration(&mut self, path: &str, toleration: &Toleration) {
        let key = toleration.key.as_deref().unwrap_or_default();
        let exists = toleration.operator == TolerationOperator::Exists;
        let has_value = toleration.value.as_deref().is_some_and(|value| !value.is_empty());
        self.rule(key.is_empty() || formats::is_label_key(key), &format!("{path}.key"), rules::TAINT_KEY);
        let value = toleration.value.as_deref().unwrap_or_default();
        self.rule(formats::is_label_value(value), &format!("{path}.value"), rules::TAINT_VALUE);
        self.rule(!key.is_empty() || exists, &format!("{path}.operator"), rules::TOLERATION_KEY);
        self.rule(!exists || !has_value, &format!("{path}.value"), rules::TOLERATION_VALUE);
        self.rule(
            toleration.toleration_seconds.is_none() || toleration.effect == Some(TolerationEffect::NoExecute),
            &format!("{path}.tolerationSeconds"),
            rules::TOLERATION_SECONDS,
        );
    }
}
