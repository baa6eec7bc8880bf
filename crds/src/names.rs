//! Every name that is derived from an Integration. The controller creates objects and queues under these names and the
//! runtime looks them up by the same, so neither may form such a name by itself.

use std::collections::BTreeMap;

use kube::ResourceExt;
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::spec::integration::Integration;

/// The namespace of an object that names none, as in kubectl.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The path above all routes.
pub const WEBHOOK_PATH: &str = "/api/v1/webhooks";

/// The finalizer that lets the controller clean up before an Integration is removed.
pub const FINALIZER: &str = "grapnel.dev/cleanup";

/// Label of worker pods and Deployments: the id of their Integration.
pub const INTEGRATION_ID_LABEL: &str = "grapnel.dev/integration-id";

/// Label of worker Deployments: the namespace of their Integration.
pub const INTEGRATION_NAMESPACE_LABEL: &str = "grapnel.dev/integration-namespace";

/// Annotation of worker Deployments: the name of their Integration. A label could not hold it, because names may have
/// 253 characters and label values 63.
pub const INTEGRATION_NAME_ANNOTATION: &str = "grapnel.dev/integration-name";

/// Annotation of a Secret: how to handle a secret that a handshake captured. `"true"` writes it to the key that the
/// Integration names, once; `"discard"` deletes it. Either way the annotation is removed.
pub const CAPTURE_ANNOTATION: &str = "grapnel.dev/capture";

/// Label of a Secret: with the value `"true"`, destinations may send what is in it: in their headers, as their credentials, or in
/// their TLS. Without it, whoever may edit Integrations could send any Secret of the namespace to a URL of his own.
pub const DESTINATION_LABEL: &str = "grapnel.dev/destination";

const QUEUE_PREFIX: &str = "grapnel.";

/// Returns the id of an Integration in the database, the HTTP API, metrics and logs.
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

/// Returns the queue of a destination: `{prefix}grapnel.{id}.{destination}`. The prefix is empty except for programs
/// that share a broker, such as tests.
pub fn queue_name(prefix: &str, integration_id: impl Into<Uuid>, destination: &str) -> String {
    format!("{prefix}{QUEUE_PREFIX}{}.{destination}", integration_id.into())
}

/// Returns the queue that shows that a worker is connected: `{prefix}grapnel.worker.{number in hexadecimal}`. It is no queue of a
/// destination, since `worker` is no id.
pub fn presence_queue_name(prefix: &str, number: u64) -> String {
    format!("{prefix}{QUEUE_PREFIX}worker.{number:016x}")
}

/// Returns the Integration and the destination of a queue; `None` if the queue is not one of ours under this prefix.
pub fn parse_queue_name<'a>(prefix: &str, queue: &'a str) -> Option<(Uuid, &'a str)> {
    let (id, destination) = queue.strip_prefix(prefix)?.strip_prefix(QUEUE_PREFIX)?.split_once('.')?;
    let integration_id = Uuid::parse_str(id).ok()?;
    (queue_name(prefix, integration_id, destination) == queue && !destination.is_empty())
        .then_some((integration_id, destination))
}

/// Returns the name of an Integration's worker Deployment. It contains the id and not the name, because the worker
/// Deployments of all namespaces share the platform's namespace.
pub fn worker_deployment(integration_id: impl Into<Uuid>) -> String {
    format!("grapnel-worker-{}", integration_id.into())
}

/// Returns the labels that select the worker pods of an Integration. They never change, because a Deployment's selector
/// cannot.
pub fn worker_selector(integration_id: impl Into<Uuid>) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "grapnel".to_owned()),
        ("app.kubernetes.io/component".to_owned(), "worker".to_owned()),
        (INTEGRATION_ID_LABEL.to_owned(), integration_id.into().to_string()),
    ])
}

/// Returns the labels of the worker Deployment and its pods; they include the selector.
pub fn worker_labels(integration_id: impl Into<Uuid>, namespace: &str) -> BTreeMap<String, String> {
    let mut labels = worker_selector(integration_id);
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "grapnel-controller".to_owned());
    labels.insert("app.kubernetes.io/part-of".to_owned(), "grapnel".to_owned());
    labels.insert(INTEGRATION_NAMESPACE_LABEL.to_owned(), namespace.to_owned());
    labels
}

/// Formats a selector for `status.workers.selector` and list requests.
pub fn selector_string(selector: &BTreeMap<String, String>) -> String {
    selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Returns the path of the webhook endpoint of a route.
pub fn webhook_path(route: &str) -> String {
    format!("{WEBHOOK_PATH}/{route}")
}

impl Integration {
    /// Returns the id of this Integration; see [`integration_id`].
    pub fn id(&self) -> Uuid {
        integration_id(self.metadata.uid.as_deref(), &self.namespace_or_default(), &self.name_any())
    }

    /// Returns the namespace, which is `default` for an object from a file that names none.
    pub fn namespace_or_default(&self) -> String {
        self.namespace().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
    }

    /// Returns the path segment that the provider posts to: the route, or else the name of the object.
    pub fn route(&self) -> &str {
        self.spec.route.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }

    /// Returns the human-readable name: the display name, or else the name of the object.
    pub fn display_name(&self) -> &str {
        self.spec.display_name.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UID: &str = "3d2c8a52-3f0e-4a54-9f0a-2f5d6e1f7c10";

    #[test]
    fn an_object_of_the_api_server_has_its_uid_as_id() {
        assert_eq!(integration_id(Some(UID), "shop", "acme").to_string(), UID);
    }

    /// The id of an object from a file is in databases: it must be the same in every version.
    #[test]
    fn an_object_of_a_file_always_has_the_same_id() {
        let id = integration_id(None, "shop", "acme-orders");
        assert_eq!(id.to_string(), "307087e6-3706-86c5-842c-3ed342e2d073");
        assert_eq!(id.get_version_num(), 8);
        assert_ne!(id, integration_id(None, "shop", "acme"));
        assert_ne!(id, integration_id(None, "shops", "acme-orders"));
    }

    #[test]
    fn names_fit_where_they_are_used() {
        let id = integration_id(None, "shop", "acme-orders");
        let destination = "d".repeat(63);
        assert!(queue_name("", id, &destination).len() <= 255, "AMQP short strings have 255 bytes");
        assert!(worker_deployment(id).len() <= 63, "pods are labelled with the names of their Deployments");
        assert!(
            worker_labels(id, &"n".repeat(63)).values().all(|value| crate::formats::is_label_value(value))
        );
    }

    #[test]
    fn the_labels_of_workers_contain_their_selector() {
        let id = integration_id(None, "shop", "acme-orders");
        let (labels, selector) = (worker_labels(id, "shop"), worker_selector(id));
        assert!(selector.iter().all(|(key, value)| labels.get(key) == Some(value)));
        assert_eq!(
            selector_string(&selector),
            format!(
                "app.kubernetes.io/component=worker,app.kubernetes.io/name=grapnel,grapnel.dev/integration-id={id}"
            )
        );
    }

    #[test]
    fn queues_of_others_are_not_ours() {
        for queue in [
            "",
            "grapnel.",
            "grapnel.x.orders",
            "other",
            &format!("grapnel.{UID}"),
            &format!("grapnel.{UID}."),
            &presence_queue_name("", 7),
        ] {
            assert_eq!(parse_queue_name("", queue), None, "{queue}");
        }
        let simple = UID.replace('-', "");
        assert_eq!(
            parse_queue_name("", &format!("grapnel.{simple}.orders")),
            None,
            "another spelling is another queue"
        );
        assert_eq!(parse_queue_name("test.", &format!("grapnel.{UID}.orders")), None);
    }

    proptest! {
        #[test]
        fn a_queue_name_is_parsed_into_its_parts(
            id in any::<u128>().prop_map(Uuid::from_u128),
            prefix in "([a-z0-9]{1,8}[.])?",
            destination in "[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?",
        ) {
            let queue = queue_name(&prefix, id, &destination);
            prop_assert_eq!(parse_queue_name(&prefix, &queue), Some((id, destination.as_str())));
        }
    }
}
