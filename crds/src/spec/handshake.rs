//! How an endpoint proves to a provider that it is ours: requests that are answered and are no events.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults::int;
use crate::rules::{DNS_LABEL, provider as rules};

/// A request of the provider that is answered and is no event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Handshake {
    /// The name, which is unique among the handshakes; the preset's handshake of the same name is replaced. Required; a DNS
    /// label of at most 63 characters.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = DNS_LABEL)]
    pub name: String,

    /// Which requests it is for. Required.
    #[serde(rename = "match")]
    pub matches: Match,

    /// Whether the request must prove where it comes from. Default: required. One of required (as any webhook) and none, for
    /// providers that do not sign it.
    #[serde(default)]
    pub verify: Proof,

    /// The answer. Required.
    pub respond: Respond,

    /// Where the request carries a secret that the provider gives us, such as json:/verification_token: at most 256
    /// characters. It is kept sealed until it is put into the Secret of the Integration. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::SOURCE)]
    pub capture: Option<String>,

    /// A URL in the request that is called to confirm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_url: Option<ConfirmUrl>,
}

/// Which requests a handshake is for: those of the method that meet all conditions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    /// The method of the request. Default: POST. One of POST, GET, HEAD and OPTIONS.
    #[serde(default)]
    pub method: Method,

    /// What the request must have: at most 4 conditions. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub conditions: Vec<Condition>,

    /// A further condition, without which the request is answered 403: at most 2. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub otherwise_forbidden: Vec<Condition>,
}

/// The method of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
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

/// Something that a request has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// Where the value is: header:NAME, query:NAME, form:NAME or json:/POINTER. Required; at most 256 characters.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::SOURCE)]
    pub source: String,

    /// What the value must be: text of at most 256 characters, with placeholders such as {secret|sha256}. Default: anything
    /// that is not empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = rules::EXPECTED)]
    pub equals: Option<String>,
}

/// Whether a request must prove where it comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// As any webhook.
    #[default]
    Required,
    /// The provider does not sign it.
    None,
}

/// The answer of a handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Respond {
    /// The status. Default: 200. 200 to 204.
    #[serde(default = "int::<200>")]
    #[schemars(range(min = 200, max = 204))]
    pub status: i32,

    /// Headers beside content-type: at most 8, with different names. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<RespondHeader>,

    /// The content-type of the body, of at most 128 characters. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub content_type: Option<String>,

    /// The body: text of at most 1024 characters, with the placeholders {header:NAME}, {query:NAME}, {form:NAME},
    /// {json:/POINTER}, {hmac:SOURCE} (keyed as webhooks are) and {sign:SOURCE}; several sources of the last two are joined
    /// with '+'. The filters |json (a JSON text with its quotes), |hex and |base64 may follow. A brace that is no
    /// placeholder is written twice. Default: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = rules::RESPONSE)]
    pub body: Option<String>,
}

/// A header of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RespondHeader {
    /// The name. Required; at most 64 letters, digits, '-', '_' and '.'.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = rules::HEADER_NAME)]
    pub name: String,

    /// The value: text of at most 256 characters, with the placeholders of a body. A header whose value comes out empty is
    /// not sent. Required.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::RESPONSE)]
    pub value: String,
}

/// A URL in the request that is called to confirm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfirmUrl {
    /// Where the URL is. Required; at most 256 characters.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::SOURCE)]
    pub from: String,

    /// The hosts that may be called, such as sns.*.amazonaws.com: 1 to 4. A star stands for one label. Only https is
    /// called. Required.
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
