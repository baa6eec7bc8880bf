//! Bodies with a content coding: decoded within the limit, and verified in the form that the scheme names.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use grapnel_testing::{ACME_SECRET, TestReceiver, WebhookRequest};
use serde_json::{Value, json};

use super::super::harness::{Platform, sign};
use super::{SendTo, documents};

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

fn raw_deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

/// Returns a custom provider that signs as Acme does.
fn custom(receiver: &TestReceiver, deliver: &str, scheme: Value) -> Value {
    let mut spec = json!({
        "provider": "custom",
        "verification": {"scheme": {"type": "hmac", "message": "{body}", "signature": {"from": "header:x-sig"}}},
        "mapping": {"externalEventId": ["/id"], "eventType": ["literal:t"], "deliver": deliver},
        "ingress": {"maxBodyBytes": 100_000},
        "destinations": [{"name": "orders", "url": receiver.url("/")}],
    });
    for (field, value) in scheme.as_object().expect("fields") {
        spec["verification"]["scheme"][field] = value.clone();
    }
    spec
}

fn request(route: &str, coding: &str, signed: &[u8], body: Vec<u8>) -> WebhookRequest {
    let request = WebhookRequest::new("POST", route)
        .header("content-type", "application/json")
        .header("content-encoding", coding)
        .header("x-sig", &sign(signed));
    WebhookRequest { body, ..request }
}

async fn start(receiver: &TestReceiver) -> (Platform, impl Sized + use<>) {
    let platform = Platform::new().await;
    let received = json!({"body": "received"});
    let yaml = documents("decoded", custom(receiver, "raw", json!({})), &[ACME_SECRET])
        + &documents("received", custom(receiver, "normalized", received), &[ACME_SECRET]);
    platform.apply(&yaml).await;
    let running = (platform.start(&["api"]), platform.start(&["worker"]));
    platform.wait_until_known("decoded").await;
    (platform, running)
}

type Encoder = fn(&[u8]) -> Vec<u8>;

#[tokio::test]
async fn a_body_is_decoded_verified_as_the_scheme_says_and_delivered_without_its_coding() {
    let receiver = TestReceiver::new().await;
    let (platform, _running) = start(&receiver).await;
    let codings: [(&str, Encoder); 7] = [
        ("gzip", gzip),
        ("X-GZIP", gzip),
        ("deflate", zlib),
        ("deflate", raw_deflate),
        ("deflate, gzip", |body| gzip(&zlib(body))),
        ("identity, gzip", gzip),
        ("identity", <[u8]>::to_vec),
    ];
    for (number, (coding, encode)) in codings.into_iter().enumerate() {
        let body = format!(r#"{{ "id":"e-{number}","text":"{}" }}"#, "x".repeat(20_000));
        let encoded = encode(body.as_bytes());
        let wrong = (encoded != body.as_bytes()).then_some(401);
        let as_received = request("decoded", coding, &encoded, encoded.clone()).send(&platform).await;
        assert_eq!(as_received.status, wrong.unwrap_or(202), "{coding}: {as_received:?}");
        let decoded = request("decoded", coding, body.as_bytes(), encoded.clone()).send(&platform).await;
        assert_eq!(decoded.status, if wrong.is_some() { 202 } else { 200 }, "{coding}: {decoded:?}");
        let delivery = receiver.wait_for(2 * number + 1).await.pop().expect("a delivery");
        assert_eq!((delivery.body.as_str(), delivery.header("content-encoding")), (body.as_str(), ""));
        assert_eq!(delivery.header("content-type"), "application/json");
        let record = platform.get(&format!("/api/v1/events/{}", decoded.event_id())).await.json();
        let webhook = &record["data"]["webhook"];
        assert_eq!(webhook["rawBody"], STANDARD.encode(&body), "{coding}");
        assert_eq!(webhook["requestHeaders"]["content-encoding"], coding);

        if wrong.is_some() {
            let refused = request("received", coding, body.as_bytes(), encoded.clone()).send(&platform).await;
            assert_eq!(refused.status, 401, "{coding}: {refused:?}");
        }
        let accepted = request("received", coding, &encoded, encoded.clone()).send(&platform).await;
        assert_eq!(accepted.status, 202, "{coding}: {accepted:?}");
        let delivery = receiver.wait_for(2 * number + 2).await.pop().expect("a delivery");
        assert!(delivery.body.ends_with(&format!(r#""data":{body}}}"#)), "{coding}: {}", delivery.body);
    }
}

#[tokio::test]
async fn an_unknown_coding_is_415_a_broken_body_400_and_a_bomb_413() {
    let receiver = TestReceiver::new().await;
    let (platform, _running) = start(&receiver).await;
    let body = br#"{"id":"e-1"}"#;
    let send = async |coding: &str, encoded: Vec<u8>| {
        request("decoded", coding, body, encoded).send(&platform).await
    };
    for (coding, named) in [("br", "br"), ("gzip, zstd", "zstd"), ("gzip,gzip,gzip", "gzip,gzip,gzip")] {
        let refused = send(coding, body.to_vec()).await;
        assert_eq!((refused.status, refused.code().as_str()), (415, "UNSUPPORTED_MEDIA_TYPE"), "{refused:?}");
        let message = refused.json()["error"]["message"].as_str().expect("a message").to_owned();
        assert!(message.contains(&format!("content-encoding {named} ")), "{message}");
        assert_eq!(refused.header("accept-encoding"), "gzip, deflate");
    }
    let whole = gzip(body);
    let mut flipped = whole.clone();
    let checksum = flipped.len() - 6;
    flipped[checksum] ^= 1;
    for broken in [body.to_vec(), whole[..whole.len() - 1].to_vec(), [&whole[..], b"{}"].concat(), flipped] {
        let refused = send("gzip", broken).await;
        assert_eq!((refused.status, refused.field().as_str()), (400, "body"), "{refused:?}");
    }
    let refused = send("deflate", zlib(body)[..10].to_vec()).await;
    assert_eq!((refused.status, refused.field().as_str()), (400, "body"), "{refused:?}");

    // Signed as it would be, so that only its size is wrong: one byte more than the limit, and a gibibyte.
    let fill = |length: usize| [&br#"{"id":"e-2","x":""#[..], &vec![b'x'; length - 19], b"\"}"].concat();
    let fits = fill(100_000);
    assert_eq!(request("decoded", "gzip", &fits, gzip(&fits)).send(&platform).await.status, 202);
    let longer = fill(100_001);
    let refused = request("decoded", "gzip", &longer, gzip(&longer)).send(&platform).await;
    assert_eq!((refused.status, refused.code().as_str()), (413, "PAYLOAD_TOO_LARGE"), "{refused:?}");
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..64 {
        bomb.write_all(&[0; 1 << 20]).expect("memory");
    }
    let bomb = bomb.finish().expect("memory");
    assert!(bomb.len() < 100_000, "it is refused when it is decoded");
    assert_eq!(send("gzip", bomb.clone()).await.status, 413);
    assert_eq!(send("gzip, gzip", gzip(&bomb)).await.status, 413);
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 1);
}
