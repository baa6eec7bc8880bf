//! Handshakes: requests that a provider sends to check that the endpoint is ours. They are answered and are not events.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults::int;
use crate::rules::{DNS_LABEL, provider as rules};

/// A request of the provider that is answered and not recorded as an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Handshake {
    /// The name, which is unique among the handshakes and replaces the preset's handshake of the same name. Required; a
    /// DNS label of at most 63 characters.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = DNS_LABEL)]
    pub name: String,

    /// The requests that it answers. Required.
    #[serde(rename = "match")]
    pub matches: HandshakeMatch,

    /// Whether the request must be verified. Default: required. One of required (verified like a webhook) and none, for
    /// providers that do not sign it.
    #[serde(default)]
    pub verify: HandshakeAuth,

    /// The response. Required.
    pub respond: HandshakeResponse,

    /// The source of a secret that the provider issues in the request, such as json:/verification_token: at most 256
    /// characters. It is stored sealed until it is written to the Secret of the Integration. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::SOURCE)]
    pub capture: Option<String>,

    /// A URL in the request to call for confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_url: Option<ConfirmationUrl>,
}

/// The requests that a handshake answers: those with this method that meet all conditions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HandshakeMatch {
    /// The method of the request. Default: POST. One of POST, GET, HEAD and OPTIONS.
    #[serde(default)]
    pub method: HandshakeMethod,

    /// Conditions that the request must meet: at most 4. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub conditions: Vec<HandshakeCondition>,

    /// Further conditions, at most 2; a request that does not meet them is answered with 403. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub otherwise_forbidden: Vec<HandshakeCondition>,
}

/// The method of a handshake request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HandshakeMethod {
    /// POST.
    #[default]
    Post,
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// OPTIONS.
    Options,
}

/// A condition on a value of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HandshakeCondition {
    /// The source of the value: header:NAME, query:NAME, form:NAME or json:/POINTER. Required; at most 256 characters.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::SOURCE)]
    pub source: String,

    /// The expected value: text of at most 256 characters, with placeholders such as {secret|sha256}, or {verifyToken}
    /// alone, which is what verification.verifyTokenRef names. Default: any value that is not empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = rules::EXPECTED)]
    pub equals: Option<String>,
}

/// The authentication of a handshake request: whether it is verified before it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum HandshakeAuth {
    /// The request is verified like a webhook.
    #[default]
    #[serde(rename = "required")]
    Verified,
    /// The request is answered unverified, because the provider does not sign it.
    #[serde(rename = "none")]
    Unverified,
}

/// The response to a handshake request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HandshakeResponse {
    /// The status code. Default: 200. 200 to 204.
    #[serde(default = "int::<200>")]
    #[schemars(range(min = 200, max = 204))]
    pub status: i32,

    /// Headers in addition to content-type: at most 8, with different names. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<HandshakeHeader>,

    /// The content-type of the body, of at most 128 characters. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub content_type: Option<String>,

    /// The body: text of at most 1024 characters, with the placeholders {header:NAME}, {query:NAME}, {form:NAME},
    /// {json:/POINTER}, {hmac:SOURCE} (with the key of webhooks) and {sign:SOURCE}; several sources of the last two are
    /// joined with '+'. The filters |json (a quoted JSON string), |hex and |base64 may follow. Write a literal brace
    /// twice. Default: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = rules::RESPONSE)]
    pub body: Option<String>,
}

/// A header of a handshake response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HandshakeHeader {
    /// The name. Required; at most 64 letters, digits, '-', '_' and '.'.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = rules::HEADER_NAME)]
    pub name: String,

    /// The value: text of at most 256 characters, with the same placeholders as the body. A header whose value turns
    /// out empty is not sent. Required.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::RESPONSE)]
    pub value: String,
}

/// A URL in the request to call for confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfirmationUrl {
    /// The source of the URL. Required; at most 256 characters.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::SOURCE)]
    pub from: String,

    /// The hosts that may be called, such as sns.*.amazonaws.com: 1 to 4. An asterisk matches one label. Only https
    /// URLs are called. Required.
    #[schemars(length(min = 1, max = 4), extend("items" = host_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::HOSTS)]
    pub hosts: Vec<String>,
}

fn host_items() -> serde_json::Value {
    serde_json::json!({
        "type": "string",
        "minLength": 1,
        "maxLength": 253,
        "description": "A host name of at most 253 characters."
    })
}
