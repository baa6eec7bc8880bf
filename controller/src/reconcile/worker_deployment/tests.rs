use grapnel_crds::{Document, parse_documents};
use serde_json::{Value, json};

use super::*;

fn integration(workers: &str) -> Integration {
    let yaml = format!(
        "apiVersion: grapnel.dev/v1alpha1
kind: Integration
metadata: {{name: acme-orders, namespace: shop, uid: 3d2c8a52-3f0e-4a54-9f0a-2f5d6e1f7c10}}
spec:
  provider: acme
  verification: {{secretRef: {{name: acme}}}}
  destinations:
  - {{name: orders, url: 'https://orders.example.com', timeoutSeconds: 30}}
  - {{name: audit, url: 'https://audit.example.com'}}
  workers: {workers}
"
    );
    match parse_documents(&yaml).unwrap().remove(0) {
        Document::Integration(integration) => *integration,
        Document::Secret(_) => unreachable!(),
    }
}

fn pod() -> WorkerPod {
    serde_saphyr::from_str(
        "image: registry.example.com/grapnel:0.1.0
serviceAccountName: grapnel-worker
env:
- {name: DATABASE_URL, valueFrom: {secretKeyRef: {name: grapnel-db, key: url}}}
- {name: GRAPNEL_INTEGRATION, value: not-yours}
resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {memory: 256Mi}}
nodeSelector: {pool: general}
permitted: {labels: [team], annotations: [note], nodeSelector: [disk], tolerations: [dedicated], priorityClassNames: [high]}
",
    )
    .unwrap()
}

fn rendered(workers: &str) -> Value {
    serde_json::to_value(worker_deployment(&integration(workers), "grapnel", &pod())).unwrap()
}

#[test]
fn the_deployment_is_what_it_should_be() {
    insta::assert_json_snapshot!(rendered("{}"));
}

#[test]
fn an_integration_chooses_where_its_workers_run_and_what_they_cost() {
    let deployment = rendered(
        "{resources: {requests: {cpu: 250m}}, nodeSelector: {disk: fast}, podLabels: {team: orders},
          podAnnotations: {note: hello}, priorityClassName: high,
          tolerations: [{key: dedicated, value: grapnel, effect: NoSchedule}]}",
    );
    let template = &deployment["spec"]["template"];
    let spec = &template["spec"];
    assert_eq!(
        spec["containers"][0]["resources"],
        json!({"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}})
    );
    assert_eq!(spec["nodeSelector"], json!({"disk": "fast", "pool": "general"}));
    assert_eq!(spec["priorityClassName"], "high");
    assert_eq!(
        spec["tolerations"],
        json!([{"key": "dedicated", "operator": "Equal", "value": "grapnel", "effect": "NoSchedule"}])
    );
    assert_eq!(template["metadata"]["labels"]["team"], "orders");
    assert_eq!(template["metadata"]["annotations"]["note"], "hello");
}

#[test]
fn a_limit_of_the_platform_cannot_be_left_out() {
    let resources =
        |workers: &str| rendered(workers)["spec"]["template"]["spec"]["containers"][0]["resources"].take();
    assert_eq!(resources("{resources: {limits: {}}}")["limits"], json!({"memory": "256Mi"}));
    assert_eq!(
        resources("{resources: {requests: {memory: 512Mi}}}"),
        json!({"requests": {"cpu": "50m", "memory": "512Mi"}, "limits": {"memory": "512Mi"}})
    );
    assert_eq!(
        resources("{resources: {limits: {cpu: 20m}}}"),
        json!({"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"cpu": "20m", "memory": "256Mi"}})
    );
}

#[test]
fn the_number_of_workers_is_not_part_of_it() {
    assert!(rendered("{replicas: 3}")["spec"].get("replicas").is_none());
}

#[test]
fn variables_of_the_platform_do_not_bind_it_to_another_integration() {
    let deployment = rendered("{}");
    let env = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
    let ids: Vec<_> = env.iter().filter(|variable| variable["name"] == "GRAPNEL_INTEGRATION").collect();
    assert_eq!(
        ids,
        [&json!({"name": "GRAPNEL_INTEGRATION", "value": "3d2c8a52-3f0e-4a54-9f0a-2f5d6e1f7c10"})]
    );
}
