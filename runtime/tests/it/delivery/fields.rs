//! The fields of a destination, as its receiver sees them.

use std::process::Command;

use grapnel_testing::{Delivery, Reply, TestReceiver, acme_event};

use super::super::harness::{Platform, acme_integration, integration, sign};
use super::{attempts, delivery, wait_until_finished};

const TOKEN: &str = "header-token-7f31";
const PASSWORD: &str = "open sesame 5b2e";
const CLIENT_SECRET: &str = "client-secret-90aa";
const RETRY: &str = "retry: {maxAttempts: 3, initialDelaySeconds: 1, maxDelaySeconds: 1}";

/// Returns a destination with further fields (YAML, each before a comma).
fn with_fields(name: &str, url: &str, fields: &str) -> String {
    format!("{{name: {name}, url: '{url}', {fields} {RETRY}}}")
}

/// Returns the document of a Secret that destinations may send.
fn sent_secret(token: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: out, namespace: test, labels: {{grapnel.dev/destination: 'true'}}}}\n\
         stringData: {{token: {token}, user: Aladdin, password: '{PASSWORD}', client: orders, secret: {CLIENT_SECRET}}}\n"
    )
}

const BEARER: &str = "headers: [{name: X-Team, value: payments}, \
    {name: Authorization, prefix: 'Bearer ', valueFrom: {name: out, key: token}}],";
const BASIC: &str =
    "auth: {basic: {usernameRef: {name: out, key: user}, passwordRef: {name: out, key: password}}},";

fn oauth2(server: &TestReceiver) -> String {
    format!(
        "auth: {{oauth2: {{tokenUrl: '{}', clientIdRef: {{name: out, key: client}}, \
         clientSecretRef: {{name: out, key: secret}}, scopes: [a, b], audience: 'https://orders'}}}},",
        server.url("/token")
    )
}

/// Returns a server that issues `token-1`, `token-2` and so on.
async fn token_server() -> TestReceiver {
    TestReceiver::answering(|count, _| {
        let token = format!(r#"{{"access_token":"token-{count}","token_type":"Bearer","expires_in":3600}}"#);
        Reply::Body(200, token.into_bytes())
    })
    .await
}

#[tokio::test]
async fn headers_and_basic_authentication_are_sent_and_follow_their_secret() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let destinations = [
        with_fields("bearer", &receiver.url("/bearer"), BEARER),
        with_fields("basic", &receiver.url("/basic"), BASIC),
    ];
    let integrations = acme_integration(&destinations);
    let _running = platform.start_api_and_worker(&(integrations.clone() + &sent_secret(TOKEN))).await;
    platform.post_acme(&acme_event("e-1")).await;
    receiver.wait_for(2).await;
    let bearer = receiver.deliveries_to("/bearer").remove(0);
    assert_eq!(bearer.header("authorization"), format!("Bearer {TOKEN}"));
    assert_eq!(bearer.header("x-team"), "payments");
    let basic = receiver.deliveries_to("/basic").remove(0);
    // base64 of "Aladdin:open sesame 5b2e"
    assert_eq!(basic.header("authorization"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZSA1YjJl");

    platform.apply(&(integrations + &sent_secret("rotated-token"))).await;
    grapnel_testing::wait_until("the rotated token", async || {
        let posted = receiver.deliveries_to("/bearer").len();
        platform.post_acme(&acme_event(&format!("rotated-{posted}"))).await;
        grapnel_testing::wait_until("its delivery", async || {
            receiver.deliveries_to("/bearer").len() > posted
        })
        .await;
        receiver.deliveries_to("/bearer").last().expect("one").header("authorization")
            == "Bearer rotated-token"
    })
    .await;
}

#[tokio::test]
async fn every_delivery_tells_type_id_and_attempt() {
    let receiver = TestReceiver::answering(|count, _| Reply::Status(if count < 3 { 500 } else { 200 })).await;
    let platform = Platform::new().await;
    let integration = acme_integration(&[with_fields("orders", &receiver.url("/"), "")]);
    let _running = platform.start_api_and_worker(&integration).await;
    platform.post_acme(&acme_event("e-\u{e9} 1")).await;
    let deliveries = receiver.wait_for(3).await;
    for (number, delivery) in (1..).zip(&deliveries) {
        assert_eq!(delivery.header("x-delivery-attempt"), number.to_string());
        assert_eq!(delivery.header("x-event-type"), "order.created");
        assert_eq!(delivery.header("x-external-event-id"), "e-%C3%A9 1");
    }
}

#[tokio::test]
async fn headers_of_the_webhook_are_sent_on_only_as_far_as_they_are_named_and_no_secrets() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let destinations = [
        with_fields(
            "named",
            &receiver.url("/named"),
            "forwardHeaders: [X-Trace, x-acme-signature, x-globex-token],",
        ),
        with_fields(
            "own",
            &receiver.url("/own"),
            "headers: [{name: x-trace, value: own}], forwardHeaders: [x-trace],",
        ),
        with_fields("none", &receiver.url("/none"), ""),
    ];
    let globex = integration(
        "globex",
        "",
        &[with_fields("assets", &receiver.url("/globex"), "forwardHeaders: [x-globex-token, x-trace],")],
    );
    let _running =
        platform.start_api_and_worker(&(acme_integration(&destinations) + "---\n" + &globex)).await;
    platform.wait_until_known("globex").await;
    let body = acme_event("e-1");
    let signature = sign(body.as_bytes());
    let headers = [("x-acme-signature", signature.as_str()), ("x-trace", "a b")];
    assert_eq!(platform.post("/api/v1/webhooks/acme", &headers, &body).await.status, 202);
    let body = r#"{"id":"g-1","type":"t","timestamp":"2026-11-24T10:00:00Z","resource":{}}"#;
    let headers = [("x-globex-token", super::super::harness::GLOBEX_TOKEN), ("x-trace", "g")];
    assert_eq!(platform.post("/api/v1/webhooks/globex", &headers, body).await.status, 202);
    receiver.wait_for(4).await;
    let sent = |path: &str| receiver.deliveries_to(path).remove(0);
    let named = sent("/named");
    assert_eq!((named.header("x-trace"), named.header("x-acme-signature")), ("a b", signature.as_str()));
    assert_eq!(sent("/own").header("x-trace"), "own");
    assert!(!sent("/none").headers.contains_key("x-trace"));
    let globex = sent("/globex");
    assert_eq!(globex.header("x-trace"), "g");
    assert!(!globex.headers.contains_key("x-globex-token"), "its value carried a secret");
}

#[tokio::test]
async fn each_destination_has_its_own_form() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let forms = ["normalized", "raw", "cloudevents", "cloudevents-binary"];
    let destinations =
        forms.map(|form| with_fields(form, &receiver.url(&format!("/{form}")), &format!("deliver: {form},")));
    let _running = platform.start_api_and_worker(&acme_integration(&destinations)).await;
    let body = acme_event("e-1");
    let accepted = platform.post_acme(&body).await;
    receiver.wait_for(forms.len()).await;
    let sent = |form: &str| -> Delivery { receiver.deliveries_to(&format!("/{form}")).remove(0) };
    assert_eq!(sent("raw").body, body);
    let payload = sent("normalized").json()["data"].clone();
    assert_eq!(sent("normalized").json()["eventType"], "order.created");
    let structured = sent("cloudevents");
    assert_eq!(structured.header("content-type"), "application/cloudevents+json");
    assert_eq!((&structured.json()["type"], &structured.json()["data"]), (&"order.created".into(), &payload));
    let binary = sent("cloudevents-binary");
    assert_eq!(binary.json(), payload);
    assert_eq!(binary.header("content-type"), "application/json");
    assert_eq!((binary.header("ce-specversion"), binary.header("ce-type")), ("1.0", "order.created"));
    assert_eq!(
        (binary.header("ce-id"), binary.header("ce-externaleventid")),
        (accepted.event_id().as_str(), "e-1")
    );
    assert_eq!(binary.header("ce-source"), structured.json()["source"].as_str().expect("a source"));
    for name in ["ce-specversion", "ce-id"] {
        assert!(!structured.headers.contains_key(name) && !sent("raw").headers.contains_key(name));
    }
}

#[tokio::test]
async fn a_final_status_ends_the_delivery_at_once() {
    let receiver =
        TestReceiver::answering(|_, delivery| Reply::Status(delivery.path[1..].parse().expect("a status")))
            .await;
    let platform = Platform::new().await;
    let fields = "finalStatuses: [404], maxAttempts: 2, initialDelaySeconds: 1, maxDelaySeconds: 1";
    let destination = |name: &str, status: u16| {
        format!("{{name: {name}, url: '{}', retry: {{{fields}}}}}", receiver.url(&format!("/{status}")))
    };
    let destinations = [destination("missing", 404), destination("failing", 500)];
    let _running = platform.start_api_and_worker(&acme_integration(&destinations)).await;
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 2).await;
    assert_eq!(attempts(&platform, "missing").await.len(), 1);
    assert_eq!(attempts(&platform, "failing").await.len(), 2);
    let reason = "the receiver answered 404, which is final for this destination".to_owned();
    assert_eq!(delivery(&platform, "missing").await, ("failed".to_owned(), Some(reason)));
}

#[tokio::test]
async fn one_token_serves_many_deliveries_and_is_fetched_again_when_it_is_refused() {
    const EVENTS: usize = 20;
    let (platform, server) = (Platform::new().await, token_server().await);
    let receiver = TestReceiver::answering(|_, delivery| {
        let is_accepted = match delivery.path.as_str() {
            "/late" => delivery.header("authorization") == "Bearer token-2",
            _ => delivery.header("authorization") == "Bearer token-1",
        };
        Reply::Status(if is_accepted { 200 } else { 401 })
    })
    .await;
    let fields = oauth2(&server);
    let integrations = acme_integration(&[with_fields("orders", &receiver.url("/"), &fields)]);
    let _running = platform.start_api_and_worker(&(integrations + &sent_secret(TOKEN))).await;
    for number in 0..EVENTS {
        platform.post_acme(&acme_event(&format!("e-{number}"))).await;
    }
    wait_until_finished(&platform, EVENTS as i64).await;
    assert_eq!(receiver.deliveries().len(), EVENTS);
    let requests = server.deliveries();
    assert_eq!(requests.len(), 1, "one token for all");
    assert_eq!(requests[0].body, "grant_type=client_credentials&scope=a+b&audience=https%3A%2F%2Forders");
    // base64 of "orders:client-secret-90aa"
    assert_eq!(requests[0].header("authorization"), "Basic b3JkZXJzOmNsaWVudC1zZWNyZXQtOTBhYQ==");

    let integrations = acme_integration(&[with_fields("orders", &receiver.url("/late"), &fields)]);
    platform.apply(&(integrations + &sent_secret(TOKEN))).await;
    let server_before = server.deliveries().len();
    grapnel_testing::wait_until("a delivery to the new URL", async || {
        platform.post_acme(&acme_event(&format!("late-{}", receiver.deliveries().len()))).await;
        !receiver.deliveries_to("/late").is_empty()
    })
    .await;
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE finished_at IS NULL", 0).await;
    // A new lane fetches a token of its own, the second one, which is accepted at once.
    assert_eq!(server.deliveries().len(), server_before + 1);
    assert!(attempts(&platform, "orders").await.iter().all(|(number, ..)| *number == 1));
}

#[tokio::test]
async fn a_refused_token_is_replaced_within_the_attempt() {
    let (platform, server) = (Platform::new().await, token_server().await);
    let receiver = TestReceiver::answering(|_, delivery| {
        Reply::Status(if delivery.header("authorization") == "Bearer token-2" { 200 } else { 401 })
    })
    .await;
    let integrations = acme_integration(&[with_fields("orders", &receiver.url("/"), &oauth2(&server))]);
    let _running = platform.start_api_and_worker(&(integrations + &sent_secret(TOKEN))).await;
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 1).await;
    assert_eq!(attempts(&platform, "orders").await, [(1, Some(200), None)]);
    assert_eq!((receiver.deliveries().len(), server.deliveries().len()), (2, 2));
}

#[tokio::test]
async fn a_token_endpoint_in_trouble_costs_no_attempt_and_holds_up_no_other_destination() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let troubles = [
        ("refusing", Reply::Body(401, br#"{"error":"invalid_client","error_description":"no"}"#.to_vec())),
        ("wrong", Reply::Body(200, b"<html>".to_vec())),
        ("huge", Reply::Body(200, vec![b' '; 128 * 1024])),
        ("hanging", Reply::Hang),
    ];
    let (mut servers, mut destinations) =
        (Vec::new(), vec![with_fields("plain", &receiver.url("/plain"), "")]);
    for (name, reply) in troubles {
        let server = TestReceiver::answering(move |_, _| reply.clone()).await;
        destinations.push(with_fields(name, &receiver.url(&format!("/{name}")), &oauth2(&server)));
        servers.push(server);
    }
    let _running =
        platform.start_api_and_worker(&(acme_integration(&destinations) + &sent_secret(TOKEN))).await;
    for number in 0..10 {
        platform.post_acme(&acme_event(&format!("e-{number}"))).await;
    }
    platform
        .wait_for_count(
            "SELECT count(*) FROM deliveries WHERE destination = 'plain' AND status = 'succeeded'",
            10,
        )
        .await;
    let waiting = "SELECT count(*) FROM deliveries WHERE destination <> 'plain' AND status = 'retrying' \
        AND attempts = 0 AND unsent_since IS NOT NULL AND last_error LIKE '%token endpoint%'";
    platform.wait_for_count(waiting, 40).await;
    assert_eq!(receiver.deliveries().len(), 10, "no other receiver was called");
    assert_eq!(
        platform.count("SELECT count(*) FROM delivery_attempts WHERE destination <> 'plain'").await,
        0
    );
    let requests: Vec<usize> = servers.iter().map(|server| server.deliveries().len()).collect();
    assert!(
        requests.iter().all(|count| (1..=10).contains(count)),
        "a failed request is not repeated at once: {requests:?}"
    );
    let error = "SELECT last_error FROM deliveries WHERE destination = 'refusing' LIMIT 1";
    let error = platform.database.rows(error).await[0]["last_error"].clone();
    assert_eq!(error, "the token endpoint cannot be used: it answered 401 (invalid_client)");
}

#[tokio::test]
async fn a_delivery_that_could_not_be_sent_for_a_day_fails() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let server = TestReceiver::answering(|_, _| Reply::Status(500)).await;
    let integrations = acme_integration(&[with_fields("orders", &receiver.url("/"), &oauth2(&server))]);
    let _running = platform.start_api_and_worker(&(integrations + &sent_secret(TOKEN))).await;
    platform.post_acme(&acme_event("e-1")).await;
    platform
        .wait_for_count(
            "SELECT count(*) FROM deliveries WHERE unsent_since IS NOT NULL AND due_at IS NOT NULL",
            1,
        )
        .await;
    platform
        .database
        .execute("UPDATE deliveries SET unsent_since = now() - interval '25 hours', due_at = now()")
        .await;
    wait_until_finished(&platform, 1).await;
    let (status, error) = delivery(&platform, "orders").await;
    assert_eq!(status, "failed");
    let reason =
        "could not be sent for 24 hours; the last reason: the token endpoint cannot be used: it answered 500";
    assert_eq!(error.as_deref(), Some(reason));
    assert_eq!(platform.count("SELECT count(*) FROM audit_entries WHERE action = 'event.failed'").await, 1);
    assert!(receiver.deliveries().is_empty());
}

#[tokio::test]
async fn a_secret_without_the_label_is_refused_and_named() {
    let platform = Platform::new().await;
    let unlabeled = sent_secret(TOKEN).replace(", labels: {grapnel.dev/destination: 'true'}", "");
    let destination = with_fields("orders", "https://orders.example.com/", BEARER);
    let path = platform.write_integrations(&(acme_integration(&[destination]) + &unlabeled));
    let refused = platform.try_run(&["apply", "--file", path.to_str().expect("a path in UTF-8")]).await;
    assert!(!refused.status.success());
    let message =
        String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    let expected = "spec.destinations[0].headers[1].valueFrom: the Secret test/out does not have the label grapnel.dev/destination";
    assert!(message.contains(expected) && !message.contains(TOKEN), "{message}");
}

#[tokio::test]
async fn no_secret_that_a_destination_sends_is_in_a_log_or_a_dump() {
    const LOUD: &str =
        "trace,hyper=trace,hyper::proto=trace,hyper_util::client=trace,reqwest::connect=trace,rustls=trace";
    let (mut platform, server) = (Platform::new().await, token_server().await);
    let receiver = TestReceiver::new().await;
    platform.set("RUST_LOG", LOUD);
    let destinations = [
        with_fields("bearer", &receiver.url("/"), BEARER),
        with_fields("basic", &receiver.url("/"), BASIC),
        with_fields("oauth2", &receiver.url("/"), &oauth2(&server)),
    ];
    let (api, worker) =
        platform.start_api_and_worker(&(acme_integration(&destinations) + &sent_secret(TOKEN))).await;
    let accepted = platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 3).await;
    let answer = platform.get(&format!("/api/v1/events/{}", accepted.event_id())).await;
    let dump = Command::new("pg_dump").args(["-d", platform.database.url()]).output().expect("pg_dump");
    let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
    assert!(worker.log().contains("TRACE") && dump.contains("order.created"));
    let basic = "QWxhZGRpbjpvcGVuIHNlc2FtZSA1YjJl";
    for secret in [TOKEN, PASSWORD, CLIENT_SECRET, "token-1", basic, "b3JkZXJzOmNsaWVudC1zZWNyZXQtOTBhYQ"] {
        for (place, text) in [
            ("the api's log", api.log()),
            ("the worker's log", worker.log()),
            ("the dump", dump.clone()),
            ("an answer", answer.text.clone()),
        ] {
            assert!(!text.contains(secret), "{secret} is in {place}");
        }
    }
}
