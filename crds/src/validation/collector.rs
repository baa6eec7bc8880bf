//! The collector of the errors of one object, and the checks that many fields share.

use super::error::FieldError;
use super::schema::SchemaErrors;
use crate::formats;
use crate::rules::{self, CelRule};
use crate::spec::verification::SecretRef;

/// The errors found so far.
#[derive(Default)]
pub(super) struct ErrorCollector {
    errors: Vec<FieldError>,
    /// The number of leading errors about fields that do not match the schema. Rules add nothing about such a field,
    /// because the API server does not evaluate them.
    schema_errors: usize,
}

impl ErrorCollector {
    pub(super) fn new(errors: SchemaErrors) -> Self {
        let errors = [errors.shape, errors.bounds].concat();
        Self { schema_errors: errors.len(), errors }
    }

    pub(super) fn into_errors(self) -> Vec<FieldError> {
        self.errors
    }

    /// Adds an error, unless the field does not match the schema.
    pub(super) fn add(&mut self, field: &str, message: impl Into<String>) {
        if !self.errors[..self.schema_errors].iter().any(|error| error.field == field) {
            self.errors.push(FieldError::new(field, message));
        }
    }

    /// Adds the message of the rule unless the rule holds.
    pub(super) fn rule(&mut self, holds: bool, field: &str, rule: CelRule) {
        if !holds {
            self.add(field, rule.message);
        }
    }

    /// Checks a text, if it is set, against the pattern of a rule.
    pub(super) fn pattern(&mut self, path: &str, text: Option<&String>, rule: CelRule) {
        self.rule(text.is_none_or(|text| rule.matches(text)), path, rule);
    }

    /// Checks each text of a list against the pattern of a rule.
    pub(super) fn each_pattern(&mut self, path: &str, texts: &[String], rule: CelRule) {
        self.rule(texts.iter().all(|text| rule.matches(text)), path, rule);
    }

    pub(super) fn secret_ref(&mut self, path: &str, secret_ref: &SecretRef) {
        self.rule(formats::is_dns_subdomain(&secret_ref.name), &format!("{path}.name"), rules::DNS_SUBDOMAIN);
        self.rule(formats::is_secret_key(&secret_ref.key), &format!("{path}.key"), rules::SECRET_KEY);
    }
}
