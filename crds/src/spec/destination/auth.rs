//! How requests authenticate to the receiver.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::rules::destination as rules;
use crate::spec::verification::SecretRef;

/// How requests authenticate, by an Authorization header. Secrets need the label grapnel.dev/destination: "true".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ONE_AUTH)]
pub struct Auth {
    /// A user name and a password. Required unless oauth2 is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuth>,

    /// A token that is fetched with the client credentials grant of OAuth 2.0 and renewed before it ends. Required unless
    /// basic is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth2: Option<OAuth2>,
}

/// A user name and a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// The user name, without a colon. Required.
    pub username_ref: SecretRef,

    /// The password. Required.
    pub password_ref: SecretRef,
}

/// The client credentials grant of OAuth 2.0. A token endpoint that does not answer costs the receiver no attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OAuth2 {
    /// The absolute http or https URL of the token endpoint. Required; at most 2048 characters, all ASCII. The same
    /// addresses are refused as for the url of a destination.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(
        validation = rules::URL_ABSOLUTE,
        validation = rules::URL_ASCII,
        validation = rules::URL_USERINFO,
        validation = rules::URL_FRAGMENT,
        validation = rules::URL_PORT,
        validation = rules::URL_ADDRESS
    )]
    pub token_url: String,

    /// The id of the client. Required.
    pub client_id_ref: SecretRef,

    /// The secret of the client. Required.
    pub client_secret_ref: SecretRef,

    /// How the client authenticates to the token endpoint. Default: basic. One of basic (by HTTP Basic, with the id and the
    /// secret encoded as RFC 6749 demands) and post (with both as client_id and client_secret in the form).
    #[serde(default)]
    pub client_authentication: ClientAuthentication,

    /// The scopes to request: at most 16 of at most 256 characters. Default: none, which leaves them to the server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("items" = scope_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::SCOPES)]
    pub scopes: Vec<String>,

    /// The audience to request, for servers that have such a parameter: at most 1024 characters of visible ASCII and
    /// spaces. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = rules::HEADER_VALUE)]
    pub audience: Option<String>,
}

/// How a client authenticates to a token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuthentication {
    /// By HTTP Basic.
    #[default]
    Basic,
    /// In the form.
    Post,
}

impl Auth {
    /// Returns the references to its secrets, each with its field in the destination.
    pub(super) fn secret_refs(&self) -> impl Iterator<Item = (&'static str, &SecretRef)> {
        let basic = self.basic.iter().flat_map(|basic| {
            [("auth.basic.usernameRef", &basic.username_ref), ("auth.basic.passwordRef", &basic.password_ref)]
        });
        let oauth2 = self.oauth2.iter().flat_map(|oauth2| {
            [
                ("auth.oauth2.clientIdRef", &oauth2.client_id_ref),
                ("auth.oauth2.clientSecretRef", &oauth2.client_secret_ref),
            ]
        });
        basic.chain(oauth2)
    }
}

/// Returns the schema of a scope. A rule of the list checks its syntax.
fn scope_items() -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": 256,
        "description": "A scope of at most 256 characters."
    })
}
