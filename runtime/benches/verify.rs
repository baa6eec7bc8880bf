//! What the verification of one webhook costs, by scheme.

use std::hint::black_box;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use criterion::{Criterion, criterion_group, criterion_main};
use grapnel::ingress::place::Incoming;
use grapnel::ingress::verify::Verifier;
use grapnel::preset;
use jiff::Timestamp;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

/// A body of the size that is usual.
fn body() -> Vec<u8> {
    format!(r#"{{"id":"e-1","type":"order.created","filler":"{}"}}"#, "x".repeat(1000)).into_bytes()
}

fn bench(
    criterion: &mut Criterion,
    provider: &str,
    secret: &[u8],
    headers: &[(&'static str, String)],
    body: &[u8],
) {
    let preset = preset::find(provider).expect("a preset");
    let verifier = Verifier::new(&preset.verification, None, None, &[secret]).expect("a verifier");
    let pair = |(name, value): &(&'static str, String)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
    };
    let headers: HeaderMap = headers.iter().map(pair).collect();
    let (method, uri) = (Method::POST, Uri::from_static("/api/v1/webhooks/r"));
    let public_url = Some("https://hooks.example.com");
    let incoming = Incoming { method: &method, uri: &uri, headers: &headers, body, public_url };
    verifier.verify(&incoming, Timestamp::now()).expect("it verifies");
    criterion.bench_function(provider, |bencher| {
        bencher.iter(|| verifier.verify(black_box(&incoming), black_box(Timestamp::now())));
    });
}

fn schemes(criterion: &mut Criterion) {
    let body = body();
    let now = Timestamp::now().as_second().to_string();
    let mac = |algorithm, message: &[u8]| hmac::sign(&hmac::Key::new(algorithm, b"secret"), message);

    let signature = hex::encode(mac(hmac::HMAC_SHA256, &body));
    bench(criterion, "acme", b"secret", &[("x-acme-signature", signature)], &body);
    bench(criterion, "globex", b"secret", &[("x-globex-token", "secret".to_owned())], &body);

    let signature = hex::encode(mac(hmac::HMAC_SHA256, &[now.as_bytes(), b".", &body].concat()));
    let header = format!("t={now},v1={signature}");
    bench(criterion, "stripe", b"secret", &[("stripe-signature", header)], &body);

    let url = b"https://hooks.example.com/api/v1/webhooks/r";
    let signature = STANDARD.encode(mac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &[&body[..], url].concat()));
    bench(criterion, "trello", b"secret", &[("x-trello-webhook", signature)], &body);

    let message = [now.as_bytes(), &body].concat();
    let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("a pair");
    let headers =
        [("x-signature-ed25519", hex::encode(pair.sign(&message))), ("x-signature-timestamp", now.clone())];
    bench(criterion, "discord", hex::encode(pair.public_key()).as_bytes(), &headers, &body);

    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("a key");
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).expect("a pair");
    let prefix = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").expect("hex");
    let public = STANDARD.encode([&prefix, pair.public_key().as_ref()].concat());
    let signature = STANDARD.encode(pair.sign(&random, &message).expect("signed"));
    let headers = [
        ("x-twilio-email-event-webhook-signature", signature),
        ("x-twilio-email-event-webhook-timestamp", now),
    ];
    bench(criterion, "sendgrid", public.as_bytes(), &headers, &body);
}

criterion_group!(benches, schemes);
criterion_main!(benches);
