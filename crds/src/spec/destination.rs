//! A destination: who receives events, which of them, in which form, and how often an attempt is repeated.

use std::borrow::Cow;
use std::time::Duration;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::defaults::int;
use super::verification::SecretRef;
use crate::rules::{self as shared_rules, destination as rules};

mod auth;
mod headers;
mod retry;
mod service;
mod tls;

pub use auth::{Auth, BasicAuth, ClientAuthentication, OAuth2};
pub use headers::DestinationHeader;
pub use retry::{Backoff, RetryPolicy};
pub use service::{ServiceRef, ServiceScheme};
pub use tls::{CaRef, CertificateRef, DestinationTls};

/// A receiver of events: a callback URL or a Service of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::ONE_TARGET,
    validation = rules::PREVIOUS_SIGNING,
    validation = rules::HEADERS_DIFFER,
    validation = rules::ONE_AUTHORIZATION,
    validation = rules::CLOUD_EVENT_HEADERS,
    validation = rules::TLS_ON_HTTPS
)]
pub struct Destination {
    /// The name of the destination within the Integration. Required; a DNS label of at most 63 characters. A renamed
    /// destination is another destination: events that are queued for the old name are not delivered to the new one.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = shared_rules::DNS_LABEL)]
    pub name: String,

    /// The absolute http or https URL that events are posted to, without user name, password or fragment. Required
    /// unless service is set; at most 2048 characters, all ASCII. Connections to loopback, link-local, metadata,
    /// multicast and private addresses are refused, unless the platform allows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(
        validation = rules::URL_ABSOLUTE,
        validation = rules::URL_ASCII,
        validation = rules::URL_USERINFO,
        validation = rules::URL_FRAGMENT,
        validation = rules::URL_PORT,
        validation = rules::URL_ADDRESS
    )]
    pub url: Option<String>,

    /// The Service in the namespace of the Integration that events are posted to, in place of url. The platform need not
    /// allow private addresses for it. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,

    /// The types of the events that are delivered: at most 32 patterns of at most 256 characters, in which * stands for any
    /// text. A pattern after ! leaves events out, whatever the others say. An event is delivered if any pattern without !
    /// matches its type, or if there is none. Upper and lower case differ. Default: events of all types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("items" = event_type_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::EVENT_TYPES)]
    pub event_types: Vec<String>,

    /// The events that are delivered, of those that eventTypes admits: a CEL expression over event, payload and headers
    /// that is true for them, such as payload.total > 1000. At most 2048 characters. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub filter: Option<String>,

    /// What happens to an event for which filter cannot be evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_on_error: Option<FilterErrorPolicy>,

    /// The format of deliveries to this destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver: Option<DestinationFormat>,

    /// Headers of every request: at most 16, with different names. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<DestinationHeader>,

    /// Headers of the provider's request that are sent on: at most 16 names of at most 64 characters. Characters of a value
    /// other than visible ASCII and spaces are percent-encoded. A header that the request did not have, whose value is
    /// not stored because it carries a secret, or that headers has too, is not sent on. Default: those that the
    /// preset names for its receivers if deliveries are raw, and none otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("items" = header_name_items()))]
    #[x_kube(
        merge_strategy = ListMerge::Atomic,
        validation = rules::FORWARDED_NAMES,
        validation = rules::RESERVED_HEADERS,
        validation = rules::FORWARDED_SECRETS
    )]
    pub forward_headers: Option<Vec<String>>,

    /// How requests authenticate to the receiver, by an Authorization header. Default: they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,

    /// How the receiver's certificate is verified, and the certificate that requests present. Only for https.
    /// Default: the certificate must be issued for the host of the URL by an authority that the platform trusts, and
    /// requests present none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<DestinationTls>,

    /// The time limit of one attempt, from connecting to the end of the response, in seconds. Default: 10. 1 to 60.
    #[serde(default = "int::<10>")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: i32,

    /// The maximum number of requests in flight from one worker to this destination. Default: 64. 1 to 1024.
    #[serde(default = "int::<64>")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_concurrency: i32,

    /// How often and after which delays a failed delivery is attempted again.
    #[serde(default)]
    pub retry: RetryPolicy,

    /// The secret that deliveries are signed with, as Standard Webhooks defines it. Default: deliveries are not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret_ref: Option<SecretRef>,

    /// A secret that deliveries are also signed with during a rotation, so that a receiver with the old secret still
    /// accepts them. Requires signingSecretRef. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_signing_secret_ref: Option<SecretRef>,
}

/// What happens to an event for which filter cannot be evaluated, such as one without a field that it names. Default:
/// Deliver. One of Deliver and Drop (it is filtered).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FilterErrorPolicy {
    /// It is delivered.
    #[default]
    Deliver,
    /// It is not delivered, as if the filter were false.
    Drop,
}

/// The format of deliveries to this destination. Default: that of mapping.deliver, or the preset's. One of normalized
/// (JSON with provider, eventType, externalEventId and the payload), raw (the body's bytes with its content-type),
/// cloudevents (a CloudEvents 1.0 envelope in JSON) and cloudevents-binary (the payload, with the attributes of a
/// CloudEvent in headers that begin with ce-).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DestinationFormat {
    /// The normalized payload.
    Normalized,
    /// The body as it was received.
    Raw,
    /// A CloudEvents 1.0 envelope.
    Cloudevents,
    /// The payload, with the attributes of a CloudEvent in headers.
    #[serde(rename = "cloudevents-binary")]
    CloudeventsBinary,
}

impl Destination {
    /// Returns the URL that events are posted to. The host of a Service in `namespace` is `name.namespace.svc`.
    pub fn request_url(&self, namespace: &str) -> Cow<'_, str> {
        match (&self.url, &self.service) {
            (Some(url), _) => url.into(),
            (None, Some(service)) => service.url(namespace).into(),
            // Validation refuses it, and it is not a URL.
            (None, None) => "".into(),
        }
    }

    /// Returns what happens to an event for which the filter cannot be evaluated.
    pub fn filter_error_policy(&self) -> FilterErrorPolicy {
        self.filter_on_error.unwrap_or_default()
    }

    /// Returns the time limit of one attempt.
    pub fn timeout(&self) -> Duration {
        seconds(self.timeout_seconds)
    }

    /// Returns the maximum number of requests in flight from one worker, at least one.
    pub fn concurrency(&self) -> usize {
        usize::try_from(self.max_concurrency.max(1)).unwrap_or(1)
    }

    /// Returns the references to the secrets that deliveries are signed with, the current one first.
    pub fn signing_refs(&self) -> impl Iterator<Item = &SecretRef> {
        self.signing_secret_ref.iter().chain(&self.previous_signing_secret_ref)
    }

    /// Returns the references to the secrets that requests carry or present, each with its field. Their Secrets need the label
    /// for destinations.
    pub fn sent_refs(&self) -> Vec<(String, SecretRef)> {
        let mut refs = Vec::new();
        for (index, header) in self.headers.iter().enumerate() {
            let field = || format!("headers[{index}].valueFrom");
            refs.extend(header.value_from.iter().map(|secret_ref| (field(), secret_ref.clone())));
        }
        let named = |field: &str, secret_ref: &SecretRef| (field.to_owned(), secret_ref.clone());
        if let Some(auth) = &self.auth {
            refs.extend(auth.secret_refs().map(|(field, secret_ref)| named(field, secret_ref)));
        }
        if let Some(tls) = &self.tls {
            refs.extend(tls.secret_refs().map(|(field, secret_ref)| named(field, &secret_ref)));
        }
        refs
    }
}

fn seconds(value: i32) -> Duration {
    Duration::from_secs(value.max(0).unsigned_abs().into())
}

/// Returns the schema of a pattern of event types. A rule of the list checks its syntax.
fn event_type_items() -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": 256,
        "description": "A pattern of at most 256 characters."
    })
}

/// Returns the schema of the name of a header. A rule of the list checks its syntax.
fn header_name_items() -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": 64,
        "description": "The name of a header, of at most 64 characters."
    })
}
