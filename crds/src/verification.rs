//! The credentials that a webhook must prove. How they are proven (header, scheme, encoding) is a matter of the
//! provider's preset; the object says only where the secrets are.

use std::time::Duration;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::defaults::int;
use crate::rules;

/// The credentials that a webhook must prove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// The secret that the provider signs with or sends. Required.
    pub secret_ref: SecretRef,

    /// Secrets that are accepted beside the current one while it is being replaced: at most 2, all different. Put the
    /// old secret here before the provider uses the new one, and remove it afterwards. Default: none.
    #[serde(default)]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into(), "key".into()]))]
    pub previous_secret_refs: Vec<SecretRef>,

    /// How far the timestamp of a signed webhook may be from our clock, in seconds and in both directions, for
    /// providers that sign one. Default: 300. 0 to 86400; 0 does not check the age.
    #[serde(default = "int::<300>")]
    #[schemars(range(min = 0, max = 86_400))]
    pub tolerance_seconds: i32,
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
    /// The references in the order in which they are tried: the current one first.
    pub fn secret_refs(&self) -> impl Iterator<Item = &SecretRef> {
        std::iter::once(&self.secret_ref).chain(&self.previous_secret_refs)
    }

    /// How far a timestamp may be off; `None` when the age is not checked.
    pub fn tolerance(&self) -> Option<Duration> {
        let seconds = self.tolerance_seconds.max(0).unsigned_abs();
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }
}
