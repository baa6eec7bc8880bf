//! The checks of destinations.

use super::collector::ErrorCollector;
use super::destination_url::{self, UrlProblem};
use crate::rules::destination as rules;
use crate::rules::provider::HEADER_NAME;
use crate::spec::destination::{
    Auth, Destination, DestinationFormat, DestinationHeader, DestinationTls, ServiceRef, ServiceScheme,
};
use crate::{formats, rules as shared_rules};

impl ErrorCollector {
    pub(super) fn destination(&mut self, path: &str, destination: &Destination) {
        let holds = formats::is_dns_label(&destination.name);
        self.rule(holds, &format!("{path}.name"), shared_rules::DNS_LABEL);
        self.target(path, destination);
        self.each_pattern(&format!("{path}.eventTypes"), &destination.event_types, rules::EVENT_TYPES);
        self.headers(path, destination);
        if let Some(auth) = &destination.auth {
            self.auth(&format!("{path}.auth"), auth);
        }
        if let Some(tls) = &destination.tls {
            self.rule(is_https(destination), &format!("{path}.tls"), rules::TLS_ON_HTTPS);
            self.tls(&format!("{path}.tls"), tls);
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

    fn target(&mut self, path: &str, destination: &Destination) {
        let has_one = destination.url.is_some() != destination.service.is_some();
        self.rule(has_one, &format!("{path}.url"), rules::ONE_TARGET);
        if let Some(url) = &destination.url {
            self.url(&format!("{path}.url"), url);
        }
        if let Some(service) = &destination.service {
            self.service(&format!("{path}.service"), service);
        }
    }

    fn url(&mut self, path: &str, url: &str) {
        for problem in destination_url::problems(url) {
            match problem {
                UrlProblem::Rule(rule) => self.rule(false, path, rule),
                UrlProblem::Invalid(error) => self.add(path, format!("must be a valid URL: {error}")),
            }
        }
    }

    fn service(&mut self, path: &str, service: &ServiceRef) {
        let holds = formats::is_dns_label(&service.name);
        self.rule(holds, &format!("{path}.name"), shared_rules::DNS_LABEL);
        self.pattern(&format!("{path}.path"), Some(&service.path), rules::SERVICE_PATH);
    }

    fn headers(&mut self, path: &str, destination: &Destination) {
        let headers = &destination.headers;
        for (index, header) in headers.iter().enumerate() {
            self.header(&format!("{path}.headers[{index}]"), header);
        }
        let occurrences =
            |name: &str| headers.iter().filter(|other| other.name.eq_ignore_ascii_case(name)).count();
        let differ = headers.iter().all(|header| occurrences(&header.name) == 1);
        // Names that are equal to the letter are reported by the bounds of the list.
        let has_twins = headers
            .iter()
            .enumerate()
            .any(|(index, header)| headers[..index].iter().any(|other| other.name == header.name));
        self.rule(differ || has_twins, &format!("{path}.headers"), rules::HEADERS_DIFFER);
        let free = destination.auth.is_none() || occurrences("authorization") == 0;
        self.rule(free, &format!("{path}.headers"), rules::ONE_AUTHORIZATION);

        let forwarded = destination.forward_headers.as_deref().unwrap_or_default();
        for rule in [rules::FORWARDED_NAMES, rules::RESERVED_HEADERS, rules::FORWARDED_SECRETS] {
            self.each_pattern(&format!("{path}.forwardHeaders"), forwarded, rule);
        }
        let names = headers.iter().map(|header| &header.name).chain(forwarded);
        let has_attribute = names.map(|name| name.to_ascii_lowercase()).any(|name| name.starts_with("ce-"));
        let is_binary = destination.deliver == Some(DestinationFormat::CloudeventsBinary);
        self.rule(!(is_binary && has_attribute), &format!("{path}.deliver"), rules::CLOUD_EVENT_HEADERS);
    }

    fn header(&mut self, path: &str, header: &DestinationHeader) {
        self.pattern(&format!("{path}.name"), Some(&header.name), HEADER_NAME);
        self.pattern(&format!("{path}.name"), Some(&header.name), rules::RESERVED_HEADER);
        let has_one = header.value.is_some() != header.value_from.is_some();
        self.rule(has_one, &format!("{path}.value"), rules::ONE_VALUE);
        self.pattern(&format!("{path}.value"), header.value.as_ref(), rules::HEADER_VALUE);
        if let Some(secret_ref) = &header.value_from {
            self.secret_ref(&format!("{path}.valueFrom"), secret_ref);
        }
        let holds = header.prefix.is_none() || header.value_from.is_some();
        self.rule(holds, &format!("{path}.prefix"), rules::PREFIX_OF_SECRET);
        self.pattern(&format!("{path}.prefix"), header.prefix.as_ref(), rules::HEADER_PREFIX);
    }

    fn auth(&mut self, path: &str, auth: &Auth) {
        self.rule(auth.basic.is_some() != auth.oauth2.is_some(), path, rules::ONE_AUTH);
        if let Some(basic) = &auth.basic {
            self.secret_ref(&format!("{path}.basic.usernameRef"), &basic.username_ref);
            self.secret_ref(&format!("{path}.basic.passwordRef"), &basic.password_ref);
        }
        if let Some(oauth2) = &auth.oauth2 {
            let path = format!("{path}.oauth2");
            self.url(&format!("{path}.tokenUrl"), &oauth2.token_url);
            self.secret_ref(&format!("{path}.clientIdRef"), &oauth2.client_id_ref);
            self.secret_ref(&format!("{path}.clientSecretRef"), &oauth2.client_secret_ref);
            self.each_pattern(&format!("{path}.scopes"), &oauth2.scopes, rules::SCOPES);
            self.pattern(&format!("{path}.audience"), oauth2.audience.as_ref(), rules::HEADER_VALUE);
        }
    }

    fn tls(&mut self, path: &str, tls: &DestinationTls) {
        if let Some(ca_ref) = &tls.ca_ref {
            self.secret_ref(&format!("{path}.caRef"), &ca_ref.secret_ref());
        }
        if let Some(certificate_ref) = &tls.client_certificate_ref {
            let holds = formats::is_dns_subdomain(&certificate_ref.name);
            self.rule(holds, &format!("{path}.clientCertificateRef.name"), shared_rules::DNS_SUBDOMAIN);
        }
        self.pattern(&format!("{path}.serverName"), tls.server_name.as_ref(), rules::SERVER_NAME);
    }
}

fn is_https(destination: &Destination) -> bool {
    let starts_https =
        |url: &String| url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
    destination.url.as_ref().is_some_and(starts_https)
        || destination.service.as_ref().is_some_and(|service| service.scheme == ServiceScheme::Https)
}
