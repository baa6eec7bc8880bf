//! The checks of how webhooks are verified, answered and mapped to events.

use super::collector::ErrorCollector;
use super::error::FieldError;
use crate::formats;
use crate::presets::{self, CUSTOM};
use crate::rules::{DNS_LABEL, SIGNED_URL, provider as rules};
use crate::spec::handshake::{Handshake, HandshakeCondition};
use crate::spec::integration::Integration;
use crate::spec::mapping::{BodyKind, Mapping};
use crate::spec::scheme::{HashAlgorithm, KeyEncoding, Scheme, SchemeType};
use crate::spec::verification::Verification;

impl Integration {
    pub(super) fn check_provider(&self, errors: &mut ErrorCollector) {
        let spec = &self.spec;
        let known = presets::is_known(&spec.provider) || !formats::is_dns_label(&spec.provider);
        errors.rule(known, "spec.provider", presets::KNOWN);
        errors.verification("spec.verification", &spec.verification);
        if let Some(mapping) = &spec.mapping {
            errors.mapping("spec.mapping", mapping);
        }
        for (index, handshake) in spec.handshakes.iter().enumerate() {
            errors.handshake(&format!("spec.handshakes[{index}]"), handshake);
        }
        if spec.provider == CUSTOM {
            match &spec.verification.scheme {
                Some(scheme) => {
                    scheme.check_complete(errors);
                }
                None => errors.rule(false, "spec.verification.scheme", rules::CUSTOM_SCHEME),
            }
            match &spec.mapping {
                Some(mapping) => mapping.check_complete(spec.verification.scheme.as_ref(), errors),
                None => errors.rule(false, "spec.mapping", rules::CUSTOM_MAPPING),
            }
        }
    }
}

impl Scheme {
    /// Returns the errors of a scheme that must be complete: that of a custom provider, or a preset's with the changes
    /// of an Integration.
    pub fn missing(&self) -> Vec<FieldError> {
        let mut errors = ErrorCollector::default();
        errors.scheme("spec.verification.scheme", self);
        self.check_complete(&mut errors);
        errors.into_errors()
    }

    fn check_complete(&self, errors: &mut ErrorCollector) {
        let path = "spec.verification.scheme";
        errors.rule(self.kind.is_some(), &format!("{path}.type"), rules::COMPLETE_TYPE);
        let Some(kind) = self.kind else { return };
        let computed =
            matches!(kind, SchemeType::Hmac | SchemeType::Ed25519 | SchemeType::Ecdsa | SchemeType::Digest);
        let message = format!("{path}.message");
        errors.rule(!computed || self.message.is_some(), &message, rules::COMPLETE_MESSAGE);
        let from = self.signature.as_ref().is_some_and(|signature| signature.from.is_some());
        let needed = computed || kind == SchemeType::Token;
        errors.rule(!needed || from, &format!("{path}.signature"), rules::COMPLETE_SIGNATURE);
        let Some(text) = &self.message else { return };
        let timed = self.timestamp.as_ref().is_some_and(|timestamp| timestamp.from.is_some());
        errors.rule(
            !text.contains("{timestamp") || timed,
            &format!("{path}.timestamp"),
            rules::COMPLETE_TIMESTAMP,
        );
        errors.rule(kind != SchemeType::Digest || text.contains("{secret"), &message, rules::SECRET_COVERED);
    }
}

impl Mapping {
    /// Returns the errors of a mapping that must be complete, with the scheme beside it.
    pub fn missing(&self, scheme: &Scheme) -> Vec<FieldError> {
        let mut errors = ErrorCollector::default();
        self.check_complete(Some(scheme), &mut errors);
        errors.into_errors()
    }

    fn check_complete(&self, scheme: Option<&Scheme>, errors: &mut ErrorCollector) {
        errors.rule(!self.event_type.is_empty(), "spec.mapping.eventType", rules::COMPLETE_EVENT_TYPE);
        let lists = [
            &self.external_event_id,
            &self.id_scope,
            &self.attempt_fields,
            &self.event_type,
            &self.occurred_at,
            &self.subject,
        ];
        let token = scheme.and_then(|scheme| scheme.signature.as_ref()?.from.as_ref());
        let mut sources = lists.into_iter().flatten().chain(token);
        let needed = sources.any(|source| source.starts_with("element:"));
        errors.rule(!needed || !self.split.is_empty(), "spec.mapping.split", rules::COMPLETE_SPLIT);
    }
}

impl ErrorCollector {
    fn verification(&mut self, path: &str, verification: &Verification) {
        self.secret_ref(&format!("{path}.secretRef"), &verification.secret_ref);
        if let Some(verify_token_ref) = &verification.verify_token_ref {
            self.secret_ref(&format!("{path}.verifyTokenRef"), verify_token_ref);
        }
        for (index, secret_ref) in verification.previous_secret_refs.iter().enumerate() {
            self.secret_ref(&format!("{path}.previousSecretRefs[{index}]"), secret_ref);
        }
        self.pattern(&format!("{path}.url"), verification.url.as_ref(), SIGNED_URL);
        if let Some(scheme) = &verification.scheme {
            self.scheme(&format!("{path}.scheme"), scheme);
        }
    }

    fn scheme(&mut self, path: &str, scheme: &Scheme) {
        let ecdsa = scheme.kind == Some(SchemeType::Ecdsa);
        let holds = !ecdsa || scheme.hash.is_none_or(|hash| hash == HashAlgorithm::Sha256);
        self.rule(holds, &format!("{path}.hash"), rules::ECDSA_HASH);
        let seed = scheme.key.as_ref().is_some_and(|key| key.encoding == Some(KeyEncoding::Seed));
        let holds = !seed || scheme.kind == Some(SchemeType::Ed25519);
        self.rule(holds, &format!("{path}.key.encoding"), rules::SEED_KEY);
        let from = scheme.signature.as_ref().and_then(|signature| signature.from.as_ref());
        let of_element = from.is_some_and(|from| from.starts_with("element:"));
        let holds = !of_element || scheme.kind == Some(SchemeType::Token);
        self.rule(holds, &format!("{path}.signature.from"), rules::ELEMENT_TOKEN);
        let message = format!("{path}.message");
        self.pattern(&message, scheme.message.as_ref(), rules::MESSAGE);
        let keyed = scheme.message.as_ref().is_some_and(|text| text.contains("{secret"));
        let holds = !keyed || scheme.kind == Some(SchemeType::Digest);
        self.rule(holds, &message, rules::SECRET_IN_MESSAGE);
        if let Some(signature) = &scheme.signature {
            self.pattern(&format!("{path}.signature.from"), signature.from.as_ref(), rules::SIGNATURE_SOURCE);
        }
        if let Some(timestamp) = &scheme.timestamp {
            self.pattern(&format!("{path}.timestamp.from"), timestamp.from.as_ref(), rules::TIMESTAMP_SOURCE);
        }
        self.each_pattern(&format!("{path}.require"), &scheme.require, rules::SOURCES);
        self.each_pattern(&format!("{path}.forbid"), &scheme.forbid, rules::SOURCES);
        if let Some(digest) = &scheme.body_digest {
            self.pattern(&format!("{path}.bodyDigest.from"), digest.from.as_ref(), rules::SOURCE);
        }
    }

    fn mapping(&mut self, path: &str, mapping: &Mapping) {
        self.each_pattern(&format!("{path}.externalEventId"), &mapping.external_event_id, rules::MAPPED_ID);
        self.each_pattern(&format!("{path}.idScope"), &mapping.id_scope, rules::MAPPED_SCOPE);
        let attempt_fields = format!("{path}.attemptFields");
        self.each_pattern(&attempt_fields, &mapping.attempt_fields, rules::ATTEMPT_FIELDS);
        for (name, sources) in [
            ("eventType", &mapping.event_type),
            ("occurredAt", &mapping.occurred_at),
            ("subject", &mapping.subject),
        ] {
            self.each_pattern(&format!("{path}.{name}"), sources, rules::MAPPED);
        }
        let split = format!("{path}.split");
        self.each_pattern(&split, &mapping.split, rules::SPLIT);
        self.rule(are_apart(&mapping.split), &split, rules::SPLIT_APART);
        let types = format!("{path}.splitContentTypes");
        self.each_pattern(&types, &mapping.split_content_types, rules::CONTENT_TYPES);
        self.pattern(&format!("{path}.payload"), mapping.payload.as_ref(), rules::POINTER);
        let reads_forms =
            [BodyKind::Form, BodyKind::Multipart].iter().any(|kind| mapping.accept.contains(kind));
        let holds = mapping.body_field.is_none() || mapping.accept.is_empty() || reads_forms;
        self.rule(holds, &format!("{path}.bodyField"), rules::BODY_FIELD_ACCEPTED);
        self.pattern(&format!("{path}.payloadName"), mapping.payload_name.as_ref(), rules::MEMBER);
    }

    fn handshake(&mut self, path: &str, handshake: &Handshake) {
        self.rule(formats::is_dns_label(&handshake.name), &format!("{path}.name"), DNS_LABEL);
        let matches = &handshake.matches;
        self.conditions(&format!("{path}.match.conditions"), &matches.conditions);
        self.conditions(&format!("{path}.match.otherwiseForbidden"), &matches.otherwise_forbidden);
        let respond = &handshake.respond;
        for (index, header) in respond.headers.iter().enumerate() {
            let path = format!("{path}.respond.headers[{index}]");
            self.pattern(&format!("{path}.name"), Some(&header.name), rules::HEADER_NAME);
            self.pattern(&format!("{path}.value"), Some(&header.value), rules::RESPONSE);
        }
        self.pattern(&format!("{path}.respond.body"), respond.body.as_ref(), rules::RESPONSE);
        self.pattern(&format!("{path}.capture"), handshake.capture.as_ref(), rules::SOURCE);
        if let Some(confirm) = &handshake.confirm_url {
            self.pattern(&format!("{path}.confirmUrl.from"), Some(&confirm.from), rules::SOURCE);
            self.each_pattern(&format!("{path}.confirmUrl.hosts"), &confirm.hosts, rules::HOSTS);
        }
    }

    fn conditions(&mut self, path: &str, conditions: &[HandshakeCondition]) {
        for (index, condition) in conditions.iter().enumerate() {
            let path = format!("{path}[{index}]");
            self.pattern(&format!("{path}.source"), Some(&condition.source), rules::SOURCE);
            self.pattern(&format!("{path}.equals"), condition.equals.as_ref(), rules::EXPECTED);
        }
    }
}

/// Returns whether no path is there twice or inside another.
fn are_apart(paths: &[String]) -> bool {
    let is_within = |path: &str, other: &str| {
        path.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    paths.iter().all(|path| paths.iter().filter(|other| is_within(path, other)).count() == 1)
}
