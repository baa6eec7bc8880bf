use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use grapnel_crds::Scheme;
use http::{HeaderMap, HeaderValue, Method, Uri};
use proptest::prelude::*;
use ring::hmac;

use super::*;
use crate::preset;

/// RFC 4231, test case 2, in Acme's header.
const KEY: &str = "Jefe";
const BODY: &[u8] = b"what do ya want for nothing?";
const MAC: &str = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";

/// 2026-01-31T09:00:00Z.
const NOW: i64 = 1_769_850_000;

fn scheme(yaml: &str) -> Scheme {
    serde_saphyr::from_str(yaml).expect("a scheme")
}

/// The shape of many providers: a list with a time and versioned signatures.
fn listed(unit: &str) -> Scheme {
    scheme(&format!(
        "{{type: hmac, message: '{{timestamp}}.{{body}}', signature: {{from: 'header:x-sig', separator: ',', field: v1}},
           timestamp: {{from: 'field:t', unit: {unit}, toleranceSeconds: 300}}}}"
    ))
}

fn verifier(scheme: &Scheme, secrets: &[&str]) -> Verifier {
    Verifier::new(scheme, None, None, secrets).expect("a verifier")
}

fn of_preset(provider: &str, secrets: &[&str]) -> Verifier {
    verifier(&preset::find(provider).expect("a preset").verification, secrets)
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
    }
    headers
}

fn verify_at(
    verifier: &Verifier,
    headers: &HeaderMap,
    body: &[u8],
    seconds: i64,
) -> Result<usize, VerifyError> {
    let (method, uri) = (Method::POST, Uri::from_static("/api/v1/webhooks/r?q=1"));
    let public_url = Some("https://hooks.example.com");
    let request = IncomingRequest {
        method: &method,
        uri: &uri,
        headers,
        body,
        encoded_body: None,
        form: None,
        public_url,
        json: None,
    };
    let now = Timestamp::from_second(seconds).expect("a time");
    verifier.verify(&request, now).map(|verified| verified.secret)
}

fn verify(verifier: &Verifier, headers: &HeaderMap, body: &[u8]) -> Result<usize, VerifyError> {
    verify_at(verifier, headers, body, NOW)
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

fn signed(key: &str, timestamp: &str, body: &str) -> String {
    hex::encode(mac(key.as_bytes(), format!("{timestamp}.{body}").as_bytes()))
}

#[test]
fn published_hmac_is_accepted_in_either_case() {
    let verifier = of_preset("acme", &[KEY]);
    for signature in [MAC.to_owned(), MAC.to_uppercase()] {
        assert_eq!(verify(&verifier, &headers(&[("x-acme-signature", &signature)]), BODY), Ok(0));
    }
}

#[test]
fn raw_bytes_are_verified_whether_they_are_text_or_not() {
    let verifier = of_preset("acme", &[KEY]);
    let body = b"\xff\xfe\0 no JSON {";
    let signature = hex::encode(mac(KEY.as_bytes(), body));
    assert_eq!(verify(&verifier, &headers(&[("x-acme-signature", &signature)]), body), Ok(0));
}

#[test]
fn anything_but_the_exact_signature_is_refused() {
    let verifier = of_preset("acme", &[KEY]);
    let flipped = MAC.replacen('5', "4", 1);
    let cases = [
        (flipped.as_str(), VerifyError::Mismatch),
        (&MAC[..62], VerifyError::Mismatch),
        (&format!("{MAC}00"), VerifyError::Mismatch),
        ("", VerifyError::Unreadable),
        ("zz", VerifyError::Unreadable),
        (" ", VerifyError::Unreadable),
        (&format!(" {MAC}"), VerifyError::Unreadable),
        (&format!("sha256={MAC}"), VerifyError::Unreadable),
    ];
    for (signature, expected) in cases {
        let refused = verify(&verifier, &headers(&[("x-acme-signature", signature)]), BODY);
        assert_eq!(refused, Err(expected), "{signature:?}");
    }
    let headers_of_another = headers(&[("x-acme-signature", MAC)]);
    assert_eq!(verify(&verifier, &headers_of_another, b"other"), Err(VerifyError::Mismatch));
    assert!(matches!(verify(&verifier, &HeaderMap::new(), BODY), Err(VerifyError::Missing(_))));
}

#[test]
fn signatures_are_decoded_strictly() {
    let signature = STANDARD.encode(mac(KEY.as_bytes(), BODY));
    let base64 =
        scheme("{type: hmac, message: '{body}', signature: {from: 'header:x-sig', encoding: base64}}");
    let verifier = verifier(&base64, &[KEY]);
    let url_safe = signature.replace('+', "-").replace('/', "_");
    for right in [&signature, signature.trim_end_matches('='), &url_safe, url_safe.trim_end_matches('=')] {
        assert_eq!(verify(&verifier, &headers(&[("x-sig", right)]), BODY), Ok(0), "{right}");
    }
    // The last character before the padding has two unused bits: they must be zero.
    let loose = format!("{}1=", &signature[..42]);
    for wrong in [loose.as_str(), &format!("{signature} "), &format!("{signature}AAAA"), MAC] {
        assert!(verify(&verifier, &headers(&[("x-sig", wrong)]), BODY).is_err(), "{wrong}");
    }
}

#[test]
fn a_forbidden_value_is_refused_wherever_and_whatever_it_is() {
    let forbid = scheme(
        "{type: hmac, message: '{body}', signature: {from: 'header:x-sig'}, \
          forbid: ['header:x-more', 'query:q2', 'json:/list/1', 'form:f']}",
    );
    let verifier = verifier(&forbid, &[KEY]);
    let judge = |uri: &'static str, more: &[(&'static str, &str)], body: &str| {
        let mut headers = headers(more);
        let signature = hex::encode(mac(KEY.as_bytes(), body.as_bytes()));
        headers.insert("x-sig", signature.parse().expect("a value"));
        let (method, uri) = (Method::POST, Uri::from_static(uri));
        let request = IncomingRequest {
            method: &method,
            uri: &uri,
            headers: &headers,
            body: body.as_bytes(),
            encoded_body: None,
            form: None,
            public_url: None,
            json: None,
        };
        verifier.verify(&request, Timestamp::UNIX_EPOCH).map(|verified| verified.secret)
    };
    for body in
        [r#"{"list":[{}]}"#, r#"{"list":{"0":1}}"#, "no JSON", "", "g=1", r#"{"list":[0,1],"list":[2]}"#]
    {
        assert_eq!(judge("/r?q=1", &[], body), Ok(0), "{body}");
    }
    let refused = |place: &str| Err(VerifyError::Forbidden(place.to_owned()));
    assert_eq!(judge("/r", &[("x-more", "")], "{}"), refused("the header x-more"));
    assert_eq!(judge("/r?q2=1&q2=2", &[], "{}"), refused("the query parameter q2"));
    assert_eq!(judge("/r", &[], "f&f=2"), refused("the form field f"));
    for body in [
        r#"{"list":[{},{}]}"#,
        r#"{"list":[0,null]}"#,
        r#"{"list":[0,[]]}"#,
        r#"{"list":{"1":0}}"#,
        r#"{"list":[0],"\u006cist":[0,1]}"#,
        r#"{"list":[1e999,1]}"#,
    ] {
        assert_eq!(judge("/r", &[], body), refused("list.1"), "{body}");
    }
}

#[test]
fn every_secret_is_tried_against_every_candidate() {
    let verifier = verifier(&listed("s"), &["new", "old", "oldest"]);
    let time = NOW.to_string();
    for (index, secret) in ["new", "old", "oldest"].iter().enumerate() {
        let right = signed(secret, &time, "b");
        let list = format!("t={time}, v1=00, v1=nonsense,v0={right},v1={right}");
        assert_eq!(verify(&verifier, &headers(&[("x-sig", &list)]), b"b"), Ok(index));
    }
}

#[test]
fn timestamp_is_signed_as_received_and_parsed_strictly() {
    let seconds = verifier(&listed("s"), &[KEY]);
    let post = |verifier: &Verifier, time: &str| {
        let list = format!("t={time},v1={}", signed(KEY, time, "b"));
        verify(verifier, &headers(&[("x-sig", &list)]), b"b")
    };
    assert_eq!(post(&seconds, &NOW.to_string()), Ok(0));
    assert_eq!(post(&seconds, &format!("000{NOW}")), Ok(0), "as received, leading zeros too");
    for wrong in ["hello", "-1", &format!("{NOW}.0"), &format!("+{NOW}"), "99999999999999999999", "0x10"] {
        assert_eq!(post(&seconds, wrong), Err(VerifyError::TimestampMalformed), "{wrong}");
    }
    assert!(matches!(post(&seconds, ""), Err(VerifyError::TimestampMissing(_))));
    assert!(matches!(post(&seconds, &format!("{NOW}000")), Err(VerifyError::TimestampOff { .. })));
    assert_eq!(post(&verifier(&listed("ms"), &[KEY]), &format!("{NOW}999")), Ok(0));
    assert_eq!(post(&verifier(&listed("iso8601"), &[KEY]), "2026-01-31T10:00:00+01:00"), Ok(0));
    let other = format!("t={NOW},v1={}", signed(KEY, &(NOW - 1).to_string(), "b"));
    assert_eq!(verify(&seconds, &headers(&[("x-sig", &other)]), b"b"), Err(VerifyError::Mismatch));
}

#[test]
fn tolerance_has_two_sides() {
    let verifier = verifier(&listed("s"), &[KEY]);
    let at = |now: i64| {
        let list = format!("t={NOW},v1={}", signed(KEY, &NOW.to_string(), "b"));
        verify_at(&verifier, &headers(&[("x-sig", &list)]), b"b", now)
    };
    assert_eq!((at(NOW - 300), at(NOW + 300)), (Ok(0), Ok(0)));
    assert_eq!(at(NOW + 301), Err(VerifyError::TimestampOff { off_seconds: 301, tolerance_seconds: 300 }));
    assert_eq!(at(NOW - 301), Err(VerifyError::TimestampOff { off_seconds: -301, tolerance_seconds: 300 }));
    let unchecked = Verifier::new(&listed("s"), Some(0), None, &[KEY]).expect("a verifier");
    let list = format!("t=1,v1={}", signed(KEY, "1", "b"));
    assert_eq!(verify(&unchecked, &headers(&[("x-sig", &list)]), b"b"), Ok(0));
}

#[test]
fn empty_secrets_make_no_verifier() {
    let acme = &preset::find("acme").expect("a preset").verification;
    let globex = &preset::find("globex").expect("a preset").verification;
    let prefixed = scheme(
        "{type: hmac, key: {encoding: base64, stripPrefix: whsec_}, message: '{body}', signature: {from: 'header:x-sig'}}",
    );
    let check = |scheme: &Scheme, secrets: &[&str]| {
        let refused = Verifier::new(scheme, None, None, secrets).err();
        assert_eq!(refused, Some(SchemeError::EmptySecret), "{secrets:?}");
    };
    for scheme in [acme, globex] {
        check(scheme, &[""]);
        check(scheme, &["a", ""]);
        check(scheme, &[]);
    }
    check(&prefixed, &["whsec_"]);
    check(&prefixed, &["whsec_\n"]);
}

#[test]
fn unknown_versions_are_ignored_and_never_fallen_back_to() {
    let verifier = verifier(&listed("s"), &[KEY]);
    let right = signed(KEY, &NOW.to_string(), "b");
    for field in ["v0", "v2", "v11", "V1", "v1a"] {
        let list = format!("t={NOW},{field}={right}");
        assert_eq!(
            verify(&verifier, &headers(&[("x-sig", &list)]), b"b"),
            Err(VerifyError::Unreadable),
            "{field}"
        );
    }
}

#[test]
fn no_request_chooses_the_algorithm() {
    let prefixed =
        scheme("{type: hmac, message: '{body}', signature: {from: 'header:x-sig', prefix: 'sha256='}}");
    let verifier = verifier(&prefixed, &[KEY]);
    let sha1 = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, KEY.as_bytes()), BODY);
    let sha1 = hex::encode(sha1);
    assert_eq!(verify(&verifier, &headers(&[("x-sig", &format!("sha256={MAC}"))]), BODY), Ok(0));
    for wrong in
        [format!("sha1={sha1}"), format!("sha256={sha1}"), format!("SHA256={MAC}"), format!("none={MAC}")]
    {
        assert!(verify(&verifier, &headers(&[("x-sig", &wrong)]), BODY).is_err(), "{wrong}");
    }
    // A public key is no HMAC key, though its bytes are known to everybody.
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let ed25519 =
        scheme("{type: ed25519, key: {encoding: hex}, message: '{body}', signature: {from: 'header:x-sig'}}");
    let verifier = super::Verifier::new(&ed25519, None, None, &[public]).expect("a verifier");
    let confused = hex::encode(mac(&hex::decode(public).expect("hex"), BODY));
    assert_eq!(verify(&verifier, &headers(&[("x-sig", &confused)]), BODY), Err(VerifyError::Mismatch));
}

#[test]
fn the_signed_url_is_the_configured_one_and_never_the_host_headers() {
    let url = scheme("{type: hmac, message: '{url}{body}', signature: {from: 'header:x-sig'}}");
    let verifier = verifier(&url, &[KEY]);
    let over = |url: &str| {
        let signature = hex::encode(mac(KEY.as_bytes(), format!("{url}b").as_bytes()));
        verify(&verifier, &headers(&[("host", "attacker.example"), ("x-sig", &signature)]), b"b")
    };
    assert_eq!(over("https://hooks.example.com/api/v1/webhooks/r?q=1"), Ok(0));
    assert_eq!(over("https://attacker.example/api/v1/webhooks/r?q=1"), Err(VerifyError::Mismatch));
}

#[test]
fn timestamp_outside_the_signature_is_warned_of() {
    let warned = |yaml: &str| {
        let warning = verifier(&scheme(yaml), &[KEY]).warning();
        assert_eq!(super::warning(&scheme(yaml), None), warning, "the same without the secrets");
        warning.is_some()
    };
    let signature = "signature: {from: 'header:x-sig'}";
    let timestamp = "timestamp: {from: 'header:x-time', toleranceSeconds: 300}";
    assert!(warned(&format!("{{type: hmac, message: '{{body}}', {signature}, {timestamp}}}")));
    assert!(!warned(&format!("{{type: hmac, message: '{{timestamp}}{{body}}', {signature}, {timestamp}}}")));
    assert!(!warned(&format!(
        "{{type: hmac, message: '{{body}}', {signature}, timestamp: {{from: 'json:/time'}}}}"
    )));
    let unchecked = "timestamp: {from: 'header:x-time', toleranceSeconds: 0}";
    assert!(!warned(&format!("{{type: hmac, message: '{{body}}', {signature}, {unchecked}}}")));
}

#[test]
fn repeated_header_is_a_list_only_where_lists_are_joined_by_commas() {
    let lines = [("x-sig", MAC), ("x-sig", MAC)];
    let repeated = headers(&lines);
    let with = |separator: &str| {
        let scheme = scheme(&format!(
            "{{type: hmac, message: '{{body}}', signature: {{from: 'header:x-sig', separator: '{separator}'}}}}"
        ));
        verify(&verifier(&scheme, &[KEY]), &repeated, BODY)
    };
    assert_eq!(with(","), Ok(0));
    for separator in ["none", ";", " "] {
        assert!(matches!(with(separator), Err(VerifyError::Repeated(_))), "{separator}");
    }
    let mut twice = headers(&[("x-acme-signature", MAC)]);
    twice.append("x-acme-signature", MAC.parse().expect("a value"));
    assert!(matches!(verify(&of_preset("acme", &[KEY]), &twice, BODY), Err(VerifyError::Repeated(_))));
}

#[test]
fn token_must_equal_a_secret() {
    let verifier = of_preset("globex", &["one", "two"]);
    for (token, expected) in [
        ("one", Ok(0)),
        ("two", Ok(1)),
        ("On", Err(VerifyError::WrongToken)),
        ("one ", Err(VerifyError::WrongToken)),
        ("", Err(VerifyError::WrongToken)),
    ] {
        assert_eq!(verify(&verifier, &headers(&[("x-globex-token", token)]), b""), expected, "{token:?}");
    }
}

#[test]
fn basic_credentials_must_equal_the_secret() {
    let verifier = verifier(&scheme("{type: basic}"), &["user:pass:word"]);
    let with = |value: &str| verify(&verifier, &headers(&[("authorization", value)]), b"");
    let right = STANDARD.encode("user:pass:word");
    assert_eq!((with(&format!("Basic {right}")), with(&format!("basic {right}"))), (Ok(0), Ok(0)));
    for wrong in [
        right.as_str(),
        &format!("Bearer {right}"),
        &format!("Basic {}", STANDARD.encode("user:pass")),
        "Basic",
        "é",
    ] {
        assert!(with(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn wrong_keys_make_no_verifier_and_are_not_repeated() {
    let check = |yaml: &str, secret: &str| {
        let refused = Verifier::new(&scheme(yaml), None, None, &[secret]).err();
        let refused = refused.unwrap_or_else(|| panic!("{yaml} takes {secret}"));
        assert!(matches!(refused, SchemeError::Key(_)) && !refused.to_string().contains(secret), "{refused}");
    };
    let rest = "message: '{body}', signature: {from: 'header:x-sig'}";
    check(&format!("{{type: hmac, key: {{encoding: base64}}, {rest}}}"), "*secret*");
    check(&format!("{{type: hmac, key: {{encoding: hex}}, {rest}}}"), "no-hex");
    check(&format!("{{type: ed25519, key: {{encoding: hex}}, {rest}}}"), "00ff00ff");
    check(&format!("{{type: ecdsa, key: {{encoding: base64}}, {rest}}}"), "AAAABBBB");
}

proptest! {
    #[test]
    fn secrets_of_any_bytes_work(key in prop::collection::vec(any::<u8>(), 1..200), body in prop::collection::vec(any::<u8>(), 0..300)) {
        let acme = &preset::find("acme").expect("a preset").verification;
        let verifier = Verifier::new(acme, None, None, &[&key]).expect("a verifier");
        let signature = hex::encode(mac(&key, &body));
        prop_assert_eq!(verify(&verifier, &headers(&[("x-acme-signature", &signature)]), &body), Ok(0));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused(body in prop::collection::vec(any::<u8>(), 1..100), at in any::<prop::sample::Index>(), bit in 0..8u8, part in 0..4usize) {
        let covered = scheme("{type: hmac, message: '{header:x-id}.{timestamp}.{body}', signature: {from: 'header:x-sig'}, \
                              timestamp: {from: 'header:x-time'}}");
        let verifier = verifier(&covered, &[KEY]);
        let message = [b"id-1.".as_slice(), NOW.to_string().as_bytes(), b".", &body].concat();
        let mut parts = [b"id-1".to_vec(), NOW.to_string().into_bytes(), mac(KEY.as_bytes(), &message), body];
        let post = |parts: &[Vec<u8>; 4]| {
            let mut headers = HeaderMap::new();
            for (name, value) in [("x-id", &parts[0]), ("x-time", &parts[1]), ("x-sig", &hex::encode(&parts[2]).into_bytes())] {
                // An invalid header value cannot be sent.
                let Ok(value) = HeaderValue::from_bytes(value) else { return Err(VerifyError::Mismatch) };
                headers.insert(name, value);
            }
            verify(&verifier, &headers, &parts[3])
        };
        prop_assert_eq!(post(&parts), Ok(0));
        let flipped: &mut Vec<u8> = &mut parts[part];
        let index = at.index(flipped.len());
        flipped[index] ^= 1 << bit;
        prop_assert!(post(&parts).is_err());
    }

    #[test]
    fn any_request_is_judged_without_a_panic(signature in "\\PC{0,200}", time in "\\PC{0,40}", body in prop::collection::vec(any::<u8>(), 0..100)) {
        for provider in preset::providers() {
            let preset = preset::find(provider).expect("a preset");
            let secret = grapnel_testing::signer::Signer::new(&preset.verification).secret;
            let split = &preset.mapping.split;
            let verifier = Verifier::with_split(&preset.verification, split, None, None, &[secret]);
            let verifier = verifier.expect("a verifier");
            let mut headers = HeaderMap::new();
            for place in [preset.verification.signature.as_ref().and_then(|signature| signature.from.as_deref()),
                          preset.verification.timestamp.as_ref().and_then(|timestamp| timestamp.from.as_deref())] {
                let Some(Some(name)) = place.map(|place| place.strip_prefix("header:")) else { continue };
                if let Ok(value) = HeaderValue::from_bytes(if headers.is_empty() { &signature } else { &time }.as_bytes()) {
                    headers.insert(http::HeaderName::try_from(name).expect("a name"), value);
                }
            }
            prop_assert!(verify(&verifier, &headers, &body).is_err(), "{}", provider);
        }
    }
}
