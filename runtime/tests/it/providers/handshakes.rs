//! Handshakes as providers make them.

use grapnel_testing::signer::{Signer, flip};
use grapnel_testing::{PUBLIC_URL, TestProcess, WebhookRequest, hmac_sha256, wait_until};
use serde_json::{Value, json};

use super::super::harness::Platform;
use super::{SendTo, documents};

const SECRET: &str = "a-secret-of-the-provider-0123456";

/// Returns the scheme of a preset, as its file has it.
pub(super) fn scheme(provider: &str) -> Value {
    let path = format!("{}/../crates/core/presets/{provider}.yaml", env!("CARGO_MANIFEST_DIR"));
    let yaml: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).expect("a file")).expect("YAML");
    yaml["verification"].clone()
}

/// Starts an api with an Integration of each provider, whose secrets are those of a [`Signer`].
pub(super) async fn start(providers: &[&str]) -> (Platform, TestProcess) {
    let mut platform = Platform::new().await;
    platform.set("GRAPNEL_PUBLIC_URL", PUBLIC_URL);
    let yaml: String = providers
        .iter()
        .map(|provider| {
            let secret = Signer::new(&scheme(provider)).secret;
            documents(provider, json!({"provider": provider, "verification": {}}), &[&secret])
        })
        .collect();
    platform.apply(&yaml).await;
    let api = platform.start(&["api"]);
    platform.wait_until_known(providers[0]).await;
    (platform, api)
}

async fn no_event(platform: &Platform) {
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 0, "a handshake is not an event");
}

#[tokio::test]
async fn signed_handshakes_are_answered_only_with_a_right_signature() {
    let providers = ["slack", "zoom", "discord", "discord-interactions", "qq-bot", "azure-event-grid"];
    let (platform, _api) = start(&providers).await;
    let ask = async |provider: &str, body: &str, expected: (u16, &str, &str)| {
        let preset = scheme(provider);
        let signer = Signer::new(&preset);
        let mut request =
            WebhookRequest::new("POST", provider).header("content-type", "application/json").body(body);
        if let Some(name) = preset["timestamp"]["from"].as_str().and_then(|from| from.strip_prefix("header:"))
        {
            request = request.header(name, "@now@");
        }
        if provider == "azure-event-grid" {
            request = request.header("aeg-event-type", "SubscriptionValidation");
        }
        let refused = signer.sign(&request, flip).send(&platform).await;
        assert_eq!(refused.status, 401, "{provider}: {refused:?}");
        let answer = signer.sign(&request, |signature| signature).send(&platform).await;
        assert_eq!(
            (answer.status, answer.header("content-type"), answer.text.as_str()),
            expected,
            "{provider}"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    };
    let challenge = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P";
    let body = json!({"type": "url_verification", "challenge": challenge}).to_string();
    ask("slack", &body, (200, "text/plain", challenge)).await;

    let token = "qgg8vlvZRS6UYooatFL8Aw";
    let mac = hmac_sha256(SECRET, token.as_bytes());
    let body = json!({"event": "endpoint.url_validation", "payload": {"plainToken": token}}).to_string();
    let answer = format!(r#"{{"plainToken":"{token}","encryptedToken":"{mac}"}}"#);
    ask("zoom", &body, (200, "application/json", &answer)).await;

    ask("discord", r#"{"version":1,"type":0}"#, (204, "application/json", "")).await;
    ask("discord-interactions", r#"{"type":1}"#, (200, "application/json", r#"{"type":1}"#)).await;

    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(SECRET.as_bytes()).expect("a pair");
    let signature = hex::encode(pair.sign(b"1725442341Arq0D5A61EgUu4OxUvOp"));
    let body =
        json!({"op": 13, "d": {"plain_token": "Arq0D5A61EgUu4OxUvOp", "event_ts": "1725442341"}}).to_string();
    let answer = format!(r#"{{"plain_token":"Arq0D5A61EgUu4OxUvOp","signature":"{signature}"}}"#);
    ask("qq-bot", &body, (200, "application/json", &answer)).await;

    let body = json!([{"data": {"validationCode": "512d38b6-c7b8"}}]).to_string();
    ask("azure-event-grid", &body, (200, "application/json", r#"{"validationResponse":"512d38b6-c7b8"}"#))
        .await;
    no_event(&platform).await;
}

#[tokio::test]
async fn a_signed_challenge_of_twitch_is_echoed_and_its_notifications_are_events() {
    let (platform, _api) = start(&["twitch"]).await;
    let signer = Signer::new(&scheme("twitch"));
    let message = |kind: &str, body: &str| {
        WebhookRequest::new("POST", "twitch")
            .header("content-type", "application/json")
            .header("twitch-eventsub-message-id", "84c1e79a")
            .header("twitch-eventsub-message-timestamp", "@nowIso@")
            .header("twitch-eventsub-message-type", kind)
            .body(body)
    };
    let body = r#"{"challenge":"pogchamp-kappa-360noscope","subscription":{"type":"channel.follow"}}"#;
    let challenge = message("webhook_callback_verification", body);
    assert_eq!(signer.sign(&challenge, flip).send(&platform).await.status, 401);
    let answer = signer.sign(&challenge, |signature| signature).send(&platform).await;
    assert_eq!(
        (answer.status, answer.header("content-type"), answer.text.as_str()),
        (200, "text/plain", "pogchamp-kappa-360noscope")
    );
    no_event(&platform).await;

    let notification = message("notification", body);
    assert_eq!(signer.sign(&notification, |signature| signature).send(&platform).await.status, 202);
}

#[tokio::test]
async fn a_webhook_of_x_is_verified_by_either_of_its_two_signature_headers() {
    let (platform, _api) = start(&["x"]).await;
    for (header, body) in [
        ("x-twitter-webhooks-signature", r#"{"for_user_id":"1"}"#),
        ("x-twitter-webhooks-signature-oauth2", r#"{"for_user_id":"2"}"#),
    ] {
        let mac = hex::decode(hmac_sha256(SECRET, body.as_bytes())).expect("hex");
        let signature = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, mac);
        let request = WebhookRequest::new("POST", "x").header("content-type", "application/json").body(body);
        let answer = request.clone().header(header, &format!("sha256={signature}")).send(&platform).await;
        assert_eq!(answer.status, 200, "{header}: {answer:?}");
        assert_eq!(request.send(&platform).await.status, 401, "without a signature");
    }
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 2);
}

#[tokio::test]
async fn challenges_are_echoed_and_escaped() {
    let (platform, _api) =
        start(&["dropbox", "okta", "microsoft-graph", "cloudevents", "intercom", "woocommerce"]).await;
    let answer = WebhookRequest::new("GET", "dropbox").query("challenge=a%20b%3C").send(&platform).await;
    assert_eq!(
        (answer.status, answer.header("content-type"), answer.text.as_str()),
        (200, "text/plain", "a b<")
    );

    let challenge = "value \"from\" header";
    let answer = WebhookRequest::new("GET", "okta")
        .header("x-okta-verification-challenge", challenge)
        .send(&platform)
        .await;
    assert_eq!(answer.json(), json!({"verification": challenge}));

    let answer = WebhookRequest::new("POST", "microsoft-graph")
        .query("validationToken=Validation%3A%20x")
        .send(&platform)
        .await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "Validation: x"));

    let options = WebhookRequest::new("OPTIONS", "cloudevents")
        .header("webhook-request-origin", "eventemitter.example.com");
    let answer = options.clone().send(&platform).await;
    assert_eq!((answer.status, answer.header("webhook-allowed-origin")), (200, "eventemitter.example.com"));
    assert_eq!((answer.header("allow"), answer.header("webhook-allowed-rate")), ("POST", ""));
    let answer = options.header("webhook-request-rate", "120").send(&platform).await;
    assert_eq!(answer.header("webhook-allowed-rate"), "120");

    assert_eq!(WebhookRequest::new("HEAD", "intercom").send(&platform).await.status, 200);
    assert_eq!(WebhookRequest::new("GET", "intercom").send(&platform).await.status, 405);
    assert_eq!(
        WebhookRequest::new("GET", "dropbox").send(&platform).await.status,
        401,
        "no challenge and no signature"
    );

    let ping = WebhookRequest::new("POST", "woocommerce")
        .header("content-type", "application/x-www-form-urlencoded")
        .body("webhook_id=58");
    assert_eq!(ping.send(&platform).await.status, 200);
    no_event(&platform).await;
}

#[tokio::test]
async fn subscription_needs_the_verify_token() {
    let (platform, _api) = start(&["meta"]).await;
    let token = hex::encode(ring::digest::digest(&ring::digest::SHA256, SECRET.as_bytes()));
    let subscribe = |token: &str| {
        let query = format!("hub.mode=subscribe&hub.verify_token={token}&hub.challenge=1158201444");
        WebhookRequest::new("GET", "meta").query(&query)
    };
    let answer = subscribe(&token).send(&platform).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "1158201444"));
    let wrong = subscribe("wrong").send(&platform).await;
    assert_eq!((wrong.status, wrong.text.as_str()), (403, ""));

    let own = json!({"provider": "meta", "verification": {"verifyTokenRef": {"name": "meta-secrets", "key": "s1"}}});
    platform.apply(&documents("meta", own, &[SECRET, "my-own-token\n"])).await;
    wait_until("the own token", async || subscribe("my-own-token").send(&platform).await.status == 200).await;
    assert_eq!(subscribe(&token).send(&platform).await.status, 403, "only the own one");
    assert_eq!(subscribe("").send(&platform).await.status, 403);
}

#[tokio::test]
async fn unsigned_challenge_gets_a_mac_of_tokens_and_never_of_what_could_be_a_webhook() {
    let (platform, _api) = start(&["x"]).await;
    let crc = async |token: &str| {
        WebhookRequest::new("GET", "x").query(&format!("crc_token={token}")).send(&platform).await
    };
    let answer = crc("9b4507b3-9040-4669-9ca3-6b94edb50553").await;
    assert_eq!(answer.status, 200);
    let response = answer.json()["response_token"].as_str().expect("a token").to_owned();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let mac = ring::hmac::sign(&key, b"9b4507b3-9040-4669-9ca3-6b94edb50553");
    use base64::Engine;
    let expected = base64::engine::general_purpose::STANDARD.encode(mac);
    assert_eq!(response, format!("sha256={expected}"));
    let forged = crc("%7B%22for_user_id%22%3A%221%22%7D").await;
    assert_eq!((forged.status, forged.text.contains("sha256")), (400, false), "{forged:?}");
}

#[tokio::test]
async fn captured_secret_is_sealed_once_and_logged_in_development_only() {
    let (platform, api) = start(&["notion", "asana"]).await;
    let ask = async |token: &str| {
        let body = json!({"verification_token": token}).to_string();
        WebhookRequest::new("POST", "notion")
            .header("content-type", "application/json")
            .body(&body)
            .send(&platform)
            .await
    };
    assert_eq!(ask("secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl").await.status, 200);
    api.wait_for_log("secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl").await;
    let sealed = async || {
        let hex = platform.database.text("SELECT encode(sealed, 'hex') FROM captured_secrets").await;
        hex::decode(hex.expect("a value")).expect("hex")
    };
    let first = sealed().await;
    assert!(!first.windows(7).any(|window| window == b"secret_"), "sealed");

    // Anyone who knows the URL could send another secret: it is not kept.
    assert_eq!(ask("secret_of_an_attacker").await.status, 200);
    assert_eq!(sealed().await, first);
    assert!(!api.log().contains("secret_of_an_attacker"));

    let echoed = WebhookRequest::new("POST", "asana")
        .header("x-hook-secret", "hook-secret-1")
        .body("{}")
        .send(&platform)
        .await;
    assert_eq!((echoed.status, echoed.header("x-hook-secret")), (200, "hook-secret-1"));
    assert_eq!(platform.count("SELECT count(*) FROM captured_secrets").await, 2);
    no_event(&platform).await;
}

#[tokio::test]
async fn intent_to_receive_is_200_for_right_and_401_for_wrong_signatures() {
    let (platform, _api) = start(&["xero"]).await;
    let signer = Signer::new(&scheme("xero"));
    let body = r#"{"events":[],"firstEventSequence":0,"lastEventSequence":0,"entropy":"S0m3r4N0m3"}"#;
    let request = WebhookRequest::new("POST", "xero").header("content-type", "application/json").body(body);
    let right = signer.sign(&request, |signature| signature).send(&platform).await;
    assert_eq!((right.status, right.text.as_str()), (200, ""));
    assert_eq!(signer.sign(&request, flip).send(&platform).await.status, 401);
}
