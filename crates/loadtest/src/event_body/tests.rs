use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn text(provider: Provider) -> EventBody {
    EventBody::new(provider, &RunId::parse("run-1").expect("a good id"), 1024).expect("a text")
}

fn body(provider: Provider, number: u64) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    text(provider).write(&mut buffer, number, b"2026-11-24T10:00:00.123Z");
    buffer.to_vec()
}

/// Returns the delivery of a gateway for a body.
fn relayed(body: &[u8]) -> Value {
    let sent: Value = serde_json::from_slice(body).expect("the body is JSON");
    match sent.get("eventId") {
        Some(id) => {
            json!({"provider": "acme", "eventType": sent["eventType"], "externalEventId": id, "data": sent["data"]})
        }
        None => {
            json!({"provider": "globex", "eventType": sent["type"], "externalEventId": sent["id"], "resource": sent["resource"]})
        }
    }
}

#[test]
fn the_body_is_json_of_the_requested_size_in_the_form_of_its_provider() {
    let acme = body(Provider::Acme, 12_345);
    assert_eq!(acme.len(), 1024);
    let acme: Value = serde_json::from_slice(&acme).expect("the body is JSON");
    assert_eq!(acme["eventId"], "run-1-12345");
    assert_eq!(acme["eventType"], "loadtest.sent");
    assert_eq!(acme["occurredAt"], "2026-11-24T10:00:00.123Z");
    assert_eq!(acme["data"]["id"], "run-1-12345");
    assert_eq!(
        acme["data"]["loadtest"],
        json!({"run": "run-1", "number": 12_345, "sentAt": "2026-11-24T10:00:00.123Z"})
    );
    let globex: Value = serde_json::from_slice(&body(Provider::Globex, 0)).expect("the body is JSON");
    assert_eq!((&globex["id"], &globex["type"]), (&json!("run-1-0"), &json!("loadtest.sent")));
    assert_eq!(globex["timestamp"], globex["resource"]["loadtest"]["sentAt"]);
}

#[test]
fn a_delivered_event_is_identified_and_compared() {
    let text = text(Provider::Acme);
    let sent = body(Provider::Acme, 7);
    let data = sent.windows(7).position(|window| window == b"\"data\":").expect("it has data");
    let verbatim =
        [br#"{"provider":"acme","eventType":"loadtest.sent","externalEventId":"run-1-7","#, &sent[data..]]
            .concat();
    assert_eq!(text.identify(&verbatim), BodyIdentity::ThisRun(7));
    assert_eq!(text.compare(&verbatim, 7), BodyIntegrity::Same);
    assert_eq!(text.compare(&verbatim, 8), BodyIntegrity::Altered);
    let reencoded = serde_json::to_vec_pretty(&relayed(&sent)).expect("it is JSON");
    assert_eq!(text.identify(&reencoded), BodyIdentity::ThisRun(7));
    assert_eq!(text.compare(&reencoded, 7), BodyIntegrity::Reencoded);
    let mut shortened = relayed(&sent);
    shortened["data"]["padding"] = json!("abc");
    assert_eq!(text.compare(shortened.to_string().as_bytes(), 7), BodyIntegrity::Altered);
    let globex = self::text(Provider::Globex);
    let relayed = relayed(&body(Provider::Globex, 7)).to_string();
    assert_eq!(globex.identify(relayed.as_bytes()), BodyIdentity::ThisRun(7));
    assert_ne!(globex.compare(relayed.as_bytes(), 7), BodyIntegrity::Altered);
}

#[test]
fn only_ids_of_this_run_are_recognized() {
    let text = text(Provider::Acme);
    for (id, identity) in [
        (r#""run-1-0""#, BodyIdentity::ThisRun(0)),
        (r#""run-1-49999999""#, BodyIdentity::ThisRun(49_999_999)),
        (r#""run-1-007""#, BodyIdentity::OutOfRange),
        (r#""run-1-99999999999999999999""#, BodyIdentity::OutOfRange),
        (r#""run-1-""#, BodyIdentity::Foreign),
        (r#""run-1-+7""#, BodyIdentity::Foreign),
        (r#""run-1-7-8""#, BodyIdentity::Foreign),
        (r#""run-2-7""#, BodyIdentity::Foreign),
        (r#""xrun-1-7""#, BodyIdentity::Foreign),
        ("null", BodyIdentity::Foreign),
        ("7", BodyIdentity::Unreadable),
        (r#""run-1-7"#, BodyIdentity::Unreadable),
    ] {
        let body = format!(r#"{{"provider":"acme", "externalEventId" : {id}"#);
        assert_eq!(text.identify(body.as_bytes()), identity, "{id}");
    }
    assert_eq!(text.identify(b"{}"), BodyIdentity::Unreadable);
}

proptest! {
    #[test]
    fn an_id_is_recognized_only_when_the_body_contains_it(
        pieces in proptest::collection::vec(
            proptest::sample::select(vec![r#""externalEventId""#, ":", "\"", "run-1-", "7", "0", " ", "null", ","]),
            0..12,
        )
    ) {
        let body = pieces.concat();
        if let BodyIdentity::ThisRun(number) = text(Provider::Acme).identify(body.as_bytes()) {
            let exact = format!("\"run-1-{number}\"");
            prop_assert!(body.contains(&exact), "{} in {}", exact, body);
        }
    }

    #[test]
    fn any_body_is_identified_without_a_panic(body: Vec<u8>) {
        let text = text(Provider::Acme);
        prop_assert!(!matches!(text.identify(&body), BodyIdentity::ThisRun(_)));
        prop_assert_eq!(text.compare(&body, 1), BodyIntegrity::Altered);
    }
}
