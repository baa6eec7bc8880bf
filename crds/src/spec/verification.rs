//! How webhooks are verified: where the secrets are, and what differs from the provider's preset.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::scheme::Scheme;
use crate::rules;

/// How webhooks are verified, and the secrets to verify them with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// The secret that the provider signs with or sends. Required. If the provider issues the secret in a handshake,
    /// start with any text; with the annotation grapnel.dev/capture: "true" on the Secret, the issued secret replaces
    /// it.
    pub secret_ref: SecretRef,

    /// Secrets that are accepted in addition to the current one during a rotation: at most 2, all different. Put the
    /// old secret here before the provider uses the new one, and remove it afterwards: status.verification reports when
    /// it is no longer used. Default: none.
    #[serde(default)]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into(), "key".into()]))]
    pub previous_secret_refs: Vec<SecretRef>,

    /// A text of your choice that the provider repeats when it checks the endpoint, such as the verify token of Meta and
    /// WhatsApp. Default: the SHA-256 of the current secret in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_token_ref: Option<SecretRef>,

    /// How far the timestamp of a signed webhook may differ from Grapnel's clock, in seconds and in both directions,
    /// for providers that sign one. Default: the preset's, usually 300. 0 to 86400; 0 does not check the age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub tolerance_seconds: Option<i32>,

    /// The verification scheme. Set what differs from the preset. Required when provider is custom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,

    /// The URL configured at the provider, for providers that sign it, if a proxy changes the path: at most 2048
    /// characters, without a query. Default: the platform's public URL and the path of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = rules::SIGNED_URL)]
    pub url: Option<String>,
}

/// A key of a Secret in the namespace of the Integration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The name of a Secret in the namespace of the Integration. Required; a DNS subdomain of at most 253 characters.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::DNS_SUBDOMAIN)]
    pub name: String,

    /// The key of the value in the Secret's data. Default: secret. At most 253 letters, digits, '-', '_' and '.'.
    #[serde(default = "default_key")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::SECRET_KEY)]
    pub key: String,
}

fn default_key() -> String {
    "secret".to_owned()
}

impl Verification {
    /// Returns the references in the order in which they are tried: the current one first.
    pub fn secret_refs(&self) -> impl Iterator<Item = &SecretRef> {
        std::iter::once(&self.secret_ref).chain(&self.previous_secret_refs)
    }
}
