//! The ownership of routes.

use grapnel_crds::conditions;
use grapnel_testing::{ACME_SECRET, wait_until};
use serde_json::json;

use crate::harness::{Installation, acme_spec, merged};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_claim_of_a_route_wins_and_the_loser_owns_nothing() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.apply("first", acme_spec("acme")).await;
    let first = installation.wait_until_ready("first").await;
    installation.apply("second", acme_spec("acme")).await;
    let second = installation.wait_for_condition("second", "Accepted", "False", "RouteConflict").await;
    assert!(installation.row(second.id()).await.is_none());
    assert!(installation.replicas(second.id()).await.is_none());

    // The loser is deleted, which does not affect the holder.
    installation.delete("second").await;
    installation.wait_until_gone("second").await;
    let row = installation.row(first.id()).await.expect("a row");
    assert_eq!((row["deleted"].as_bool(), row["state"].as_str()), (Some(false), Some("Active")));

    // The holder is deleted, and one that waits takes the route.
    installation.apply("third", acme_spec("acme")).await;
    installation.wait_for_condition("third", "Accepted", "False", "RouteConflict").await;
    installation.delete("first").await;
    installation.wait_until_gone("first").await;
    let third = installation.wait_until_ready("third").await;
    wait_until("the row", async || installation.row(third.id()).await.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freed_route_stays_its_namespaces() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.apply("first", acme_spec("acme")).await;
    installation.wait_until_ready("first").await;
    installation.delete("first").await;
    installation.wait_until_gone("first").await;
    let freed = installation.database.rows("SELECT route, namespace FROM freed_routes").await;
    assert_eq!(freed, [json!({"route": "acme", "namespace": installation.namespace})]);
    installation.apply("heir", acme_spec("acme")).await;
    installation.wait_until_ready("heir").await;

    // What another namespace had until lately is not free.
    let freed = "INSERT INTO freed_routes (route, namespace) VALUES ('others', 'elsewhere')";
    installation.database.execute(freed).await;
    installation.apply("squatter", acme_spec("others")).await;
    let refused = installation.wait_for_condition("squatter", "Accepted", "False", "RouteConflict").await;
    let status = refused.status.as_ref().expect("a status");
    let message = &conditions::find(&status.conditions, "Accepted").expect("the condition").message;
    assert!(message.contains("stays its own until 20"), "{message}");
    assert!(installation.row(refused.id()).await.is_none());
    let passed = "UPDATE freed_routes SET freed_at = now() - interval '8 days'";
    installation.database.execute(passed).await;
    installation.apply("squatter", merged(acme_spec("others"), json!({"displayName": "Others"}))).await;
    installation.wait_until_ready("squatter").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_destination_that_deliveries_wait_for_is_reported() {
    let installation = Installation::new().await;
    let api = installation.start_api();
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.apply("orders", acme_spec("acme")).await;
    installation.wait_until_ready("orders").await;
    wait_until("a webhook to be accepted", async || {
        installation.post(api.port, "acme", ACME_SECRET, "1").await == 202
    })
    .await;
    let renamed = json!({"destinations": [{"name": "renamed", "url": "https://orders.example.com/hooks"}]});
    installation.apply("orders", merged(acme_spec("acme"), renamed)).await;
    wait_until("the Event", async || {
        installation.event_reasons("orders").await.contains(&"DestinationRemoved".to_owned())
    })
    .await;
}

/// The policy of the documentation, bound to one namespace.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_says_which_namespaces_may_claim_which_routes() {
    let installation = Installation::new().await;
    let namespace = installation.namespace.clone();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/route-policy.yaml");
    let policy =
        std::fs::read_to_string(path).expect("read the policy").replace("grapnel-routes", &namespace);
    let bound = policy.replace(
        "{key: grapnel.dev/routes, operator: NotIn, values: [any]}",
        &format!("{{key: kubernetes.io/metadata.name, operator: In, values: [{namespace}]}}"),
    );
    assert_ne!(bound, policy, "the binding is replaced");
    let file = installation.directory.join("policy.yaml");
    std::fs::write(&file, bound).expect("write a file");
    let file = file.to_str().expect("a path in UTF-8");
    installation.kubectl(&["apply", "--filename", file]);
    let object = |name: &str, route: &str| {
        let path = installation.directory.join(format!("{name}.json"));
        let object = json!({
            "apiVersion": grapnel_crds::API_VERSION, "kind": grapnel_crds::KIND,
            "metadata": {"name": name, "namespace": namespace}, "spec": acme_spec(route),
        });
        std::fs::write(&path, object.to_string()).expect("write a file");
        path.to_str().expect("a path in UTF-8").to_owned()
    };
    let create = |path: &str| installation.try_kubectl(&["create", "--dry-run=server", "--filename", path]);
    let foreign = object("foreign", "payments");
    // The API server begins to apply a policy some time after it was created.
    wait_until("the policy to refuse a foreign route", async || {
        let (accepted, output) = create(&foreign);
        !accepted && output.contains(&format!("must be {namespace} or begin with {namespace}-"))
    })
    .await;
    for (name, route) in [("own", namespace.clone()), ("begins", format!("{namespace}-orders"))] {
        let (accepted, output) = create(&object(name, &route));
        assert!(accepted, "{output}");
    }
    installation.kubectl(&["delete", "--filename", file]);
}
