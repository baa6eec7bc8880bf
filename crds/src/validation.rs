//! The rules of the Integration object, decided without an API server.
//!
//! Bounds come from the schema, rules are those of `rules`, and both are reported with the words of the API server. What
//! only this validation finds is what the schema language cannot say; the controller reports it in the condition
//! Accepted. So an object that passes here passes there.

use std::collections::BTreeMap;

use destination_url::UrlProblem;

use crate::formats;
use crate::rules::{self, CelRule};
use crate::spec::destination::Destination;
use crate::spec::integration::Integration;
use crate::spec::resources::{Resources, Toleration, TolerationEffect, TolerationOperator};
use crate::spec::verification::SecretRef;
use crate::spec::workers::Workers;

mod error;
pub(crate) mod schema;
mod destination_url;
mod provider;

pub use error::FieldError;

/// Not said by the schema: a rule over the keys of a map would exceed the API server's cost limit.
const LABEL_KEY: &str = "must have keys that are an optional DNS subdomain and '/', and then at most 63 letters, \
                         digits, '-', '_' and '.'";

impl Integration {
    /// Everything that is wrong with the object; nothing when it is valid.
    pub fn validate(&self) -> Vec<FieldError> {
        let object = serde_json::to_value(self).expect("an Integration has only string keys");
        let findings = schema::check(&schema::INTEGRATION, &object);
        let mut errors = Errors { found: [findings.shape, findings.bounds].concat(), out_of_bounds: 0 };
        errors.out_of_bounds = errors.found.len();
        self.check_identity(&mut errors);
        self.check_provider(&mut errors);
        for (index, destination) in self.spec.destinations.iter().enumerate() {
            errors.destination(&format!("spec.destinations[{index}]"), destination);
        }
        errors.workers("spec.workers", &self.spec.workers);
        errors.found
    }

    /// Everything that is wrong with the object as a change of `old`: what `validate` finds, and fields that were changed
    /// and cannot be.
    pub fn validate_update(&self, old: &Self) -> Vec<FieldError> {
        let mut errors = Errors { found: self.validate(), out_of_bounds: 0 };
        errors.rule(self.spec.provider == old.spec.provider, "spec.provider", rules::PROVIDER_IMMUTABLE);
        errors.rule(self.route() == old.route(), "spec.route", rules::ROUTE_IMMUTABLE);
        errors.found
    }

    fn check_identity(&self, errors: &mut Errors) {
        match self.metadata.name.as_deref() {
            None | Some("") => errors.add("metadata.name", "Required value"),
            Some(name) if name.len() > 253 => {
                errors.add("metadata.name", "must be no more than 253 characters")
            }
            Some(name) => errors.rule(formats::is_dns_subdomain(name), "metadata.name", rules::DNS_SUBDOMAIN),
        }
        if let Some(namespace) = &self.metadata.namespace {
            let holds = namespace.len() <= 63 && formats::is_dns_label(namespace);
            errors.rule(holds, "metadata.namespace", rules::DNS_LABEL);
        }
        errors.rule(formats::is_dns_label(&self.spec.provider), "spec.provider", rules::DNS_LABEL);
        match &self.spec.route {
            Some(route) => errors.rule(formats::is_dns_label(route), "spec.route", rules::DNS_LABEL),
            None => {
                let holds = self.route().len() <= 63 && formats::is_dns_label(self.route());
                errors.rule(holds, "spec.route", rules::ROUTE_NEEDED);
            }
        }
    }
}

/// The errors found so far.
#[derive(Default)]
struct Errors {
    found: Vec<FieldError>,
    /// How many of them say that a field is outside its bounds. Rules about such a field add nothing, and the API server
    /// does not evaluate them.
    out_of_bounds: usize,
}

impl Errors {
    fn add(&mut self, field: &str, message: impl Into<String>) {
        let bounded = &self.found[..self.out_of_bounds];
        if !bounded.iter().any(|error| error.field == field) {
            self.found.push(FieldError::new(field, message));
        }
    }

    fn rule(&mut self, holds: bool, field: &str, rule: CelRule) {
        if !holds {
            self.add(field, rule.message);
        }
    }

    fn secret_ref(&mut self, path: &str, secret_ref: &SecretRef) {
        self.rule(formats::is_dns_subdomain(&secret_ref.name), &format!("{path}.name"), rules::DNS_SUBDOMAIN);
        self.rule(formats::is_secret_key(&secret_ref.key), &format!("{path}.key"), rules::SECRET_KEY);
    }

    fn destination(&mut self, path: &str, destination: &Destination) {
        self.rule(formats::is_dns_label(&destination.name), &format!("{path}.name"), rules::DNS_LABEL);
        for problem in destination_url::problems(&destination.url) {
            match problem {
                UrlProblem::Rule(rule) => self.rule(false, &format!("{path}.url"), rule),
                UrlProblem::Unreadable(error) => {
                    self.add(&format!("{path}.url"), format!("must be a URL that can be called: {error}"));
                }
            }
        }
        let retry = &destination.retry;
        self.rule(
            retry.initial_delay_seconds <= retry.max_delay_seconds,
            &format!("{path}.retry.initialDelaySeconds"),
            rules::RETRY_DELAYS,
        );
        if let Some(secret_ref) = &destination.signing_secret_ref {
            self.secret_ref(&format!("{path}.signingSecretRef"), secret_ref);
        }
        if let Some(secret_ref) = &destination.previous_signing_secret_ref {
            let path = format!("{path}.previousSigningSecretRef");
            self.rule(destination.signing_secret_ref.is_some(), &path, rules::PREVIOUS_SIGNING);
            self.secret_ref(&path, secret_ref);
        }
    }

    fn workers(&mut self, path: &str, workers: &Workers) {
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
                |text: &String| formats::quantity(text).is_some_and(|quantity| !quantity.is_negative());
            self.rule(quantities.values().all(valid), &path, rules::RESOURCE_QUANTITIES);
        }
        let exceeds = |(name, request): (&String, &String)| {
            let limit = resources.limits.as_ref().and_then(|limits| limits.get(name));
            let limit = limit.and_then(|limit| formats::quantity(limit));
            matches!((formats::quantity(request), limit), (Some(request), Some(limit)) if request > limit)
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
