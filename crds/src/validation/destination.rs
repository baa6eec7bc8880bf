//! The checks of destinations.

use super::collector::ErrorCollector;
use super::destination_url::{self, UrlProblem};
use crate::spec::destination::Destination;
use crate::{formats, rules};

impl ErrorCollector {
    pub(super) fn destination(&mut self, path: &str, destination: &Destination) {
        self.rule(formats::is_dns_label(&destination.name), &format!("{path}.name"), rules::DNS_LABEL);
        for problem in destination_url::problems(&destination.url) {
            match problem {
                UrlProblem::Rule(rule) => self.rule(false, &format!("{path}.url"), rule),
                UrlProblem::Invalid(error) => {
                    self.add(&format!("{path}.url"), format!("must be a valid URL: {error}"));
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
}
