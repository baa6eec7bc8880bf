//! The forms in which receivers get an event.
//!
//! The normalized payload has one encoding: a worker delivers the same bytes as the API shows. The provider's own payload
//! inside it is a slice of the body as received and is never parsed and written again, so big integers keep every digit and
//! members keep their order.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::request::form;

/// The way in which the body of an event was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyForm {
    Json = 0,
    /// Names and values, `application/x-www-form-urlencoded`.
    Form = 1,
    /// Nothing in it was read.
    Opaque = 2,
}

/// The form in which an event is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveredAs {
    Normalized = 0,
    /// The body as received, with its content type.
    Raw = 1,
    CloudEvent = 2,
}

impl BodyForm {
    const ALL: [Self; 3] = [Self::Json, Self::Form, Self::Opaque];

    /// The stored value.
    pub fn code(self) -> i16 {
        self as i16
    }

    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.code() == code)
    }
}

impl DeliveredAs {
    const ALL: [Self; 3] = [Self::Normalized, Self::Raw, Self::CloudEvent];

    /// The stored value.
    pub fn code(self) -> i16 {
        self as i16
    }

    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.code() == code)
    }
}

/// Builds the normalized payload: `{"provider":…,"eventType":…,"externalEventId":…,"<payload_key>":<payload>}`.
///
/// A JSON payload (a slice of a body that the ingress has parsed) is copied unchanged; a form becomes an object of its fields;
/// anything else becomes a text, or base64 under `<payload_key>Base64` if it is not valid UTF-8; no body at all is `null`. An
/// event to which the provider gave no id has `"externalEventId":null`.
pub fn normalized_payload(
    provider: &str,
    event_type: &str,
    external_event_id: Option<&str>,
    payload_key: &str,
    form: BodyForm,
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
    push_member(&mut json, payload_key, "Base64", form, payload);
    json.push(b'}');
    json
}

/// The attributes of an event in the CloudEvents format.
#[derive(Debug, Clone, Copy)]
pub struct CloudEvent<'a> {
    pub id: Uuid,
    pub integration_id: Uuid,
    pub provider: &'a str,
    pub event_type: &'a str,
    pub external_event_id: Option<&'a str>,
    pub subject: Option<&'a str>,
    pub occurred_at: Timestamp,
    pub content_type: Option<&'a str>,
}

impl CloudEvent<'_> {
    /// Builds an event in the JSON format of CloudEvents 1.0. `source` is `/integrations/{id}`, and `externaleventid` and
    /// `provider` are extension attributes.
    pub fn to_json(&self, form: BodyForm, payload: &[u8]) -> Vec<u8> {
        let mut json = Vec::with_capacity(payload.len() + 512);
        json.extend_from_slice(b"{\"specversion\":\"1.0\"");
        let source = format!("/integrations/{}", self.integration_id);
        let (id, time) = (self.id.to_string(), self.occurred_at.to_string());
        let content_type = match form {
            BodyForm::Json | BodyForm::Form => Some("application/json"),
            BodyForm::Opaque => self.content_type,
        };
        let attributes = [
            ("id", Some(id.as_str())),
            ("source", Some(&source)),
            ("type", Some(self.event_type)),
            ("time", Some(&time)),
            // Both may be missing, but not empty.
            ("subject", self.subject),
            ("datacontenttype", content_type),
            ("provider", Some(self.provider)),
            ("externaleventid", self.external_event_id),
        ];
        for (name, value) in attributes {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                json.push(b',');
                push_string(&mut json, name);
                json.push(b':');
                push_string(&mut json, value);
            }
        }
        // Data may be missing, which is not the same as an empty text.
        if !payload.is_empty() || form == BodyForm::Form {
            json.push(b',');
            push_member(&mut json, "data", "_base64", form, payload);
        }
        json.push(b'}');
        json
    }
}

fn push_member(json: &mut Vec<u8>, name: &str, base64_suffix: &str, form: BodyForm, payload: &[u8]) {
    let (name, value) = match (form, std::str::from_utf8(payload)) {
        (BodyForm::Json, _) => {
            push_string(json, name);
            json.push(b':');
            return json.extend_from_slice(payload);
        }
        (BodyForm::Form, _) => (name.to_owned(), form_object(payload)),
        (BodyForm::Opaque, Ok("")) => (name.to_owned(), Value::Null),
        (BodyForm::Opaque, Ok(text)) => (name.to_owned(), Value::from(text)),
        (BodyForm::Opaque, Err(_)) => {
            (format!("{name}{base64_suffix}"), Value::from(STANDARD.encode(payload)))
        }
    };
    push_string(json, &name);
    json.push(b':');
    serde_json::to_writer(json, &value).expect("a value can be written to a vector");
}

/// Returns an object with the fields of a form. The value of a repeated field is a list.
fn form_object(encoded: &[u8]) -> Value {
    let mut fields = Map::new();
    for (name, value) in form::fields(encoded) {
        let value = Value::from(value.into_owned());
        match fields.get_mut(name.as_ref()) {
            None => drop(fields.insert(name.into_owned(), value)),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Value::Object(fields)
}

fn push_string(json: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(json, text).expect("a string can be written to a vector");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalized(event_type: &str, external_event_id: Option<&str>, payload: &str) -> String {
        let json = normalized_payload(
            "acme",
            event_type,
            external_event_id,
            "data",
            BodyForm::Json,
            payload.as_bytes(),
        );
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

    #[test]
    fn a_form_is_an_object_and_anything_else_a_text_or_base64() {
        let data = |form, payload: &[u8]| {
            let json = normalized_payload("acme", "t", None, "data", form, payload);
            String::from_utf8(json).unwrap().split_once("null,").unwrap().1.to_owned()
        };
        assert_eq!(data(BodyForm::Form, b"b=1&a=%C3%A9+x&b=2"), r#""data":{"a":"é x","b":["1","2"]}}"#);
        assert_eq!(data(BodyForm::Opaque, b"<a b=\"c\"/>"), r#""data":"<a b=\"c\"/>"}"#);
        assert_eq!(data(BodyForm::Opaque, b"\xff\0"), r#""dataBase64":"/wA="}"#);
        assert_eq!(data(BodyForm::Opaque, b""), r#""data":null}"#);
    }

    #[test]
    fn a_cloud_event_has_the_required_attributes_and_the_payload_as_it_came() {
        let id = Uuid::nil();
        let event = CloudEvent {
            id,
            integration_id: id,
            provider: "acme",
            event_type: "order.created",
            external_event_id: Some("e-1"),
            subject: None,
            occurred_at: "2026-01-31T10:00:00Z".parse().unwrap(),
            content_type: Some("application/json"),
        };
        let json = event.to_json(BodyForm::Json, b"{\"total\": 1.50}");
        insta::assert_snapshot!(
            String::from_utf8(json).unwrap(),
            @r#"{"specversion":"1.0","id":"00000000-0000-0000-0000-000000000000","source":"/integrations/00000000-0000-0000-0000-000000000000","type":"order.created","time":"2026-01-31T10:00:00Z","datacontenttype":"application/json","provider":"acme","externaleventid":"e-1","data":{"total": 1.50}}"#
        );
    }
}
