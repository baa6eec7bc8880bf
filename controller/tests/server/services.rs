//! Destinations that are Services: only ready pods of the namespace are dialed, whatever Services and EndpointSlices say.

use grapnel_core::ids::IntegrationId;
use grapnel_crds::{Integration, conditions, names};
use grapnel_store::integrations::gone;
use grapnel_testing::{ACME_SECRET, WAIT_TIMEOUT, wait_until};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::harness::process::Process;
use crate::harness::{Installation, acme_spec, merged, setup};

/// Returns a spec whose destination is the Service `orders`.
pub(crate) fn service_spec(route: &str) -> Value {
    let service = json!({"name": "orders", "port": 80, "path": "/hooks"});
    merged(acme_spec(route), json!({"destinations": [{"name": "orders", "service": service}]}))
}

fn api<K>(installation: &Installation) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(installation.client.clone(), &installation.namespace)
}

async fn apply<K>(api: &Api<K>, name: &str, object: Value)
where
    K: Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let parameters = PatchParams::apply("kubectl").force();
    // A pod cannot be created before its namespace has the default ServiceAccount.
    wait_until(&format!("{name} to be applied: {object}"), async || {
        api.patch(name, &parameters, &Patch::Apply(&object)).await.is_ok()
    })
    .await;
}

fn service(more: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "orders"}, "spec": more})
}

/// A Service without a selector, so that the test writes its endpoints.
pub(crate) async fn apply_service(installation: &Installation) {
    let ports = json!({"ports": [{"name": "http", "port": 80, "targetPort": 8080}]});
    apply(&api::<Service>(installation), "orders", service(ports)).await;
}

/// Creates a pod and gives it the status that a kubelet would.
pub(crate) async fn apply_pod(installation: &Installation, name: &str, address: &str, is_ready: bool) {
    apply_pod_with(installation, name, json!({}), address, is_ready).await;
}

async fn apply_pod_with(installation: &Installation, name: &str, spec: Value, address: &str, is_ready: bool) {
    let pods = api::<Pod>(installation);
    let spec = merged(json!({"containers": [{"name": "orders", "image": "orders:test"}]}), spec);
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    apply(&pods, name, pod.clone()).await;
    pod.as_object_mut().expect("an object").remove("spec");
    let ready = if is_ready { "True" } else { "False" };
    pod["status"] = json!({
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": ready}],
    });
    let parameters = PatchParams::apply("kubelet").force();
    pods.patch_status(name, &parameters, &Patch::Apply(&pod)).await.expect("set the status of a pod");
}

/// Writes the EndpointSlice of the Service, with an endpoint for each pod and address.
pub(crate) async fn apply_slice(installation: &Installation, endpoints: &[(Option<&str>, &str)]) {
    let endpoints = endpoints.iter().map(|(pod, address)| {
        let mut endpoint = json!({"addresses": [address], "conditions": {"ready": true}});
        if let Some(pod) = pod {
            endpoint["targetRef"] = json!({"kind": "Pod", "name": pod, "namespace": installation.namespace});
        }
        endpoint
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "orders-1", "labels": {"kubernetes.io/service-name": "orders"}},
        "addressType": "IPv4", "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    });
    apply(&api::<EndpointSlice>(installation), "orders-1", slice).await;
}

async fn wait_for_endpoints(installation: &Installation, id: Uuid, expected: &[&str]) {
    let expected = json!({"orders:80": expected});
    let mut last = None;
    let deadline = Instant::now() + WAIT_TIMEOUT;
    while Instant::now() < deadline {
        last = installation.row(id).await.map(|row| row["endpoints"].clone());
        if last.as_ref() == Some(&expected) {
            return;
        }
        sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{last:?} instead of {expected}");
}

fn message(object: &Integration) -> String {
    let status = object.status.as_ref().expect("a status");
    conditions::find(&status.conditions, "ServicesResolved").expect("the condition").message.clone()
}

/// Waits until the number of workers was decided three times with so many messages.
async fn wait_for_decisions(controller: &Process, messages: u64) {
    wait_until("a reading that shows them", async || {
        controller.counter("grapnel_queue_messages", &["\"ready\""], &[]).await == messages
    })
    .await;
    let decisions =
        async || controller.counter("grapnel_controller_scale_tick_duration_seconds_count", &[], &[]).await;
    let before = decisions().await;
    wait_until("three more decisions", async || decisions().await >= before + 3).await;
}

/// Creates the Service with a ready pod, and the Integration that delivers to it.
async fn set_up(installation: &Installation) -> Uuid {
    installation.apply_secret("acme", ACME_SECRET).await;
    apply_service(installation).await;
    apply_pod(installation, "orders-0", "10.244.1.7", true).await;
    apply_slice(installation, &[(Some("orders-0"), "10.244.1.7")]).await;
    let id = installation.apply("orders", service_spec("acme")).await.id();
    installation.wait_until_ready("orders").await;
    wait_for_endpoints(installation, id, &["10.244.1.7:8080"]).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ready_pods_of_a_service_are_followed() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    let id = set_up(&installation).await;
    installation.wait_for_condition("orders", "ServicesResolved", "True", "AsDesired").await;

    apply_pod(&installation, "orders-1", "10.244.2.9", true).await;
    let both = [(Some("orders-0"), "10.244.1.7"), (Some("orders-1"), "10.244.2.9")];
    apply_slice(&installation, &both).await;
    wait_for_endpoints(&installation, id, &["10.244.1.7:8080", "10.244.2.9:8080"]).await;
    // The slice still calls it ready.
    apply_pod(&installation, "orders-0", "10.244.1.7", false).await;
    wait_for_endpoints(&installation, id, &["10.244.2.9:8080"]).await;

    api::<Pod>(&installation).delete("orders-1", &DeleteParams::default()).await.expect("delete a pod");
    wait_for_endpoints(&installation, id, &[]).await;
    let waiting = installation.wait_for_condition("orders", "Ready", "False", "NoReadyEndpoints").await;
    let expected = format!("the Service {}/orders has no ready endpoints", installation.namespace);
    assert_eq!(message(&waiting), expected);
    let status = waiting.status.as_ref().expect("a status");
    assert!(conditions::find(&status.conditions, "Stalled").is_none(), "pods become ready by themselves");
    wait_until("the Event", async || {
        installation.event_reasons("orders").await.contains(&"NoReadyEndpoints".to_owned())
    })
    .await;

    apply_pod(&installation, "orders-0", "10.244.1.7", true).await;
    wait_for_endpoints(&installation, id, &["10.244.1.7:8080"]).await;
    installation.wait_until_ready("orders").await;

    // Without such a destination nothing is left of it.
    installation.apply("orders", acme_spec("acme")).await;
    let object = installation.wait_until_ready("orders").await;
    let status = object.status.as_ref().expect("a status");
    assert!(conditions::find(&status.conditions, "ServicesResolved").is_none());
    assert_eq!(installation.row(id).await.expect("a row")["endpoints"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_wait_for_a_service_without_pods_start_no_workers() {
    let installation = Installation::new().await;
    let controller = installation.start_leader().await;
    let id = set_up(&installation).await;
    apply_pod(&installation, "orders-0", "10.244.1.7", false).await;
    wait_for_endpoints(&installation, id, &[]).await;
    let queue = names::queue_name(&installation.queue_prefix, id, "orders");
    installation.queue(&queue).publish_all(std::iter::repeat_n(&b"{}"[..], 1_000)).await;
    wait_for_decisions(&controller, 1_000).await;
    assert_eq!(installation.replicas(id).await, Some(0));
    let object = installation.get("orders").await.expect("the object");
    assert!(conditions::find(&object.status.expect("a status").conditions, "Stalled").is_none());

    apply_pod(&installation, "orders-0", "10.244.1.7", true).await;
    wait_until("workers", async || installation.replicas(id).await > Some(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_wait_for_a_destination_that_is_gone_start_no_workers() {
    let installation = Installation::new().await;
    let controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    let id = installation.apply("orders", acme_spec("acme")).await.id();
    installation.wait_until_ready("orders").await;
    gone::mark(&installation.db, IntegrationId::new(id), "orders").await.expect("mark it");
    installation.wait_for_condition("orders", "DestinationGone", "True", "Gone").await;
    let queue = names::queue_name(&installation.queue_prefix, id, "orders");
    installation.queue(&queue).publish_all(std::iter::repeat_n(&b"{}"[..], 1_000)).await;
    wait_for_decisions(&controller, 1_000).await;
    assert_eq!(installation.replicas(id).await, Some(0));

    let changed = merged(acme_spec("acme"), json!({"displayName": "Acme"}));
    installation.apply("orders", changed).await;
    wait_until("workers", async || installation.replicas(id).await > Some(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_are_no_pods_of_the_namespace_are_refused() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    let id = set_up(&installation).await;
    let on_node = json!({"hostNetwork": true});
    apply_pod_with(&installation, "on-node", on_node, "192.168.7.2", true).await;
    for (pod, address, why) in [
        // The API server, with and without a pod in front.
        (Some("orders-0"), "10.96.0.1", "an endpoint has an address that is not that of its pod orders-0"),
        (None, "10.96.0.1", "an endpoint names no pod of the namespace"),
        (None, "10.244.1.7", "an endpoint names no pod of the namespace"),
        (Some("on-node"), "192.168.7.2", "the pod on-node has the address of its node"),
    ] {
        apply_slice(&installation, &[(pod, address)]).await;
        wait_for_endpoints(&installation, id, &[]).await;
        wait_until(why, async || {
            let object = installation.get("orders").await.expect("the object");
            message(&object).ends_with(why)
        })
        .await;
        installation.wait_for_condition("orders", "Ready", "False", "ServiceNotAllowed").await;
        apply_slice(&installation, &[(Some("orders-0"), "10.244.1.7")]).await;
        wait_for_endpoints(&installation, id, &["10.244.1.7:8080"]).await;
    }
    // What is good beside it is used.
    apply_slice(&installation, &[(None, "10.96.0.1"), (Some("orders-0"), "10.244.1.7")]).await;
    installation.wait_until_ready("orders").await;
    wait_for_endpoints(&installation, id, &["10.244.1.7:8080"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_missing_or_changes_after_it_was_accepted_is_refused() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    let id = set_up(&installation).await;
    let services = api::<Service>(&installation);
    let external = json!({"type": "ExternalName", "externalName": "metadata.example.com"});
    services.delete("orders", &DeleteParams::default()).await.expect("delete the Service");
    installation.wait_for_condition("orders", "Ready", "False", "ServiceNotFound").await;
    wait_for_endpoints(&installation, id, &[]).await;

    // One of another namespace is not it.
    let elsewhere = format!("{}-elsewhere", installation.namespace);
    setup::create_namespace(&installation.client, &elsewhere).await;
    let others: Api<Service> = Api::namespaced(installation.client.clone(), &elsewhere);
    apply(&others, "orders", service(json!({"ports": [{"name": "http", "port": 80}]}))).await;
    apply_service(&installation).await;
    installation.wait_until_ready("orders").await;
    wait_for_endpoints(&installation, id, &["10.244.1.7:8080"]).await;

    services.delete("orders", &DeleteParams::default()).await.expect("delete the Service");
    apply(&services, "orders", service(external)).await;
    let refused = installation.wait_for_condition("orders", "Ready", "False", "ServiceNotAllowed").await;
    assert!(message(&refused).contains("is of type ExternalName"), "{}", message(&refused));
    wait_for_endpoints(&installation, id, &[]).await;

    services.delete("orders", &DeleteParams::default()).await.expect("delete the Service");
    apply(&services, "orders", service(json!({"ports": [{"name": "http", "port": 8080}]}))).await;
    installation.wait_for_condition("orders", "Ready", "False", "ServicePortMissing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_followed_while_a_newer_spec_cannot_be_registered() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    let id = set_up(&installation).await;
    let missing = json!({"verification": {"secretRef": {"name": "missing"}}});
    installation.apply("orders", merged(service_spec("acme"), missing)).await;
    installation.wait_for_condition("orders", "Ready", "False", "SecretNotFound").await;
    apply_pod(&installation, "orders-1", "10.244.2.9", true).await;
    apply_slice(&installation, &[(Some("orders-1"), "10.244.2.9")]).await;
    wait_for_endpoints(&installation, id, &["10.244.2.9:8080"]).await;
    assert_eq!(installation.row(id).await.expect("a row")["generation"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_follows_what_changed_while_there_was_none() {
    let installation = Installation::new().await;
    let mut controller = installation.start_leader_in("pod-1").await;
    let id = set_up(&installation).await;
    controller.kill();
    apply_pod(&installation, "orders-0", "10.244.1.7", false).await;
    let _controller = installation.start_leader_in("pod-1").await;
    wait_for_endpoints(&installation, id, &[]).await;
    installation.wait_for_condition("orders", "Ready", "False", "NoReadyEndpoints").await;
}
