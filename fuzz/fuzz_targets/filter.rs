//! Any text as the expression of a filter, evaluated for any payload.
//!
//! Nothing panics or ends the process. What compiles has a result or an error for every event, the same each time. The input is
//! an expression and, after a zero byte, a payload.

#![no_main]

use bytes::Bytes;
use grapnel_core::filter::{Expression, FilterContext, FilterInput, MAX_CHARS};
use grapnel_core::ids::EventId;
use grapnel_core::payload::BodyForm;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let Ok(source) = std::str::from_utf8(parts.next().unwrap_or_default()) else { return };
    let payload = Bytes::copy_from_slice(parts.next().unwrap_or_default());
    let expression = match Expression::compile(source) {
        Ok(expression) => expression,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(source.chars().count() <= MAX_CHARS);
    for body_form in [BodyForm::Json, BodyForm::Form, BodyForm::Opaque] {
        let event = FilterInput {
            id: EventId::new(Uuid::nil()),
            event_type: "order.created".to_owned(),
            subject: None,
            provider: "acme".into(),
            external_event_id: Some("e-1".to_owned()),
            occurred_at: Timestamp::UNIX_EPOCH,
            body_form,
            payload: payload.clone(),
            headers: r#"[["content-type","application/json"]]"#.to_owned(),
        };
        let results = [0, 1].map(|_| FilterContext::new(&event, [&expression]).evaluate(&expression));
        assert_eq!(results[0], results[1]);
    }
});
