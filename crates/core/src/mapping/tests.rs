use proptest::prelude::*;

use grapnel_crds::MappedField;

use super::identity::FormerName;
use super::*;
use crate::preset;

fn read(provider: &str, body: &[u8]) -> Result<EventFields, InvalidEvent> {
    let mapper = Mapper::new(&preset::find(provider).expect("a preset").mapping, &FormerMapping::default())
        .expect("a mapping");
    let (method, uri, headers) = (http::Method::POST, http::Uri::from_static("/"), HeaderMap::new());
    let request = IncomingRequest {
        method: &method,
        uri: &uri,
        headers: &headers,
        body,
        encoded_body: None,
        form: None,
        public_url: None,
        json: None,
    };
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
        assert_eq!((fields.subject, &*fields.left_out[0].field), (None, "subject"));
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
        Mapper::new(&preset::find(provider).expect("a preset").mapping, &FormerMapping::default())
            .expect("a mapping")
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
    let all = Mapper::new(&all, &FormerMapping::default()).expect("a mapping");
    for (value, form) in [
        ("application/json", BodyForm::Json),
        ("application/x-www-form-urlencoded; charset=utf-8", BodyForm::Form),
        ("application/soap+xml", BodyForm::Opaque),
    ] {
        let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, value.parse().expect("a value"))]);
        assert_eq!(all.body_form(&headers, b"{}"), Some(form), "{value}");
    }
}

/// Splits a request of the mapping.
fn split(mapping: &Mapping, former: &FormerMapping, body: &str) -> Vec<EventFields> {
    let mapper = Mapper::new(mapping, former).expect("a mapping");
    let (method, uri, headers) = (http::Method::POST, http::Uri::from_static("/?tenant=t"), HeaderMap::new());
    let body = body.as_bytes();
    let request = IncomingRequest {
        method: &method,
        uri: &uri,
        headers: &headers,
        body,
        encoded_body: None,
        form: None,
        public_url: None,
        json: None,
    };
    let split = mapper.split(&request, body, BodyForm::Json).expect("not too many");
    split.map(|split| split.events().collect()).unwrap_or_default()
}

fn of_items(event_type: &str, subject: &str) -> Mapping {
    let list = |text: &str| if text.is_empty() { Vec::new() } else { vec![text.to_owned()] };
    Mapping {
        split: list("/items/*"),
        event_type: list(event_type),
        subject: list(subject),
        ..Mapping::default()
    }
}

#[test]
fn each_element_is_an_event_with_fields_of_its_own_and_of_the_whole() {
    let body = r#"{"account":"a","items":[ {"t":"one","n":1.50}, {"t":"two"} ]}"#;
    let events = split(&of_items("element:/t", "json:/account"), &FormerMapping::default(), body);
    let fields: Vec<_> = events
        .iter()
        .map(|event| (&*event.event_type, event.subject.as_deref(), &body[event.payload.clone()]))
        .collect();
    assert_eq!(fields, [("one", Some("a"), r#"{"t":"one","n":1.50}"#), ("two", Some("a"), r#"{"t":"two"}"#)]);
}

#[test]
fn an_element_that_lacks_what_it_needs_is_unmapped_and_refuses_no_other() {
    let mapping = Mapping { required: vec![MappedField::Subject], ..of_items("element:/t", "element:/s") };
    let body = r#"{"items":[{"t":"one","s":"x"},{"t":"two"},7,{"s":"y"},{"t":"five","s":"z"}]}"#;
    let events = split(&mapping, &FormerMapping::default(), body);
    let types: Vec<_> = events.iter().map(|event| &*event.event_type).collect();
    assert_eq!(types, ["one", UNMAPPED, UNMAPPED, UNMAPPED, "five"]);
    let notes: Vec<_> = events.iter().map(|event| event.left_out.first().map(|note| &*note.field)).collect();
    assert_eq!(notes, [None, Some("s"), Some("element"), Some("t"), None]);
}

#[test]
fn the_identity_of_an_element_is_of_it_and_of_what_is_read_from_elsewhere() {
    let names = |mapping: &Mapping, body: &str| -> Vec<_> {
        split(mapping, &FormerMapping::default(), body).iter().map(|event| event.identity.name).collect()
    };
    let own = of_items("element:/t", "");
    let first = names(&own, r#"{"id":1,"items":[{"t":"a","n":1},{ "n":1, "t":"a" },{"t":"a","n":2}]}"#);
    assert!(first[0] == first[1] && first[0] != first[2], "{first:?}");
    // Neither the rest of the request nor the others of the list count.
    assert_eq!(names(&own, r#"{"id":2,"items":[{"t":"a","n":1}]}"#)[0], first[0]);
    let with_account = of_items("element:/t", "json:/account");
    let one = names(&with_account, r#"{"account":"a","items":[{"t":"a","n":1}]}"#);
    let other = names(&with_account, r#"{"account":"b","items":[{"t":"a","n":1}]}"#);
    assert!(one != other && one[0] != first[0]);
    let scoped = Mapping {
        external_event_id: vec!["element:/t".into()],
        id_scope: vec!["element:".into()],
        ..of_items("element:/t", "")
    };
    let ids = names(&scoped, r#"{"items":[{"t":"a","n":1},{"n":1,"t":"a"},{"t":"a","n":2}]}"#);
    assert!(ids[0] == ids[1] && ids[0] != ids[2], "{ids:?}");
}

fn without(fields: &[&str], mapping: Mapping) -> Mapping {
    Mapping { attempt_fields: fields.iter().map(|field| (*field).to_owned()).collect(), ..mapping }
}

#[test]
fn a_field_of_the_attempt_does_not_tell_elements_apart() {
    let names = |mapping: &Mapping, items: &str| -> Vec<_> {
        let body = format!(r#"{{"n":{},"items":[{items}]}}"#, items.len());
        let events = split(mapping, &FormerMapping::default(), &body);
        events.iter().map(|event| event.identity.name).collect()
    };
    let attempts = r#"{"t":"a","n":0,"x":{"n":0}}, {"x":{"n":0},"n":1,"t":"a"}, {"t":"a","x":{"n":0}}"#;
    let others = r#"{"t":"a","n":0,"x":{"n":1}}, {"t":"b","n":0,"x":{"n":0}}"#;
    let with_all = |mapping: Mapping| Mapping {
        external_event_id: vec!["element:/t".into()],
        id_scope: vec!["element:".into()],
        ..mapping
    };
    let with_shared = |mapping: Mapping| Mapping { external_event_id: vec!["literal:x".into()], ..mapping };
    let plain = of_items("element:/t", "");
    for mapping in [
        plain.clone(),
        of_items("element:/t", "query:tenant"),
        with_all(plain.clone()),
        with_shared(plain.clone()),
        of_items("element:/missing", ""),
    ] {
        let mapping = without(&["element:/n"], mapping);
        let (same, others) = (names(&mapping, attempts), names(&mapping, others));
        assert!(same[0] == same[1] && same[0] == same[2], "{mapping:?}: {same:?}");
        assert!(others[0] != same[0] && others[1] != same[0] && others[0] != others[1], "{mapping:?}");
    }
    // A field of the body is none of the element.
    let of_body = names(&without(&["json:/n"], plain), attempts);
    assert!(of_body[0] != of_body[1] && of_body[0] != of_body[2]);
}

#[test]
fn a_field_of_the_attempt_that_the_type_or_the_subject_is_read_from_counts() {
    let names = |mapping: &Mapping, body: &str| -> Vec<_> {
        let events = split(mapping, &FormerMapping::default(), body);
        events.iter().map(|event| event.identity.name).collect()
    };
    let body = r#"{"items":[{"t":"a","d":{"s":"1","n":1}},{"t":"b","d":{"s":"1","n":1}},{"t":"a","d":{"s":"2","n":1}},{"t":"a","d":{"s":"1","n":2}}]}"#;
    let mapping = without(&["element:/t", "element:/d"], of_items("element:/t", "element:/d/s"));
    let names = names(&mapping, body);
    assert!(names[0] != names[1] && names[0] != names[2] && names[1] != names[2] && names[0] == names[3]);
}

#[test]
fn a_field_of_the_attempt_does_not_tell_bodies_apart_and_what_was_stored_with_it_is_named() {
    let read = |mapping: &Mapping, body: &str| {
        let mapper = Mapper::new(mapping, &FormerMapping::default()).expect("a mapping");
        let (method, uri) = (http::Method::POST, http::Uri::from_static("/"));
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static("x-type"),
            http::HeaderValue::from_static("t"),
        )]);
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
        mapper.read(&request, request.body, BodyForm::Json).expect("an event").identity
    };
    let mapping = |event_type: &str| Mapping { event_type: vec![event_type.into()], ..Mapping::default() };
    for event_type in ["literal:t", "json:/t", "header:x-type", "json:/meta/t"] {
        let plain = mapping(event_type);
        let mapping = without(&["json:/n", "json:/meta"], plain.clone());
        let first = read(&mapping, r#"{"t":"a","a":1,"n":0,"meta":{"t":"t"}}"#);
        let second = read(&mapping, r#"{"n":1,"meta":{"t":"t","m":2},"a":1,"t":"a"}"#);
        let other = read(&mapping, r#"{"t":"a","a":2,"n":0,"meta":{"t":"t"}}"#);
        assert!(first.name == second.name && first.name != other.name, "{event_type}");
        let former = second.former.expect("a former identity").name;
        let IdentityName::Digest(_, whole) =
            read(&self::mapping(), r#"{"n":1,"meta":{"t":"t","m":2},"a":1,"t":"a"}"#).name
        else {
            panic!("{event_type}")
        };
        assert_eq!(former, FormerName::Payload(whole), "{event_type}");
        // Without such a field nothing has changed.
        let bare = r#"{"a":1,"t":"a","o":1}"#;
        if event_type != "json:/meta/t" {
            assert_eq!(read(&mapping, bare), read(&plain, bare), "{event_type}");
        }
    }
}

/// A mapping whose identity is the digest of the whole body.
fn mapping() -> Mapping {
    Mapping { event_type: vec!["literal:t".into()], ..Mapping::default() }
}

#[test]
fn bytes_count_where_a_field_of_the_attempt_cannot_be_left_out_alone() {
    let names = |body: &str| -> Vec<_> {
        let mapping = without(&["element:/n"], of_items("element:/t", ""));
        let events = split(&mapping, &FormerMapping::default(), body);
        events.iter().map(|event| event.identity.name).collect()
    };
    let names = names(
        r#"{"items":[{"t":"a","n":1,"x":1,"x":2},{"t":"a","n":1,"x":3,"x":2},{"t":"a","n":1,"n":2,"x":2},{"t":"a","x":2}]}"#,
    );
    assert!(names[0] != names[1] && names[0] != names[3] && names[2] == names[3], "{names:?}");
}

#[test]
fn only_members_can_be_fields_of_the_attempt() {
    for source in ["/n", "header:x-n", "form:n", "query:n", "literal:n", "request", "n"] {
        assert!(Mapper::new(&without(&[source], mapping()), &FormerMapping::default()).is_none(), "{source}");
    }
}

#[test]
fn an_id_that_all_elements_share_does_not_make_them_one() {
    let names = |id: &str, body: &str| -> Vec<_> {
        let mapping = Mapping { external_event_id: vec![id.into()], ..of_items("element:/t", "") };
        split(&mapping, &FormerMapping::default(), body).iter().map(|event| event.identity.name).collect()
    };
    for id in ["/items/0/id", "query:tenant", "literal:x"] {
        let both = names(id, r#"{"items":[{"t":"a","id":"1"},{"t":"b"}]}"#);
        assert_ne!(both[0], both[1], "{id}");
        assert_eq!(names(id, r#"{"items":[{"id":"1", "t":"a"}]}"#)[0], both[0], "{id}");
    }
}

#[test]
fn what_the_previous_version_called_an_event_is_named_if_it_had_one_element() {
    let whole = |id: &[&str]| FormerMapping {
        external_event_id: id.iter().map(|id| (*id).to_owned()).collect(),
        is_whole: true,
    };
    let former = |id: &[&str], body: &str| {
        let mapping = Mapping { external_event_id: vec!["element:/id".into()], ..of_items("element:/t", "") };
        split(&mapping, &whole(id), body).remove(0).identity.former.map(|former| former.name)
    };
    let (one, two) =
        (r#"{"w":"w1","items":[{"t":"a","id":"e1"}]}"#, r#"{"items":[{"t":"a","id":"e1"},{"t":"b"}]}"#);
    assert_eq!(former(&["/w"], one), Some(FormerName::Id("w1".into())));
    assert_eq!(former(&["/items/0/id"], one), None, "the key is the same");
    assert!(matches!(former(&["/x"], one), Some(FormerName::Payload(_))));
    assert_eq!(former(&["/items/0/id"], two), None);
}

#[test]
fn only_the_content_types_that_are_named_are_split() {
    let mapping =
        Mapping { split_content_types: vec!["application/batch+json".into()], ..of_items("element:/t", "") };
    let mapper = Mapper::new(&mapping, &FormerMapping::default()).expect("a mapping");
    let (method, uri) = (http::Method::POST, http::Uri::from_static("/"));
    for (content_type, is_split) in
        [("application/json", false), ("Application/Batch+JSON; charset=utf-8", true)]
    {
        let headers =
            HeaderMap::from_iter([(http::header::CONTENT_TYPE, content_type.parse().expect("a value"))]);
        let body = br#"{"items":[{"t":"a"}]}"#;
        let request = IncomingRequest {
            method: &method,
            uri: &uri,
            headers: &headers,
            body,
            encoded_body: None,
            form: None,
            public_url: None,
            json: None,
        };
        let split = mapper.split(&request, body, BodyForm::Json).expect("not too many");
        assert_eq!(split.is_some(), is_split, "{content_type}");
    }
}
