//! The rules that the bounds of a schema cannot express, each with the CEL expression that the API server evaluates and
//! the message that a user reads. The offline validation reports the same messages, so both give the same answer.
//!
//! Messages do not name the field: the API server prints its full path before them.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use kube::core::Rule;
use regex::Regex;

pub(crate) mod destination;
pub(crate) mod provider;
pub(crate) mod replay;

/// A validation rule of the schema.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CelRule {
    expression: Expression,
    /// The message for a user who breaks the rule.
    pub(crate) message: &'static str,
    /// The field to report, relative to the field that has the rule; that field itself if there is none.
    field: Option<&'static str>,
}

/// The condition of a rule.
#[derive(Clone, Copy, Debug)]
enum Expression {
    /// A CEL expression.
    Cel(&'static str),
    /// A pattern that the text must match.
    Pattern(&'static str),
    /// A pattern that each text of a list must match.
    EachPattern(&'static str),
    /// A pattern that the text must not match.
    NotPattern(&'static str),
    /// A pattern that no text of a list may match.
    NonePattern(&'static str),
}

impl CelRule {
    /// Creates a rule from a CEL expression.
    pub(crate) const fn new(cel: &'static str, message: &'static str) -> Self {
        Self { expression: Expression::Cel(cel), message, field: None }
    }

    /// Creates a rule for a text that matches. The pattern is written into CEL's single quotes, so it has no quotes and
    /// no backslashes.
    pub(crate) const fn pattern(pattern: &'static str, message: &'static str) -> Self {
        Self { expression: Expression::Pattern(pattern), message, field: None }
    }

    /// Creates a rule for a list whose texts match.
    pub(crate) const fn each_pattern(pattern: &'static str, message: &'static str) -> Self {
        Self { expression: Expression::EachPattern(pattern), message, field: None }
    }

    /// Creates a rule for a text that does not match.
    pub(crate) const fn not_pattern(pattern: &'static str, message: &'static str) -> Self {
        Self { expression: Expression::NotPattern(pattern), message, field: None }
    }

    /// Creates a rule for a list of which no text matches.
    pub(crate) const fn none_pattern(pattern: &'static str, message: &'static str) -> Self {
        Self { expression: Expression::NonePattern(pattern), message, field: None }
    }

    /// Returns whether the text is as the pattern demands; true for a rule without one.
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self.expression {
            Expression::Pattern(pattern) | Expression::EachPattern(pattern) => {
                compiled(pattern).is_match(text)
            }
            Expression::NotPattern(pattern) | Expression::NonePattern(pattern) => {
                !compiled(pattern).is_match(text)
            }
            Expression::Cel(_) => true,
        }
    }

    /// Sets the field to report.
    pub(crate) const fn at_field(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }
}

impl From<CelRule> for Rule {
    fn from(rule: CelRule) -> Self {
        let cel = match rule.expression {
            Expression::Cel(cel) => cel.to_owned(),
            Expression::Pattern(pattern) => format!("self.matches('{pattern}')"),
            Expression::EachPattern(pattern) => format!("self.all(item, item.matches('{pattern}'))"),
            Expression::NotPattern(pattern) => format!("!self.matches('{pattern}')"),
            Expression::NonePattern(pattern) => format!("self.all(item, !item.matches('{pattern}'))"),
        };
        let cel = Rule::new(cel).message(rule.message);
        match rule.field {
            Some(field) => cel.field_path(field),
            None => cel,
        }
    }
}

/// Compiles each pattern once.
fn compiled(pattern: &'static str) -> Regex {
    static COMPILED: LazyLock<Mutex<HashMap<&'static str, Regex>>> = LazyLock::new(Mutex::default);
    // A panic elsewhere leaves the map as it was.
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    compiled.entry(pattern).or_insert_with(|| Regex::new(pattern).expect("patterns are tested")).clone()
}

// Names. The schema bounds their lengths, so the expressions do not.

pub(crate) const DNS_LABEL: CelRule = CelRule::new(
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "must be a DNS label: lower-case letters, digits and '-', with a letter or digit at both ends",
);

pub(crate) const DNS_SUBDOMAIN: CelRule = CelRule::new(
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
    "must be a DNS subdomain: lower-case letters, digits, '-' and '.', with a letter or digit at both ends of each part",
);

pub(crate) const SECRET_KEY: CelRule = CelRule::new(
    "self.matches('^[-._a-zA-Z0-9]+$')",
    "must be a key of a Secret: letters, digits, '-', '_' and '.'",
);

// Identity.

pub(crate) const PROVIDER_IMMUTABLE: CelRule =
    CelRule::new("self == oldSelf", "is immutable: create another Integration for another provider");

pub(crate) const ROUTE_IMMUTABLE: CelRule = CelRule::new(
    "(has(self.spec.route) ? self.spec.route : self.metadata.name) == \
     (has(oldSelf.spec.route) ? oldSelf.spec.route : oldSelf.metadata.name)",
    "is immutable: create another Integration for another route",
)
.at_field(".spec.route");

pub(crate) const ROUTE_NEEDED: CelRule = CelRule::new(
    "has(self.spec.route) || self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
    "must be set, because the object's name cannot be a route: it is longer than 63 characters or contains '.'",
)
.at_field(".spec.route");

pub(crate) const SIGNED_URL: CelRule = CelRule::pattern(
    "^https?://[-A-Za-z0-9.:@_~%!$&*+,;=/]+$",
    "must be an absolute http or https URL without a query or a fragment",
);

pub(crate) const METHODS: CelRule =
    CelRule::new("self.all(method, self.exists_one(other, other == method))", "must have each method once");

// Workers.

pub(crate) const REPLICA_RANGE: CelRule = CelRule::new(
    "self.minReplicas <= self.maxReplicas",
    "must not be more than maxReplicas: lower it or raise maxReplicas",
)
.at_field(".minReplicas");

pub(crate) const LABEL_VALUES: CelRule = CelRule::new(
    "self.all(key, self[key].matches('^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$'))",
    "must have label values: letters, digits, '-', '_' and '.', with a letter or digit at both ends, or empty",
);

pub(crate) const RESERVED_LABELS: CelRule = CelRule::new(
    "self.all(key, !key.startsWith('grapnel.dev/') && !key.startsWith('app.kubernetes.io/'))",
    "must not use a key that begins with grapnel.dev/ or app.kubernetes.io/: Grapnel sets these keys",
);

pub(crate) const RESERVED_ANNOTATIONS: CelRule = CelRule::new(
    "self.all(key, !key.startsWith('grapnel.dev/'))",
    "must not use a key that begins with grapnel.dev/: Grapnel sets these keys",
);

pub(crate) const RESOURCE_NAMES: CelRule = CelRule::new(
    "self.all(key, key in ['cpu', 'memory', 'ephemeral-storage'])",
    "must use only the resources cpu, memory and ephemeral-storage",
);

// Kubernetes reads a suffix alone, such as m, as zero. That is never intended.
pub(crate) const RESOURCE_QUANTITIES: CelRule = CelRule::new(
    "self.all(key, isQuantity(self[key]) && self[key].matches('^[+-]?[.]?[0-9]') && \
     !quantity(self[key]).isLessThan(quantity('0')))",
    "must have non-negative quantities, such as 500m or 256Mi",
);

pub(crate) const REQUESTS_WITHIN_LIMITS: CelRule = CelRule::new(
    "!has(self.requests) || !has(self.limits) || self.requests.all(key, !(key in self.limits) || \
     !isQuantity(self.requests[key]) || !isQuantity(self.limits[key]) || \
     quantity(self.requests[key]).compareTo(quantity(self.limits[key])) <= 0)",
    "must not be more than the limits of the same resources",
)
.at_field(".requests");

pub(crate) const TAINT_KEY: CelRule = CelRule::new(
    "self.matches('^(([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?\
[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$')",
    "must be the key of a taint: an optional DNS subdomain and '/', followed by at most 63 letters, digits, '-', '_' and '.'",
);

pub(crate) const TAINT_VALUE: CelRule = CelRule::new(
    "self.matches('^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$')",
    "must be the value of a taint: letters, digits, '-', '_' and '.', with a letter or digit at both ends, or empty",
);

pub(crate) const TOLERATION_KEY: CelRule = CelRule::new(
    "(has(self.key) && self.key != '') || self.operator == 'Exists'",
    "must be Exists when key is not set: that tolerates every taint",
)
.at_field(".operator");

pub(crate) const TOLERATION_VALUE: CelRule = CelRule::new(
    "self.operator != 'Exists' || !has(self.value) || self.value == ''",
    "must not be set when operator is Exists: remove it, or use operator Equal",
)
.at_field(".value");

pub(crate) const TOLERATION_SECONDS: CelRule = CelRule::new(
    "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
    "must not be set unless effect is NoExecute",
)
.at_field(".tolerationSeconds");
