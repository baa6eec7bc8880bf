//! The forms in which receivers get an event.
//!
//! The normalized payload has one encoding: a worker delivers the same bytes as the API shows. The provider's own payload
//! inside it is a slice of the body as received and is never parsed and written again, so big integers keep every digit and
//! members keep their order.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::header_values::cloud_event_value;
use crate::request::form;

/// The attribute that is the `content-type` in binary mode.
const CONTENT_TYPE: &str = "datacontenttype";

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
    /// The payload, with the attributes of a CloudEvent in headers. Never stored with an event: a destination asks for it.
    CloudEventBinary = 3,
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
    const ALL: [Self; 4] = [Self::Normalized, Self::Raw, Self::CloudEvent, Self::CloudEventBinary];

    /// The stored value.
    pub fn code(self) -> i16 {
        self as i16
    }

    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.code() == code)
    }
}

/// Returns what the normalized payload carries under its payload key, as JSON: null for bytes that are carried in base64, under
/// another key.
pub fn payload_json(form: BodyForm, payload: &[u8]) -> Cow<'_, [u8]> {
    if form == BodyForm::Json {
        return Cow::Borrowed(payload);
    }
    let value = readable_value(form, payload).unwrap_or_default();
    Cow::Owned(serde_json::to_vec(&value).expect("a value can be written to a vector"))
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
        for (name, value) in self.attributes(form) {
            json.push(b',');
            push_string(&mut json, name);
            json.push(b':');
            push_string(&mut json, &value);
        }
        // Data may be missing, which is not the same as an empty text.
        if !payload.is_empty() || form == BodyForm::Form {
            json.push(b',');
            push_member(&mut json, "data", "_base64", form, payload);
        }
        json.push(b'}');
        json
    }

    /// Returns the headers and the body of an event in the binary mode of the HTTP binding. The type of the body is that of
    /// the attribute `datacontenttype`, which is the second value.
    pub fn to_binary(
        &self,
        form: BodyForm,
        payload: Vec<u8>,
    ) -> (Vec<(HeaderName, HeaderValue)>, Option<String>, Vec<u8>) {
        let mut headers = vec![(HeaderName::from_static("ce-specversion"), HeaderValue::from_static("1.0"))];
        let mut content_type = None;
        for (name, value) in self.attributes(form) {
            match HeaderName::try_from(format!("ce-{name}")) {
                _ if name == CONTENT_TYPE => content_type = Some(value.into_owned()),
                Ok(header) => headers.push((header, cloud_event_value(&value))),
                // No attribute has such a name.
                Err(_) => {}
            }
        }
        let body = match form {
            BodyForm::Json | BodyForm::Opaque => payload,
            BodyForm::Form => {
                serde_json::to_vec(&form_object(&payload)).expect("a value can be written to a vector")
            }
        };
        (headers, content_type, body)
    }

    /// Returns the attributes after `specversion`. An optional one may be missing, but not empty.
    fn attributes(&self, form: BodyForm) -> impl Iterator<Item = (&'static str, Cow<'_, str>)> {
        let content_type = match form {
            BodyForm::Json | BodyForm::Form => Some("application/json"),
            BodyForm::Opaque => self.content_type,
        };
        let attributes: [(&'static str, Option<Cow<'_, str>>); 8] = [
            ("id", Some(self.id.to_string().into())),
            ("source", Some(format!("/integrations/{}", self.integration_id).into())),
            ("type", Some(self.event_type.into())),
            ("time", Some(self.occurred_at.to_string().into())),
            ("subject", self.subject.map(Cow::from)),
            (CONTENT_TYPE, content_type.map(Cow::from)),
            ("provider", Some(self.provider.into())),
            ("externaleventid", self.external_event_id.map(Cow::from)),
        ];
        attributes
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .filter(|(_, value)| !value.is_empty())
    }
}

fn push_member(json: &mut Vec<u8>, name: &str, base64_suffix: &str, form: BodyForm, payload: &[u8]) {
    if form == BodyForm::Json {
        push_string(json, name);
        json.push(b':');
        return json.extend_from_slice(payload);
    }
    let (name, value) = match readable_value(form, payload) {
        Some(value) => (name.to_owned(), value),
        None => (format!("{name}{base64_suffix}"), Value::from(STANDARD.encode(payload))),
    };
    push_string(json, &name);
    json.push(b':');
    serde_json::to_writer(json, &value).expect("a value can be written to a vector");
}

/// Returns a payload that is not JSON as a value: the fields of a form, else a text, or null for no bytes at all. `None` if the bytes
/// are no text.
fn readable_value(form: BodyForm, payload: &[u8]) -> Option<Value> {
    match (form, std::str::from_utf8(payload)) {
        (BodyForm::Form, _) => Some(form_object(payload)),
        (_, Ok("")) => Some(Value::Null),
        (_, Ok(text)) => Some(Value::from(text)),
        (_, Err(_)) => None,
    }
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

    fn cloud_event<'a>(event_type: &'a str, content_type: &'a str) -> CloudEvent<'a> {
        CloudEvent {
            id: Uuid::nil(),
            integration_id: Uuid::nil(),
            provider: "acme",
            event_type,
            external_event_id: Some("e-1"),
            subject: None,
            occurred_at: "2026-01-31T10:00:00Z".parse().unwrap(),
            content_type: Some(content_type),
        }
    }

    #[test]
    fn a_cloud_event_has_the_required_attributes_and_the_payload_as_it_came() {
        let json =
            cloud_event("order.created", "application/json").to_json(BodyForm::Json, b"{\"total\": 1.50}");
        insta::assert_snapshot!(
            String::from_utf8(json).unwrap(),
            @r#"{"specversion":"1.0","id":"00000000-0000-0000-0000-000000000000","source":"/integrations/00000000-0000-0000-0000-000000000000","type":"order.created","time":"2026-01-31T10:00:00Z","datacontenttype":"application/json","provider":"acme","externaleventid":"e-1","data":{"total": 1.50}}"#
        );
    }

    #[test]
    fn in_binary_mode_the_attributes_are_headers_and_the_body_is_the_payload() {
        let binary = |form, payload: &[u8]| {
            let (headers, content_type, body) =
                cloud_event("caf\u{e9} 1", "text/xml").to_binary(form, payload.to_vec());
            (headers, content_type.unwrap(), String::from_utf8(body).unwrap())
        };
        let (headers, content_type, body) = binary(BodyForm::Json, b"{\"total\": 1.50}");
        assert_eq!((content_type.as_str(), body.as_str()), ("application/json", "{\"total\": 1.50}"));
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(
            headers,
            [
                ("ce-specversion", "1.0"),
                ("ce-id", "00000000-0000-0000-0000-000000000000"),
                ("ce-source", "/integrations/00000000-0000-0000-0000-000000000000"),
                ("ce-type", "caf%C3%A9%201"),
                ("ce-time", "2026-01-31T10:00:00Z"),
                ("ce-provider", "acme"),
                ("ce-externaleventid", "e-1"),
            ]
        );
        let (_, content_type, body) = binary(BodyForm::Form, b"a=1&b=x+y");
        assert_eq!((content_type.as_str(), body.as_str()), ("application/json", r#"{"a":"1","b":"x y"}"#));
        let (_, content_type, body) = binary(BodyForm::Opaque, b"<a/>");
        assert_eq!((content_type.as_str(), body.as_str()), ("text/xml", "<a/>"));
    }
}
