//! Secrets stay secret: in responses, in logs at every level, in the database.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use grapnel_core::ids::IntegrationId;
use grapnel_core::sealing::SealingKeys;
use grapnel_store::captured_secrets;
use grapnel_testing::{
    ACME_SECRET, MANAGEMENT_KEY, Reply, SEALING_KEYS, TestReceiver, acme_event, wait_until,
};
use secrecy::ExposeSecret;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::harness::{
    Answer, GLOBEX_TOKEN, Platform, SIGNING_SECRET, acme_integration, destination, integration, sign,
};

/// Every log target that may know a secret, at its most verbose level.
const VERBOSE: &str = "trace,sqlx::query=trace,lapin=trace,lapin::io_loop=trace,lapin::channels=trace,redis=trace,\
    hyper=trace,hyper::proto=trace,hyper_util::client=trace,reqwest::connect=trace,rustls=trace,h2=trace,h2::codec=trace";

const AUTHORIZATION: &str = "Bearer provider-credential-4c1e";
const COOKIE: &str = "session=provider-session-9ab2";

/// A secret in each form in which it may appear.
struct Needle {
    name: &'static str,
    forms: Vec<String>,
}

impl Needle {
    fn new(name: &'static str, secret: &[u8]) -> Self {
        let mut forms = vec![hex::encode(secret), hex::encode_upper(secret)];
        forms.extend(std::str::from_utf8(secret).map(str::to_owned));
        // The base64 of a text around it differs at each of three alignments; the ends depend on that text and are cut.
        for skipped in 0..3 {
            let shifted = [&[0; 2][..skipped], secret].concat();
            let encoded = [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)];
            forms.extend(encoded.map(|text| text[[0, 2, 3][skipped]..text.len() - 2].to_owned()));
        }
        Self { name, forms }
    }

    #[track_caller]
    fn assert_not_in(&self, place: &str, text: &str) {
        for form in &self.forms {
            let Some(at) = text.find(form.as_str()) else { continue };
            let start = text.floor_char_boundary(at.saturating_sub(200));
            panic!("{} is in {place}: …{}", self.name, &text[start..at]);
        }
    }
}

fn needles(platform: &Platform) -> Vec<Needle> {
    let password =
        |url: &str| Url::parse(url).expect("a URL").password().expect("a password").to_owned().into_bytes();
    let signing = SIGNING_SECRET.strip_prefix("whsec_").expect("a prefix");
    let sealing = SEALING_KEYS.split_once(':').expect("an id").1;
    let decode = |text: &str| STANDARD.decode(text).expect("base64");
    vec![
        Needle::new("Acme's secret", ACME_SECRET.as_bytes()),
        Needle::new("Globex's token", GLOBEX_TOKEN.as_bytes()),
        Needle::new("the signing secret", signing.as_bytes()),
        Needle::new("the signing key", &decode(signing)),
        Needle::new("the management key", MANAGEMENT_KEY.as_bytes()),
        Needle::new("the sealing key's text", sealing.as_bytes()),
        Needle::new("the sealing key", &decode(sealing)),
        Needle::new("PostgreSQL's password", &password(&platform.services.database_url)),
        Needle::new("Redis's password", &password(&platform.services.redis_url)),
        Needle::new("RabbitMQ's password", &password(&platform.services.rabbitmq_url)),
        Needle::new("the provider's credential", b"provider-credential-4c1e"),
        Needle::new("the provider's session", b"provider-session-9ab2"),
    ]
}

fn integrations(receiver: &TestReceiver) -> String {
    let signing = "signingSecretRef: {name: acme-secrets, key: outgoing}}";
    let signed = destination("orders", &receiver.url("/"));
    let signed = format!("{}, {signing}", signed.strip_suffix('}').expect("a flow mapping"));
    let failing = destination("failing", &receiver.url("/fails"));
    acme_integration(&[signed, failing])
        + "---\n"
        + &integration("globex", "", &[destination("assets", &receiver.url("/"))])
}

/// Sends good and bad requests of every kind, and returns all responses.
async fn exercise(platform: &Platform) -> Vec<Answer> {
    let mut answers = Vec::new();
    let body = acme_event("e-1");
    let signature = sign(body.as_bytes());
    let (acme, globex) = ("/api/v1/webhooks/acme", "/api/v1/webhooks/globex");
    let globex_body =
        json!({"id": "g-1", "type": "t", "timestamp": "2026-11-24T10:00:00Z", "resource": {"id": "r"}})
            .to_string();
    for (path, headers, body) in [
        (acme, vec![("x-acme-signature", signature.as_str())], body.as_str()),
        (acme, vec![("x-acme-signature", signature.as_str())], "{}"),
        (acme, vec![("x-acme-signature", ACME_SECRET)], body.as_str()),
        (acme, vec![], body.as_str()),
        (globex, vec![("x-globex-token", GLOBEX_TOKEN)], globex_body.as_str()),
        (globex, vec![("x-globex-token", GLOBEX_TOKEN)], "not json"),
        (
            globex,
            vec![("x-globex-token", GLOBEX_TOKEN), ("content-type", "text/plain")],
            globex_body.as_str(),
        ),
        (globex, vec![("x-globex-token", &GLOBEX_TOKEN[1..])], globex_body.as_str()),
        ("/api/v1/webhooks/none", vec![("x-globex-token", GLOBEX_TOKEN)], ""),
    ] {
        let mut headers = headers;
        headers.extend([
            ("authorization", AUTHORIZATION),
            ("cookie", COOKIE),
            ("x-internal-api-key", MANAGEMENT_KEY),
        ]);
        answers.push(platform.post(path, &headers, body).await);
    }
    let id = answers[0].event_id();
    let finished = "SELECT count(*) FROM deliveries WHERE finished_at IS NOT NULL";
    platform.wait_for_count(finished, 3).await;
    for path in [
        "/api/v1/health",
        "/api/v1/integrations",
        "/api/v1/events",
        "/api/v1/deliveries",
        "/api/v1/audit-entries",
        "/api/v1/replay-requests",
        "/api/v1/integrations?provider=%00",
        "/api/v1/events/nonsense",
        "/openapi.json",
        &format!("/api/v1/events/{id}"),
        &format!("/api/v1/events/{}", answers[4].event_id()),
        &format!("/api/v1/processing-status/{id}"),
    ] {
        answers.push(platform.get(path).await);
    }
    let key = [("x-internal-api-key", MANAGEMENT_KEY), ("content-type", "application/json")];
    let replay = json!({"reason": "to see whether it tells"}).to_string();
    answers.push(platform.post(&format!("/api/v1/events/{id}/replay"), &key, &replay).await);
    answers.push(platform.post(&format!("/api/v1/events/{id}/replay"), &key, "{").await);
    platform.wait_for_count("SELECT count(*) FROM replay_requests WHERE processed_at IS NOT NULL", 1).await;
    answers
}

fn dump(platform: &Platform) -> String {
    let output = Command::new("pg_dump").args(["-d", platform.database.url()]).output().expect("pg_dump");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn failing_receiver() -> TestReceiver {
    TestReceiver::answering(|_, delivery| match delivery.path.as_str() {
        "/fails" => Reply::Status(500),
        _ => Reply::Status(200),
    })
    .await
}

#[tokio::test]
async fn no_secret_is_in_a_response_a_log_or_a_dump() {
    let (mut platform, receiver) = (Platform::new().await, failing_receiver().await);
    platform.set("RUST_LOG", VERBOSE);
    let (api, worker) = platform.start_api_and_worker(&integrations(&receiver)).await;
    platform.wait_until_known("globex").await;
    let answers = exercise(&platform).await;
    assert_eq!(answers[0].status, 202);
    let logs = [api.log(), worker.log()];
    assert!(logs.iter().all(|log| log.contains("TRACE")), "the logs are not loud");
    // The filter cannot enable these.
    assert!(logs.iter().all(|log| !log.contains("io_loop") && !log.contains("slow_threshold")), "{logs:?}");
    let dump = dump(&platform);
    assert!(dump.contains("acme-orders") || dump.contains("order.created"), "the dump is empty");
    for needle in needles(&platform) {
        for answer in &answers {
            needle.assert_not_in("an answer", &format!("{:?} {}", answer.headers, answer.text));
        }
        needle.assert_not_in("the api's log", &logs[0]);
        needle.assert_not_in("the worker's log", &logs[1]);
        needle.assert_not_in("the dump", &dump);
        for delivery in receiver.deliveries() {
            needle.assert_not_in("a delivery", &format!("{:?} {}", delivery.headers, delivery.body));
        }
    }
}

#[tokio::test]
async fn no_secret_is_in_the_log_of_dev() {
    let (mut platform, receiver) = (Platform::new().await, failing_receiver().await);
    platform.set("RUST_LOG", VERBOSE);
    let yaml = integrations(&receiver);
    let path = platform.write_integrations(&yaml);
    let dev = platform.start(&["dev", "--file", path.to_str().expect("a path in UTF-8")]);
    platform.wait_until_known("globex").await;
    // Even with the most verbose log, nothing is lost.
    assert_eq!(dev.log().matches("integration applied").count(), 2, "{}", dev.log());
    exercise(&platform).await;
    // Files with mistakes around a secret, and in it.
    for wrong in [
        yaml.replace("stringData: {", "stringData: {["),
        yaml.replace("outgoing: 'whsec_", "outgoing: 'whsec_!"),
        yaml.replace(&format!("incoming: {ACME_SECRET}"), &format!("incoming: [{ACME_SECRET}]")),
        yaml.replace("kind: Secret", "kind: Secrets"),
        yaml.replace("stringData", "data"),
    ] {
        let before = dev.log().matches("the last valid state stays").count();
        platform.write_integrations(&wrong);
        wait_until(&format!("this to be refused:\n{wrong}"), || async {
            dev.log().matches("the last valid state stays").count() > before
        })
        .await;
    }
    let log = dev.log();
    assert!(dev.stop().await.success());
    for needle in needles(&platform) {
        needle.assert_not_in("the log", &log);
    }
}

#[tokio::test]
async fn headers_that_carry_a_secret_are_stored_as_redacted() {
    let (platform, receiver) = (Platform::new().await, failing_receiver().await);
    let _api = platform.start_api(&integrations(&receiver)).await;
    platform.wait_until_known("globex").await;
    let body =
        json!({"id": "g-1", "type": "t", "timestamp": "2026-11-24T10:00:00Z", "resource": {}}).to_string();
    let headers = [
        ("x-globex-token", GLOBEX_TOKEN),
        ("authorization", AUTHORIZATION),
        ("proxy-authorization", AUTHORIZATION),
        ("cookie", COOKIE),
        ("x-other", "kept"),
    ];
    let accepted = platform.post("/api/v1/webhooks/globex", &headers, &body).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let event = platform.get(&format!("/api/v1/events/{}", accepted.event_id())).await.json();
    let stored = &event["data"]["webhook"]["requestHeaders"];
    for name in ["x-globex-token", "authorization", "proxy-authorization", "cookie"] {
        assert_eq!(stored[name], "[redacted]", "{stored}");
    }
    assert_eq!(stored["x-other"], "kept", "{stored}");

    // A signature is not a secret.
    let body = acme_event("e-1");
    let signature = sign(body.as_bytes());
    let accepted = platform.post("/api/v1/webhooks/acme", &[("x-acme-signature", &signature)], &body).await;
    let event = platform.get(&format!("/api/v1/events/{}", accepted.event_id())).await.json();
    assert_eq!(event["data"]["webhook"]["requestHeaders"]["x-acme-signature"], signature.as_str());
}

#[tokio::test]
async fn secrets_are_resealed_when_the_key_is_rotated() {
    const SECOND: &str = "second:c2Vjb25kLXNlYWxpbmcta2V5LW9mLTMyLWJ5dGVzISE=";
    let (mut platform, receiver) = (Platform::new().await, failing_receiver().await);
    platform.apply(&integrations(&receiver)).await;
    let sealed_by = "SELECT count(*) FROM integrations WHERE substring(secrets FROM 3 FOR 6) = 'second'";
    assert_eq!(platform.count(sealed_by).await, 0);
    let id = platform.database.text("SELECT id::text FROM integrations WHERE route = 'acme'").await;
    let id: Uuid = id.expect("an id").parse().expect("a UUID");
    let keys = SealingKeys::parse(SEALING_KEYS).expect("keys");
    let sealed = keys.seal(id.as_bytes(), b"a-secret-that-waits");
    assert!(
        captured_secrets::insert(&platform.db, IntegrationId::new(id), "hook-secret", &sealed)
            .await
            .expect("a row")
    );

    platform.set("GRAPNEL_SEALING_KEYS", &format!("{SECOND},{SEALING_KEYS}"));
    let mut api = platform.start(&["api"]);
    platform.wait_for_count(sealed_by, 2).await;
    let captured_by = "SELECT count(*) FROM captured_secrets WHERE substring(sealed FROM 3 FOR 6) = 'second'";
    platform.wait_for_count(captured_by, 1).await;
    let waiting = captured_secrets::find(&platform.db, IntegrationId::new(id))
        .await
        .expect("an answer")
        .expect("a row");
    let second = SealingKeys::parse(SECOND).expect("keys");
    let opened = second.open(id.as_bytes(), &waiting.sealed).expect("the new key opens it");
    assert_eq!(opened.expose_secret(), b"a-secret-that-waits");
    platform.wait_until_accepting().await;
    assert_eq!(platform.post_acme(&acme_event("e-1")).await.status, 202);
    api.kill();

    platform.set("GRAPNEL_SEALING_KEYS", SECOND);
    let _running = (platform.start(&["api"]), platform.start(&["worker"]));
    platform.wait_until_accepting().await;
    assert_eq!(platform.post_acme(&acme_event("e-2")).await.status, 202);
    let signed = "SELECT count(*) FROM deliveries WHERE destination = 'orders' AND status = 'succeeded'";
    platform.wait_for_count(signed, 2).await;

    // The old key alone opens nothing any more, and the log names the key that is needed.
    platform.set("GRAPNEL_SEALING_KEYS", SEALING_KEYS);
    platform.set("GRAPNEL_HTTP_ADDR", "127.0.0.1:0");
    let outdated = platform.start(&["api"]);
    outdated.wait_for_log("the sealed value needs sealing key \"second\", which is not configured").await;
}
