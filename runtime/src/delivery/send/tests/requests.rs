//! Requests as receivers see them.

use super::*;

#[tokio::test]
async fn a_request_has_exactly_the_headers_of_the_contract() {
    let receiver = Receiver::speaking_http(|_| StatusCode::ACCEPTED.into_response()).await;
    let keys = vec![SigningKey::parse(SECRET).unwrap()];
    let target = DeliveryTarget::new(&receiver.url("/hooks?a=b"), PATIENT, "acme", keys).unwrap();
    deliver_at(&client(), &target, now()).await;

    let (parts, body) = receiver.requests().remove(0);
    assert_eq!((parts.method.as_str(), parts.uri.to_string().as_str()), ("POST", "/hooks?a=b"));
    assert_eq!(body, BODY);
    let mut headers: Vec<(&str, &str)> =
        parts.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    headers.sort();
    headers.retain(|(name, _)| *name != "webhook-signature");
    let host = receiver.address.to_string();
    let agent = format!("grapnel/{}", env!("CARGO_PKG_VERSION"));
    let expected = [
        ("accept", "*/*"),
        ("cdn-loop", "grapnel; hops=1"),
        ("content-length", "55"),
        ("content-type", "application/json"),
        ("host", host.as_str()),
        ("traceparent", TRACEPARENT),
        ("user-agent", agent.as_str()),
        ("webhook-id", EVENT_ID),
        ("webhook-timestamp", "1795521600"),
        ("x-correlation-id", "corr-1"),
        ("x-delivery-attempt", "1"),
        ("x-event-id", EVENT_ID),
        ("x-event-type", "order.created"),
        ("x-integration-provider", "acme"),
    ];
    assert_eq!(headers, expected);
}

#[tokio::test]
async fn a_receiver_can_verify_the_signatures_of_both_keys() {
    let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
    let keys = [SECRET, OTHER_SECRET].map(|secret| SigningKey::parse(secret).unwrap());
    let target = DeliveryTarget::new(&receiver.url("/"), PATIENT, "acme", keys.to_vec()).unwrap();
    deliver_at(&client(), &target, now()).await;

    let (parts, body) = receiver.requests().remove(0);
    let header = |name: &str| parts.headers[name].to_str().unwrap();
    let signed = format!(
        "{}.{}.{}",
        header("webhook-id"),
        header("webhook-timestamp"),
        std::str::from_utf8(&body).unwrap()
    );
    let expected = [SECRET, OTHER_SECRET].map(|secret| {
        let key = BASE64_STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap();
        let mac = Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(&signed).finalize();
        format!("v1,{}", BASE64_STANDARD.encode(mac.into_bytes()))
    });
    let signatures: Vec<&str> = header("webhook-signature").split(' ').collect();
    assert_eq!(signatures, expected);
}

#[tokio::test]
async fn without_a_key_nothing_is_signed() {
    let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
    outcome(&receiver.url("/"), PATIENT).await;
    assert!(!receiver.requests()[0].0.headers.contains_key("webhook-signature"));
}

#[tokio::test]
async fn a_second_attempt_has_the_same_id_and_its_own_time_and_signature() {
    let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
    let keys = vec![SigningKey::parse(SECRET).unwrap()];
    let target = DeliveryTarget::new(&receiver.url("/"), PATIENT, "acme", keys).unwrap();
    let client = client();
    deliver_at(&client, &target, now()).await;
    deliver_at(&client, &target, now() + SignedDuration::from_secs(5)).await;

    let requests = receiver.requests();
    let values = |name: &str| [0, 1].map(|index: usize| requests[index].0.headers[name].clone());
    assert_eq!(values("webhook-id"), [EVENT_ID, EVENT_ID]);
    assert_eq!(values("webhook-timestamp"), ["1795521600", "1795521605"]);
    let [first, second] = values("webhook-signature");
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
    let target = target(&receiver.url("/"), PATIENT);
    let client = client();
    for _ in 0..3 {
        assert_eq!(deliver_at(&client, &target, now()).await.outcome, succeeded(200, ""));
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_value_that_no_header_can_hold_is_not_an_attempt() {
    let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
    let target = target(&receiver.url("/"), PATIENT);
    let request = DeliveryRequest {
        target: &target,
        event_id: EVENT_ID.parse().unwrap(),
        event_type: "order.created",
        external_event_id: None,
        attempt: 1,
        further_headers: &[],
        authorization: None,
        correlation_id: "a\r\nb: c",
        traceparent: TRACEPARENT,
        hops: 0,
        body: &Bytes::new(),
        content_type: None,
        attempted_at: now(),
    };
    let message = "the correlation id cannot be sent in a header".to_owned();
    assert_eq!(client().deliver(&request).await.outcome, AttemptOutcome::NotSent { message });
    assert_eq!(receiver.connections(), 0);
}

#[test]
fn targets_that_nothing_can_be_sent_to_are_refused() {
    let error = |url: &str| DeliveryTarget::new(url, PATIENT, "acme", Vec::new()).unwrap_err();
    assert!(matches!(error("not a url"), TargetError::Url(_)));
    assert!(matches!(error("http://"), TargetError::Url(_)));
    assert!(matches!(error("http://{{host}}/"), TargetError::Uri(_)));
    assert!(matches!(error("ftp://example.com"), TargetError::Scheme));
    assert!(matches!(error("file:///etc/passwd"), TargetError::Scheme));
    assert!(matches!(error("https://user@example.com"), TargetError::Credentials));
    assert!(matches!(error("https://:password@example.com"), TargetError::Credentials));
    let provider = DeliveryTarget::new("https://example.com", PATIENT, "a\nb", Vec::new());
    assert!(matches!(provider.unwrap_err(), TargetError::Provider(_)));
}

#[test]
fn a_printed_target_shows_no_token_of_its_url() {
    let keys = vec![SigningKey::parse(SECRET).unwrap()];
    let target =
        DeliveryTarget::new("https://example.com/hooks/t0ken?key=t0ken", PATIENT, "acme", keys).unwrap();
    assert_eq!(format!("{target:?}"), r#"DeliveryTarget { host: Some("example.com"), .. }"#);
}
