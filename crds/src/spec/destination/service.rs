//! A Service of the cluster as the receiver of events.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules::{self as shared_rules, destination as rules};

/// A Service in the namespace of the Integration. Its ready endpoints receive the events; the host of requests is
/// NAME.NAMESPACE.svc. A Service of type ExternalName cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRef {
    /// The name of the Service. Required; a DNS label of at most 63 characters.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = shared_rules::DNS_LABEL)]
    pub name: String,

    /// The port of the Service. Required. 1 to 65535.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,

    /// The path of the URL, with a query if there is one. Default: /. At most 2048 characters, the first of which is a
    /// slash, all ASCII.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = rules::SERVICE_PATH)]
    pub path: String,

    /// The scheme of the URL. Default: http. One of http and https.
    #[serde(default)]
    pub scheme: ServiceScheme,
}

/// The scheme of a Service's URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceScheme {
    /// Without TLS.
    #[default]
    Http,
    /// With TLS.
    Https,
}

impl ServiceRef {
    /// Returns the host that requests name.
    pub fn host(&self, namespace: &str) -> String {
        format!("{}.{namespace}.svc", self.name)
    }

    /// Returns the URL that events are posted to.
    pub fn url(&self, namespace: &str) -> String {
        let scheme = match self.scheme {
            ServiceScheme::Http => "http",
            ServiceScheme::Https => "https",
        };
        format!("{scheme}://{}:{}{}", self.host(namespace), self.port, self.path)
    }
}

fn root() -> String {
    "/".to_owned()
}
