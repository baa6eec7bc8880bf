//! The validation of Integrations without an API server.
//!
//! Bounds come from the schema, rules from `rules`, and both are reported in the words of the API server. Only this
//! validation finds violations that the schema language cannot express; the controller reports them in the condition
//! Accepted. So an object that passes here passes there.

use collector::ErrorCollector;

use crate::spec::integration::Integration;
use crate::{formats, rules};

mod error;
pub(crate) mod schema;
mod collector;
mod provider;
mod destination;
mod destination_url;
mod workers;

pub use error::FieldError;

impl Integration {
    /// Returns all errors of the object; none when it is valid.
    pub fn validate(&self) -> Vec<FieldError> {
        let object = serde_json::to_value(self).expect("an Integration has only string keys");
        let mut errors = ErrorCollector::new(schema::check(&schema::INTEGRATION, &object));
        self.check_identity(&mut errors);
        let methods = &self.spec.ingress.methods;
        let is_repeated = |(index, method)| methods[..index].contains(method);
        let is_distinct = !methods.iter().enumerate().any(is_repeated);
        errors.rule(is_distinct, "spec.ingress.methods", rules::METHODS);
        self.check_provider(&mut errors);
        for (index, destination) in self.spec.destinations.iter().enumerate() {
            errors.destination(&format!("spec.destinations[{index}]"), destination);
        }
        errors.workers("spec.workers", &self.spec.workers);
        errors.into_errors()
    }

    fn check_identity(&self, errors: &mut ErrorCollector) {
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
