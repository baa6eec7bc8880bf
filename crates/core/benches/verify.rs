//! The cost of verifying one webhook: by kind of scheme, and for every preset that computes an HMAC.
//!
//! Bodies have about 1 KB. The HMAC presets are measured over their own fixtures, signed as their schemes say.

use std::hint::black_box;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use grapnel_core::preset::{self, Preset};
use grapnel_core::request::IncomingRequest;
use grapnel_core::verification::Verifier;
use grapnel_crds::{HashAlgorithm, KeyEncoding, Scheme, SchemeType, SignatureEncoding, TimeUnit};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use jiff::Timestamp;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

/// The time at which everything is sent and verified: 2026-01-31T09:00:00Z.
const NOW: i64 = 1_769_850_000;

const KEY: &[u8] = b"a-key-of-32-bytes-0123456789abcd";

/// A body of the usual size.
fn body() -> Vec<u8> {
    format!(r#"{{"id":"e-1","type":"order.created","filler":"{}"}}"#, "x".repeat(1000)).into_bytes()
}

struct Request {
    uri: Uri,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Request {
    fn new(headers: &[(&'static str, String)], body: &[u8]) -> Self {
        let pair = |(name, value): &(&'static str, String)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        };
        let headers = headers.iter().map(pair).collect();
        Self { uri: Uri::from_static("/api/v1/webhooks/r"), headers, body: body.to_vec() }
    }

    fn incoming(&self) -> IncomingRequest<'_> {
        IncomingRequest {
            method: &Method::POST,
            uri: &self.uri,
            headers: &self.headers,
            body: &self.body,
            encoded_body: None,
            form: None,
            public_url: Some("https://hooks.example.com"),
            json: None,
        }
    }
}

fn bench(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, verifier: &Verifier, request: &Request) {
    let now = Timestamp::from_second(NOW).expect("a time");
    let incoming = request.incoming();
    verifier.verify(&incoming, now).unwrap_or_else(|error| panic!("{name}: {error}"));
    group.bench_function(name, |bencher| {
        bencher.iter(|| verifier.verify(black_box(&incoming), black_box(now)));
    });
}

fn verifier(provider: &str, secret: &[u8]) -> Verifier {
    let preset = preset::find(provider).expect("a preset");
    Verifier::new(&preset.verification, None, None, &[secret]).expect("a verifier")
}

fn kinds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("kind");
    let (body, now) = (body(), NOW.to_string());
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), &body);
    let request = Request::new(&[("x-acme-signature", hex::encode(mac))], &body);
    bench(&mut group, "hmac", &verifier("acme", KEY), &request);

    let request = Request::new(&[("x-globex-token", "secret".to_owned())], &body);
    bench(&mut group, "token", &verifier("globex", b"secret"), &request);

    let message = [now.as_bytes(), &body].concat();
    let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("a pair");
    let headers =
        [("x-signature-ed25519", hex::encode(pair.sign(&message))), ("x-signature-timestamp", now.clone())];
    let public = hex::encode(pair.public_key());
    bench(&mut group, "ed25519", &verifier("discord", public.as_bytes()), &Request::new(&headers, &body));

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
    bench(&mut group, "ecdsa", &verifier("sendgrid", public.as_bytes()), &Request::new(&headers, &body));
    group.finish();
}

fn hmac_presets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hmac");
    group
        .sample_size(30)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    for name in preset::providers() {
        let preset = preset::find(name).expect("a preset");
        if preset.verification.kind == Some(SchemeType::Hmac) {
            let verifier = verifier(name, secret(&preset.verification).as_bytes());
            bench(&mut group, name, &verifier, &signed(&preset, &verifier));
        }
    }
    group.finish();
}

fn secret(scheme: &Scheme) -> String {
    let key = scheme.key.clone().unwrap_or_default();
    let text = match key.encoding {
        Some(KeyEncoding::Base64) => STANDARD.encode(KEY),
        Some(KeyEncoding::Hex) => hex::encode(KEY),
        Some(KeyEncoding::Utf8 | KeyEncoding::Seed) | None => String::from_utf8_lossy(KEY).into_owned(),
    };
    format!("{}{text}", key.strip_prefix.unwrap_or_default())
}

/// The fixture with the usual length.
fn long(preset: &Preset) -> Request {
    let timed = |text: &str| {
        text.replace("@now@", &NOW.to_string())
            .replace("@nowMs@", &format!("{NOW}000"))
            .replace("@nowIso@", "2026-01-31T09:00:00Z")
    };
    let fixture = &preset.fixture;
    let missing = 1024_usize.saturating_sub(fixture.body.len());
    let body = if fixture.body.starts_with('{') {
        fixture.body.replacen('{', &format!(r#"{{"filler":"{}","#, "x".repeat(missing)), 1)
    } else if fixture.body.starts_with('[') {
        fixture.body.replacen('[', &format!("[{}", " ".repeat(missing)), 1)
    } else {
        let fields = (0..missing / 42).map(|number| format!("&Field{number:02}={}", "a+%2B".repeat(6)));
        fixture.body.clone() + &fields.collect::<String>()
    };
    let pair = |(name, value): (&String, &String)| {
        let name = HeaderName::try_from(name).expect("a name");
        (name, HeaderValue::from_str(&timed(value)).expect("a value"))
    };
    let query = fixture.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    Request {
        uri: format!("/api/v1/webhooks/r{query}").parse().expect("a path"),
        headers: fixture.headers.iter().map(pair).collect(),
        body: timed(&body).into_bytes(),
    }
}

fn signed(preset: &Preset, verifier: &Verifier) -> Request {
    let scheme = &preset.verification;
    let algorithm = match scheme.hash.unwrap_or(HashAlgorithm::Sha256) {
        HashAlgorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        HashAlgorithm::Sha256 => hmac::HMAC_SHA256,
        HashAlgorithm::Sha384 => hmac::HMAC_SHA384,
        HashAlgorithm::Sha512 => hmac::HMAC_SHA512,
    };
    // A timestamp in the list of signatures is part of the message, so it is placed first.
    let mut request = long(preset);
    let in_body = place(scheme, &mut request.headers, "00").is_none();
    let message = verifier.message(&request.incoming()).expect("a message");
    let mac = hmac::sign(&hmac::Key::new(algorithm, KEY), &message);
    let text = match scheme.signature.as_ref().and_then(|signature| signature.encoding) {
        Some(SignatureEncoding::Base64) => STANDARD.encode(mac),
        Some(SignatureEncoding::Hex) | None => hex::encode(mac),
    };
    if in_body {
        let body = String::from_utf8(request.body).expect("text");
        request.body = body.replace("@signature@", &text).into_bytes();
    } else {
        place(scheme, &mut request.headers, &text);
    }
    request
}

/// Puts a signature into its header; `None` when it belongs elsewhere.
fn place(scheme: &Scheme, headers: &mut HeaderMap, signature: &str) -> Option<()> {
    let source = scheme.signature.as_ref().expect("a signature");
    let (kind, name) = source.from.as_deref().and_then(|from| from.split_once(':')).expect("a source");
    let name = match kind {
        "header" => name.to_owned(),
        "headerPrefix" => format!("{name}1"),
        _ => return None,
    };
    let mut value = format!("{}{signature}", source.prefix.as_deref().unwrap_or_default());
    if let Some(field) = source.field.as_deref().filter(|field| !field.is_empty()) {
        value = format!("{field}={value}");
    }
    let timestamp = scheme.timestamp.as_ref();
    let time = match timestamp.and_then(|timestamp| timestamp.unit) {
        Some(TimeUnit::Ms) => format!("{NOW}000"),
        _ => NOW.to_string(),
    };
    let separator = match source.separator {
        Some(grapnel_crds::Separator::Semicolon) => ";",
        Some(grapnel_crds::Separator::Space) => " ",
        _ => ",",
    };
    let from = timestamp.and_then(|timestamp| timestamp.from.as_deref()).unwrap_or_default();
    match from.split_once(':') {
        Some(("field", name)) => value = format!("{name}={time}{separator}{value}"),
        Some(("item", _)) => value = format!("{time}{separator}{value}"),
        _ => {}
    }
    let name = HeaderName::try_from(name).expect("a name");
    headers.insert(name, HeaderValue::from_str(&value).expect("a value"));
    Some(())
}

criterion_group!(benches, kinds, hmac_presets);
criterion_main!(benches);
