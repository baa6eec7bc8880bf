//! Headers of every request to a destination.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::rules::{destination as rules, provider as provider_rules};
use crate::spec::verification::SecretRef;

/// A header of every request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ONE_VALUE, validation = rules::PREFIX_OF_SECRET)]
pub struct DestinationHeader {
    /// The name. Required; at most 64 letters, digits, '-', '_' and '.'. Headers that the connection or Grapnel sets, such
    /// as host, content-type, x-event-id and those that begin with webhook-, are refused.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = provider_rules::HEADER_NAME, validation = rules::RESERVED_HEADER)]
    pub name: String,

    /// The value, which everybody who may read the Integration sees: at most 4096 characters of visible ASCII and spaces.
    /// Required unless valueFrom is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = rules::HEADER_VALUE)]
    pub value: Option<String>,

    /// The value, in a Secret with the label grapnel.dev/destination: "true". Required unless value is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<SecretRef>,

    /// The text before the value of valueFrom, such as "Bearer ": at most 256 characters of visible ASCII and spaces.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::HEADER_PREFIX)]
    pub prefix: Option<String>,
}
