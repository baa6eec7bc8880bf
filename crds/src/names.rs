//! Every name that is derived from an Integration. The controller creates things under these names and the runtime
//! looks for them under the same, so neither may form such a name by itself.

use std::collections::BTreeMap;

use kube::ResourceExt;
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::Integration;

/// The namespace of an object that names none, as kubectl has it.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The path that routes live under.
pub const WEBHOOK_PATH: &str = "/api/v1/webhooks";

/// The finalizer by which the controller cleans up before an Integration is gone.
pub const FINALIZER: &str = "grapnel.dev/cleanup";

/// Label of worker pods and Deployments: the id of their Integration.
pub const INTEGRATION_ID_LABEL: &str = "grapnel.dev/integration-id";

/// Label of worker Deployments: the namespace of their Integration.
pub const INTEGRATION_NAMESPACE_LABEL: &str = "grapnel.dev/integration-namespace";

/// Annotation of worker Deployments: the name of their Integration. A label could not hold it, because names may have
/// 253 characters and label values 63.
pub const INTEGRATION_NAME_ANNOTATION: &str = "grapnel.dev/integration-name";

const QUEUE_PREFIX: &str = "grapnel.";

/// The id of an Integration in the database, the HTTP API, metrics and logs.
///
/// An object that the API server knows is identified by its uid, so an object that was deleted and created again is
/// another Integration. An object from a file has no uid; it is identified by its namespace and name, hashed into a
/// version 8 UUID (RFC 9562, section 5.8) with SHA-256, so reading the file again finds the same Integration.
pub fn integration_id(uid: Option<&str>, namespace: &str, name: &str) -> Uuid {
    uid.and_then(|uid| Uuid::parse_str(uid).ok()).unwrap_or_else(|| {
        let digest = Sha256::new()
            .chain_update(b"grapnel.dev/Integration/")
            .chain_update(namespace)
            .chain_update(b"/")
            .chain_update(name)
            .finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Builder::from_custom_bytes(bytes).into_uuid()
    })
}

/// The queue of a destination: `{prefix}grapnel.{id}.{destination}`. The prefix is empty but for programs that share
/// a broker, such as tests.
pub fn queue_name(prefix: &str, integration_id: Uuid, destination: &str) -> String {
    format!("{prefix}{QUEUE_PREFIX}{integration_id}.{destination}")
}

/// The Integration and the destination of a queue; `None` for a queue that is not one of ours under this prefix.
pub fn parse_queue_name<'a>(prefix: &str, queue: &'a str) -> Option<(Uuid, &'a str)> {
    let (id, destination) = queue.strip_prefix(prefix)?.strip_prefix(QUEUE_PREFIX)?.split_once('.')?;
    let integration_id = Uuid::parse_str(id).ok()?;
    (queue_name(prefix, integration_id, destination) == queue && !destination.is_empty())
        .then_some((integration_id, destination))
}

/// The worker Deployment of an Integration. It has the id and not the name in it: worker Deployments of all namespaces
/// share the platform's namespace.
pub fn worker_deployment(integration_id: Uuid) -> String {
    format!("grapnel-worker-{integration_id}")
}

/// The labels that select the worker pods of an Integration. They never change, as a Deployment's selector cannot.
pub fn worker_selector(integration_id: Uuid) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "grapnel".to_owned()),
        ("app.kubernetes.io/component".to_owned(), "worker".to_owned()),
        (INTEGRATION_ID_LABEL.to_owned(), integration_id.to_string()),
    ])
}

/// The labels of the worker Deployment and its pods; they contain the selector.
pub fn worker_labels(integration_id: Uuid, namespace: &str) -> BTreeMap<String, String> {
    let mut labels = worker_selector(integration_id);
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "grapnel-controller".to_owned());
    labels.insert("app.kubernetes.io/part-of".to_owned(), "grapnel".to_owned());
    labels.insert(INTEGRATION_NAMESPACE_LABEL.to_owned(), namespace.to_owned());
    labels
}

/// A selector as `status.workers.selector` and list requests take it.
pub fn selector_string(selector: &BTreeMap<String, String>) -> String {
    selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// The path of the webhook endpoint of a route.
pub fn webhook_path(route: &str) -> String {
    format!("{WEBHOOK_PATH}/{route}")
}

impl Integration {
    /// The id of this Integration; see [`integration_id`].
    pub fn id(&self) -> Uuid {
        integration_id(self.metadata.uid.as_deref(), &self.namespace_or_default(), &self.name_any())
    }

    /// The namespace, which is `default` for an object from a file that names none.
    pub fn namespace_or_default(&self) -> String {
        self.namespace().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
    }

    /// The path segment that the provider posts to: the route, or else the name of the object.
    pub fn route(&self) -> &str {
        self.spec.route.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }

    /// The name for people: the display name, or else the name of the object.
    pub fn display_name(&self) -> &str {
        self.spec.display_name.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}
