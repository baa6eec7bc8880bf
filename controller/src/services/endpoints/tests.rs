use serde_json::{Value, json};

use super::*;

fn service(more: Value) -> Service {
    let mut spec = json!({"type": "ClusterIP", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({"metadata": {"name": "orders", "namespace": "shop"}, "spec": spec}))
        .unwrap()
}

/// A pod whose parts are replaced by `more`, as a path of JSON and a value.
fn pod(more: &[(&str, Value)]) -> Arc<WatchedPod> {
    let mut pod = json!({
        "metadata": {"name": "orders-0", "namespace": "shop", "uid": "1"},
        "spec": {"hostNetwork": false},
        "status": {
            "phase": "Running", "podIPs": [{"ip": "10.244.0.7"}, {"ip": "fd00::7"}], "hostIPs": [{"ip": "192.168.0.2"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    for (path, value) in more {
        *pod.pointer_mut(path).unwrap() = value.clone();
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn endpoint(address: &str) -> Value {
    json!({
        "addresses": [address], "conditions": {"ready": true},
        "targetRef": {"kind": "Pod", "name": "orders-0", "namespace": "shop", "uid": "1"},
    })
}

fn slice(endpoints: Value) -> Arc<EndpointSlice> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": "orders-x"}, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "metrics", "port": 9090, "protocol": "TCP"}, {"name": "http", "port": 8080, "protocol": "TCP"}],
        }))
        .unwrap(),
    )
}

fn judged(
    service: &Service,
    endpoint: Value,
    pod: Option<Arc<WatchedPod>>,
) -> Result<Vec<SocketAddr>, (&'static str, String)> {
    let find = |name: &str| pod.clone().filter(|_| name == "orders-0");
    judge(Some(service), 80, &[slice(json!([endpoint]))], find, &BTreeSet::new())
        .map_err(|problem| (problem.reason, problem.message))
}

fn reason_of(endpoint: Value, pod: Option<Arc<WatchedPod>>) -> &'static str {
    judged(&service(json!({})), endpoint, pod).map_or_else(|(reason, _)| reason, |_| "accepted")
}

#[test]
fn the_addresses_of_ready_pods_are_used_with_the_port_of_the_pods() {
    for address in ["10.244.0.7", "fd00::7"] {
        let accepted = judged(&service(json!({})), endpoint(address), Some(pod(&[])));
        assert_eq!(accepted, Ok(vec![SocketAddr::new(address.parse().unwrap(), 8080)]));
    }
    // A headless Service has no address of its own.
    let headless = service(json!({"clusterIP": "None", "clusterIPs": ["None"]}));
    assert!(judged(&headless, endpoint("10.244.0.7"), Some(pod(&[]))).is_ok());
}

#[test]
fn a_service_that_is_missing_or_leads_elsewhere_is_refused() {
    let check = |service: Option<&Service>, port| {
        let slices = [slice(json!([endpoint("10.244.0.7")]))];
        judge(service, port, &slices, |_| Some(pod(&[])), &BTreeSet::new()).map_err(|problem| problem.reason)
    };
    assert_eq!(check(None, 80), Err(reason::SERVICE_NOT_FOUND));
    let external = service(json!({"type": "ExternalName", "externalName": "10-0-0-1.example.com"}));
    assert_eq!(check(Some(&external), 80), Err(reason::SERVICE_NOT_ALLOWED));
    assert_eq!(check(Some(&service(json!({}))), 8080), Err(reason::SERVICE_PORT_MISSING));
    let udp = service(json!({"ports": [{"name": "http", "port": 80, "protocol": "UDP"}]}));
    assert_eq!(check(Some(&udp), 80), Err(reason::SERVICE_PORT_MISSING));
    // The slices do not have the port yet.
    let renamed = service(json!({"ports": [{"name": "web", "port": 80}]}));
    assert_eq!(check(Some(&renamed), 80), Err(reason::NO_READY_ENDPOINTS));
}

#[test]
fn an_address_that_is_no_pods_is_refused_whatever_the_slice_says() {
    for address in [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "fe80::1",
        "224.0.0.1",
        // The API server, another pod, the node, and the Internet.
        "10.96.0.1",
        "10.244.0.8",
        "192.168.0.2",
        "1.1.1.1",
        "orders.example.com",
    ] {
        assert_eq!(reason_of(endpoint(address), Some(pod(&[]))), reason::SERVICE_NOT_ALLOWED, "{address}");
    }
    let mut without_pod = endpoint("10.244.0.7");
    without_pod["targetRef"] = Value::Null;
    assert_eq!(reason_of(without_pod, Some(pod(&[]))), reason::SERVICE_NOT_ALLOWED);
    let mut of_node = endpoint("10.244.0.7");
    of_node["targetRef"]["kind"] = json!("Node");
    assert_eq!(reason_of(of_node, Some(pod(&[]))), reason::SERVICE_NOT_ALLOWED);
}

#[test]
fn a_pod_in_the_network_of_its_node_is_refused() {
    let address = "192.168.0.2";
    let on_node = pod(&[("/spec/hostNetwork", json!(true)), ("/status/podIPs", json!([{"ip": address}]))]);
    let refused = judged(&service(json!({})), endpoint(address), Some(on_node)).unwrap_err();
    assert_eq!(refused.0, reason::SERVICE_NOT_ALLOWED);
    assert!(refused.1.ends_with("the pod orders-0 has the address of its node"), "{}", refused.1);
    let claims_node = pod(&[("/status/podIPs", json!([{"ip": address}]))]);
    assert_eq!(reason_of(endpoint(address), Some(claims_node)), reason::SERVICE_NOT_ALLOWED);
}

#[test]
fn a_pod_that_has_ended_or_is_not_ready_is_not_used() {
    let not_ready = reason::NO_READY_ENDPOINTS;
    let address = "10.244.0.7";
    assert_eq!(reason_of(endpoint(address), None), not_ready);
    for change in [
        // Its address may be another pod's by now.
        ("/status/phase", json!("Succeeded")),
        ("/status/phase", json!("Failed")),
        ("/status/phase", json!("Pending")),
        // As a Service with publishNotReadyAddresses has it.
        ("/status/conditions", json!([{"type": "Ready", "status": "False"}])),
        ("/status/conditions", json!([])),
        ("/metadata", json!({"name": "orders-0", "deletionTimestamp": "2026-11-29T00:00:00Z"})),
    ] {
        assert_eq!(
            reason_of(endpoint(address), Some(pod(std::slice::from_ref(&change)))),
            not_ready,
            "{change:?}"
        );
    }
    for conditions in [json!({"ready": false}), json!({"ready": true, "terminating": true})] {
        let mut ends = endpoint(address);
        ends["conditions"] = conditions;
        assert_eq!(reason_of(ends, Some(pod(&[]))), not_ready);
    }
}

#[test]
fn good_endpoints_are_used_beside_refused_ones() {
    let slices = [slice(json!([endpoint("127.0.0.1"), endpoint("10.244.0.7"), endpoint("10.244.0.9")]))];
    let addresses = judge(Some(&service(json!({}))), 80, &slices, |_| Some(pod(&[])), &BTreeSet::new());
    assert_eq!(addresses, Ok(vec!["10.244.0.7:8080".parse().unwrap()]));
}

#[test]
fn a_datastore_of_the_platform_is_refused_in_its_own_namespace() {
    let check = |service: &Service, datastore: &str| {
        let datastores = BTreeSet::from([datastore.parse().unwrap()]);
        let slices = [slice(json!([endpoint("10.244.0.7")]))];
        judge(Some(service), 80, &slices, |_| Some(pod(&[])), &datastores).map_err(|problem| problem.message)
    };
    let with_address = service(json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]}));
    assert_eq!(check(&with_address, "10.96.0.9"), Err("is a datastore of the platform".to_owned()));
    let of_pod = check(&with_address, "10.244.0.7").unwrap_err();
    assert!(of_pod.ends_with("a pod is a datastore of the platform"), "{of_pod}");
    assert!(check(&with_address, "10.96.0.10").is_ok());
}
