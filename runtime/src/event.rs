//! What an event is to those who receive it.
//!
//! The normalized payload has one encoding: what a worker delivers and what the API shows are the same bytes. The
//! provider's own payload inside it is a slice of the body as it was received and is never parsed and written again, so
//! big integers keep every digit and members keep their order.

/// Builds the normalized payload: `{"provider":…,"eventType":…,"externalEventId":…,"<payload_key>":<payload>}`.
///
/// `payload` must be JSON (the ingress cut it from a body that it had parsed); it is copied, not looked at. An event
/// whose provider gave it no id has `"externalEventId":null`.
pub fn normalized_payload(
    provider: &str,
    event_type: &str,
    external_event_id: Option<&str>,
    payload_key: &str,
    payload: &[u8],
) -> Vec<u8> {
    let mut json = Vec::with_capacity(payload.len() + 256);
    json.extend_from_slice(b"{\"provider\":");
    push_string(&mut json, provider);
    json.extend_from_slice(b",\"eventType\":");
    push_string(&mut json, event_type);
    json.extend_from_slice(b",\"externalEventId\":");
    match external_event_id {
        Some(id) => push_string(&mut json, id),
        None => json.extend_from_slice(b"null"),
    }
    json.push(b',');
    push_string(&mut json, payload_key);
    json.push(b':');
    json.extend_from_slice(payload);
    json.push(b'}');
    json
}

fn push_string(json: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(json, text).expect("a string can be written to a vector");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalized(event_type: &str, external_event_id: Option<&str>, payload: &str) -> String {
        let json = normalized_payload("acme", event_type, external_event_id, "data", payload.as_bytes());
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn members_come_in_the_documented_order() {
        insta::assert_snapshot!(
            normalized("order.created", Some("evt-1"), r#"{"id":"ord-1"}"#),
            @r#"{"provider":"acme","eventType":"order.created","externalEventId":"evt-1","data":{"id":"ord-1"}}"#
        );
    }

    #[test]
    fn missing_external_id_is_null() {
        insta::assert_snapshot!(
            normalized("t", None, "[]"),
            @r#"{"provider":"acme","eventType":"t","externalEventId":null,"data":[]}"#
        );
    }

    #[test]
    fn text_is_escaped_as_json() {
        insta::assert_snapshot!(
            normalized("a\"b\\c\nd\u{1}é", Some("x/\"y"), "1"),
            @r#"{"provider":"acme","eventType":"a\"b\\c\nd\u0001é","externalEventId":"x/\"y","data":1}"#
        );
    }

    #[test]
    fn payload_is_copied_byte_for_byte() {
        let payload = "{ \"b\": 123456789012345678901234567890.10,\n\"a\":\"\\u0000\\ud83d\", \"b\": 1e400 }";
        let json = normalized("t", None, payload);
        assert!(json.ends_with(&format!("\"data\":{payload}}}")), "{json}");
    }
}
