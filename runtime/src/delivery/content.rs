//! What is sent of an event: the body in the form of the destination, and the headers that go with it.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};

use grapnel_core::delivery::hops::{self, CDN_LOOP};
use grapnel_core::header_values::forwarded_value;
use grapnel_core::integration::ForwardedHeaders;
use grapnel_core::payload::{BodyForm, CloudEvent, DeliveredAs, normalized_payload};
use grapnel_core::request::content_type::ContentType;
use grapnel_store::deliveries::{ClaimedDelivery, CloudEventFields};

/// The value of a header that carries a secret, as it is stored.
const REDACTED: &str = "[redacted]";

/// The body of a delivery and what goes with it.
pub(super) struct Content {
    pub body: Bytes,
    /// The `content-type`, if it is not JSON.
    pub content_type: Option<String>,
    /// Those of the webhook that are sent on, and those of the form.
    pub further_headers: Vec<(HeaderName, HeaderValue)>,
    /// How often Grapnel had delivered the event when it was received.
    pub hops: u16,
}

impl Content {
    pub(super) fn new(
        claimed: &ClaimedDelivery,
        (form, delivered_as): (BodyForm, DeliveredAs),
        payload: Vec<u8>,
        forwarded: &ForwardedHeaders,
    ) -> Self {
        let stored = claimed.headers.as_deref().map(stored_headers).unwrap_or_default();
        let hops = hops::count(values_of(&stored, CDN_LOOP.as_str()).map(str::as_bytes));
        let mut further_headers = forwarded_headers(&stored, forwarded.names(delivered_as));
        // An event that shares its request is a value of its JSON, whatever the type of the whole.
        let received_type = values_of(&stored, CONTENT_TYPE.as_str()).next();
        let received_type = received_type.filter(|_| !claimed.shares_request).map(str::to_owned);
        let (body, content_type) = match (delivered_as, &claimed.cloud_event) {
            (DeliveredAs::Raw, _) => (payload, raw_type(form, received_type)),
            (DeliveredAs::CloudEvent, Some(fields)) => {
                let event = cloud_event(claimed, fields, received_type.as_deref());
                (event.to_json(form, &payload), Some("application/cloudevents+json".to_owned()))
            }
            (DeliveredAs::CloudEventBinary, Some(fields)) => {
                let event = cloud_event(claimed, fields, received_type.as_deref());
                let (headers, content_type, body) = event.to_binary(form, payload);
                further_headers.extend(headers);
                (body, content_type)
            }
            (DeliveredAs::Normalized | DeliveredAs::CloudEvent | DeliveredAs::CloudEventBinary, _) => {
                let (provider, event_type) = (&claimed.provider, &claimed.event_type);
                let (id, key) = (claimed.external_event_id.as_deref(), &claimed.payload_key);
                (normalized_payload(provider, event_type, id, key, form, &payload), None)
            }
        };
        Self { body: body.into(), content_type, further_headers, hops }
    }
}

fn cloud_event<'a>(
    claimed: &'a ClaimedDelivery,
    fields: &'a CloudEventFields,
    content_type: Option<&'a str>,
) -> CloudEvent<'a> {
    CloudEvent {
        id: claimed.event_id.uuid(),
        integration_id: claimed.integration_id.uuid(),
        provider: &claimed.provider,
        event_type: &claimed.event_type,
        external_event_id: claimed.external_event_id.as_deref(),
        subject: fields.subject.as_deref(),
        occurred_at: fields.occurred_at,
        content_type,
    }
}

/// Returns the content-type of a body that is delivered as it came. A query, which is delivered as a form, came without one.
fn raw_type(form: BodyForm, received: Option<String>) -> Option<String> {
    let is_of_form = received.as_ref().is_some_and(|received| {
        let received = ContentType::parse(received.as_bytes());
        received.is_form() || received.is_multipart()
    });
    if form != BodyForm::Form || is_of_form {
        return received;
    }
    Some("application/x-www-form-urlencoded".to_owned())
}

/// Reads the headers of the webhook as they are stored.
fn stored_headers(json: &str) -> Vec<(String, String)> {
    serde_json::from_str(json).unwrap_or_default()
}

fn values_of<'a>(headers: &'a [(String, String)], name: &str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(header, _)| header == name).map(|(_, value)| value.as_str())
}

/// Returns the headers of these names. One that carried a secret is not among them.
fn forwarded_headers(stored: &[(String, String)], names: &[HeaderName]) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for name in names {
        for value in values_of(stored, name.as_str()).filter(|value| *value != REDACTED) {
            headers.push((name.clone(), forwarded_value(value)));
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_sent_on_with_all_their_values_and_without_secrets() {
        let stored = r#"[["x-a","1"],["x-b","[redacted]"],["x-a","\u00c3\u00a9"],["x-c","3"]]"#;
        let names = ["x-a", "x-b", "x-d"].map(HeaderName::from_static);
        let forwarded = forwarded_headers(&stored_headers(stored), &names);
        let expected = [("x-a", "1"), ("x-a", "%C3%A9")];
        let expected =
            expected.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        assert_eq!(forwarded, expected);
    }
}
