//! The events of a captured request.

use grapnel_core::mapping::{EventFields, IdentityName, Mapper, SplitError};
use grapnel_core::payload::BodyForm;
use grapnel_core::request::IncomingRequest;

use super::Note;

/// Events of a request that are shown.
const SHOWN_EVENTS: usize = 20;

/// Returns the events of a request, for people. The identity of one that is all of it is of what was received.
pub(super) fn events(
    mapper: &Mapper,
    request: &IncomingRequest<'_>,
    received: &[u8],
    form: Option<BodyForm>,
) -> Vec<Note> {
    let Some(form) = form else {
        return vec![Note::new("events", "none: the content-type is not accepted")];
    };
    let split = match mapper.split(request, request.body, form) {
        Ok(Some(split)) => split,
        Ok(None) => {
            return match mapper.read(request, received, form) {
                Ok(event) => vec![
                    Note::new("events", "one: the whole body"),
                    Note::new("event", describe_event(&event)),
                ],
                Err(invalid) => vec![Note::new("events", format!("none: {invalid}"))],
            };
        }
        Err(SplitError::Invalid(invalid)) => {
            return vec![Note::new("events", format!("none: {invalid}"))];
        }
        Err(SplitError::TooMany(too_many)) => {
            return vec![Note::new("events", format!("none: {too_many}"))];
        }
    };
    let mut notes = vec![Note::new("events", split.count().to_string())];
    for (index, event) in split.events().take(SHOWN_EVENTS).enumerate() {
        notes.push(Note::new(format!("event {}", index + 1), describe_event(&event)));
    }
    if let Some(more) = split.count().checked_sub(SHOWN_EVENTS).filter(|more| *more > 0) {
        notes.push(Note::new("", format!("and {more} more")));
    }
    notes
}

/// Two requests of which this is the same have the same event, unless every one is an event.
fn describe_event(event: &EventFields) -> String {
    let id = event.external_event_id.as_ref().map_or_else(|| "no id".to_owned(), |id| format!("id {id:?}"));
    let mut text = format!("type {:?}, {id}", event.event_type);
    if event.identity.name != IdentityName::Id {
        text += &format!(", recognized by {}", event.identity.name);
    }
    for left_out in &event.left_out {
        text += &format!(", {} {}", left_out.field, left_out.reason);
    }
    text
}

#[cfg(test)]
mod tests {
    use grapnel_core::mapping::FormerMapping;
    use grapnel_core::resolved_provider::ResolvedProvider;
    use http::{HeaderMap, Method, Uri};

    use super::super::verification::spec_of_preset as preset;
    use super::super::{CapturedRequest, parse};
    use super::*;

    fn shown(notes: &[Note]) -> String {
        notes.iter().map(Note::to_string).collect()
    }

    #[test]
    fn each_event_of_a_request_is_shown_with_its_id_and_its_type() {
        let body = r#"[{"event":"open","sg_event_id":"e-1"},{"sg_event_id":"e-2"},3]"#;
        let request = parse(format!("POST / HTTP/1.1\ncontent-type: application/json\n\n{body}").as_bytes());
        let CapturedRequest { method, uri, headers, body } = request.expect("a request");
        let request = IncomingRequest {
            method: &method,
            uri: &uri,
            headers: &headers,
            body: &body,
            encoded_body: None,
            form: None,
            public_url: None,
            json: None,
        };
        let mapping = ResolvedProvider::new(&preset("sendgrid")).expect("a provider").mapping;
        let mapper = Mapper::new(&mapping, &FormerMapping::default()).expect("a mapping");
        let form = mapper.body_form(request.headers, request.body);
        insta::assert_snapshot!(shown(&events(&mapper, &request, request.body, form)), @r#"
        events            3
        event 1           type "open", id "e-1"
        event 2           type "unmapped", no id, recognized by payload a0cfd9c70d9249ac, event is required
        event 3           type "unmapped", no id, recognized by payload 4e07408562bedb8b, element must be an object
        "#);
    }

    #[test]
    fn an_attempt_is_recognized_by_what_the_others_have_too() {
        let mapping = ResolvedProvider::new(&preset("docusign")).expect("a provider").mapping;
        let mapper = Mapper::new(&mapping, &FormerMapping::default()).expect("a mapping");
        let report = |retries: u8, envelope: &str| {
            let body = format!(
                r#"{{"event":"envelope-sent","retryCount":{retries},"data":{{"envelopeId":"{envelope}"}}}}"#
            );
            let request = IncomingRequest {
                method: &Method::POST,
                uri: &Uri::from_static("/"),
                headers: &HeaderMap::new(),
                body: body.as_bytes(),
                encoded_body: None,
                form: None,
                public_url: None,
                json: None,
            };
            shown(&events(&mapper, &request, request.body, Some(BodyForm::Json)))
        };
        assert_eq!(report(0, "e-1"), report(1, "e-1"));
        assert_ne!(report(0, "e-1"), report(0, "e-2"));
        assert!(
            report(0, "e-1").contains("\nevent             type \"envelope-sent\", no id, recognized by")
        );
    }
}
