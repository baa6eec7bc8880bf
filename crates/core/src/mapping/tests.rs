use proptest::prelude::*;

use super::*;
use crate::preset;

fn read(provider: &str, body: &[u8]) -> Result<EventFields, InvalidEvent> {
    let mapper = Mapper::new(&preset::find(provider).expect("a preset").mapping, &[]).expect("a mapping");
    let (method, uri, headers) = (http::Method::POST, http::Uri::from_static("/"), HeaderMap::new());
    let request =
        IncomingRequest { method: &method, uri: &uri, headers: &headers, body, public_url: None, json: None };
    mapper.read(&request, request.body, BodyForm::Json)
}

fn acme(body: &str) -> Result<EventFields, InvalidEvent> {
    read("acme", body.as_bytes())
}

const ORDER: &str = r#"{"eventId":"e-1","eventType":"order.created","occurredAt":"2026-11-24T10:00:00Z","data":{"id":"o-1","total":12345678901234567890.10}}"#;

#[test]
fn the_payload_is_the_slice_as_it_came() {
    let fields = acme(ORDER).expect("an event");
    assert_eq!(&ORDER[fields.payload], r#"{"id":"o-1","total":12345678901234567890.10}"#);
    assert_eq!(fields.subject.as_deref(), Some("o-1"));
}

#[test]
fn a_subject_of_its_own_takes_precedence_over_the_payloads_id() {
    let body = ORDER.replacen('{', r#"{"subject":"caf\u00e9","#, 1);
    assert_eq!(acme(&body).expect("an event").subject.as_deref(), Some("café"));
}

#[test]
fn a_missing_or_wrong_field_is_named() {
    let check = |from: &str, to: &str, field: &str| {
        let error = acme(&ORDER.replacen(from, to, 1)).expect_err(field);
        assert_eq!(error.field, field, "{error}");
    };
    check("eventId", "other", "eventId");
    check(r#""e-1""#, "1", "eventId");
    check("e-1", "", "eventId");
    check("e-1", r"a\u0000b", "eventId");
    check("e-1", &"x".repeat(513), "eventId");
    check("eventType", "other", "eventType");
    check("2026-11-24T10:00:00Z", "yesterday", "occurredAt");
    check("2026-11-24T10:00:00Z", "2026-11-24T10:00:00", "occurredAt");
    check("2026-11-24T10:00:00Z", "-000001-12-31T23:59:59Z", "occurredAt");
    check(r#""data""#, r#""other""#, "data");
    check(r#"{"id":"o-1","total":12345678901234567890.10}"#, "[]", "data");
    check("{", "[", "body");
    check("}}", "}", "body");
}

#[test]
fn an_optional_field_that_cannot_be_stored_is_left_out_and_named() {
    for text in [r"\u0000".to_owned(), "x".repeat(513)] {
        let fields = acme(&ORDER.replacen("o-1", &text, 1)).expect("an event");
        assert_eq!((fields.subject, fields.left_out[0].field), (None, "subject"));
    }
    assert_eq!(acme(ORDER).expect("an event").left_out, []);
}

#[test]
fn a_body_that_is_not_a_json_object_is_refused() {
    for body in [&b""[..], b"null", b"[]", b"\"x\"", b"{\"a\":\"\xff\"}", b"{} {}", b"{\"a\":01}"] {
        assert_eq!(read("acme", body).expect_err("no event").field, "body", "{body:?}");
    }
}

#[test]
fn nesting_is_bounded_and_brackets_in_texts_do_not_count() {
    let nested =
        |depth: usize| ORDER.replace("\"o-1\"", &format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
    assert!(acme(&nested(126)).is_ok());
    assert_eq!(acme(&nested(127)).expect_err("too deep").field, "body");
    assert_eq!(acme(&nested(10_000)).expect_err("too deep").field, "body");
    assert!(acme(&ORDER.replace("o-1", &r#"[\"{"#.repeat(100))).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let read = read("globex", &body);
        prop_assert!(read.map_or_else(|error| !error.field.is_empty(), |fields| fields.payload.end <= body.len()));
    }
}

#[test]
fn times_are_read_in_their_format_alone() {
    let check = |text: &str, format, expected: Option<&str>| {
        assert_eq!(time::read(text, format).map(|time| time.to_string()).as_deref(), expected, "{text}");
    };
    check("2026-01-31T10:00:00+01:00", TimeFormat::Rfc3339, Some("2026-01-31T09:00:00Z"));
    check("1769850000", TimeFormat::Unix, Some("2026-01-31T09:00:00Z"));
    check("1769850000.25", TimeFormat::Unix, Some("2026-01-31T09:00:00.25Z"));
    check("1769850000250", TimeFormat::UnixMilliseconds, Some("2026-01-31T09:00:00.25Z"));
    check("Sat, 31 Jan 2026 09:00:00 GMT", TimeFormat::HttpDate, Some("2026-01-31T09:00:00Z"));
    for wrong in ["", "-1", "1e9", " 1", "1.", ".5", "2026", "99999999999999999999"] {
        check(wrong, TimeFormat::Rfc3339, None);
        check(wrong, TimeFormat::HttpDate, None);
    }
    for wrong in ["", "-1", "1e9", " 1", "1.", ".5", "99999999999999999999"] {
        check(wrong, TimeFormat::Unix, None);
    }
}

#[test]
fn json_and_its_relatives_are_accepted_and_others_only_where_the_mapping_says_so() {
    let mapper = |provider: &str| {
        Mapper::new(&preset::find(provider).expect("a preset").mapping, &[]).expect("a mapping")
    };
    let check = |value: &'static [u8], accepted: bool| {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_bytes(value).expect("a value"));
        assert_eq!(
            mapper("acme").body_form(&headers, b"{}"),
            accepted.then_some(BodyForm::Json),
            "{value:?}"
        );
    };
    assert_eq!(mapper("acme").body_form(&HeaderMap::new(), b"{}"), Some(BodyForm::Json));
    check(b"", true);
    check(b"application/json", true);
    check(b"Application/JSON; charset=utf-8", true);
    check(b"application/cloudevents+json", true);
    check(b"application/vnd.api+JSON;v=1", true);
    check(b"text/plain", false);
    check(b"application/xml", false);
    check(b"application/jsonp", false);
    check(b"application/x-www-form-urlencoded", false);
    check(b"\xff", false);
    check(b"json", false);
    let all =
        Mapping { accept: vec![BodyKind::Opaque, BodyKind::Form, BodyKind::Json], ..Mapping::default() };
    let all = Mapper::new(&all, &[]).expect("a mapping");
    for (value, form) in [
        ("application/json", BodyForm::Json),
        ("application/x-www-form-urlencoded; charset=utf-8", BodyForm::Form),
        ("application/soap+xml", BodyForm::Opaque),
    ] {
        let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, value.parse().expect("a value"))]);
        assert_eq!(all.body_form(&headers, b"{}"), Some(form), "{value}");
    }
}
