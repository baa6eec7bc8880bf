use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::ids::EventId;
use crate::payload::BodyForm;

fn compiled(source: &str) -> Expression {
    Expression::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"))
}

fn refused(source: &str) -> ExpressionError {
    match Expression::compile(source) {
        Ok(_) => panic!("{source} was not refused"),
        Err(error) => error,
    }
}

fn input(payload: impl Into<Bytes>) -> FilterInput {
    FilterInput {
        id: EventId::new(Uuid::nil()),
        event_type: "order.created".to_owned(),
        subject: Some("ord-1".to_owned()),
        provider: "acme".into(),
        external_event_id: None,
        occurred_at: "2026-01-31T10:00:00.5Z".parse().unwrap(),
        body_form: BodyForm::Json,
        payload: payload.into(),
        headers: r#"[["x-tag","1"],["X-Tag","2"],["authorization","[redacted]"]]"#.to_owned(),
    }
}

fn evaluated(source: &str, input: &FilterInput) -> Result<bool, EvaluationError> {
    let expression = compiled(source);
    FilterContext::new(input, [&expression]).evaluate(&expression)
}

fn result(source: &str, payload: &str) -> Result<bool, EvaluationError> {
    evaluated(source, &input(payload.to_owned()))
}

#[test]
fn the_examples_of_the_documentation_are_right() {
    let text = include_str!("../../../../docs/filters.md");
    let examples: Vec<&str> = text.split("```cel\n").skip(1).collect();
    assert_eq!(examples.len(), 10);
    for example in examples {
        let (source, rest) = example.split_once("\n```").expect("an end of the expression");
        let (_, cases) = rest.split_once("```json\n").expect("cases");
        let (cases, _) = cases.split_once("```").expect("an end of the cases");
        let cases: Vec<Value> = serde_json::from_str(cases).expect("JSON");
        assert!(cases.len() > 1, "{source}");
        for case in cases {
            let shown = match evaluated(source, &documented_input(&case)) {
                Ok(result) => json!(result),
                Err(EvaluationError::Failed(_)) => json!("error"),
                Err(error) => panic!("{source}, {case}: {error}"),
            };
            assert_eq!(shown, case["result"], "{source}, {case}");
        }
    }
}

fn documented_input(case: &Value) -> FilterInput {
    let text = |field: &str| case["event"][field].as_str().map(str::to_owned);
    let defaults = input(case["payload"].to_string());
    let headers: Vec<(&String, &Value)> = case["headers"].as_object().into_iter().flatten().collect();
    FilterInput {
        event_type: text("type").unwrap_or(defaults.event_type),
        subject: text("subject"),
        occurred_at: text("occurredAt").map_or(defaults.occurred_at, |time| time.parse().unwrap()),
        headers: serde_json::to_string(&headers).unwrap(),
        ..defaults
    }
}

#[test]
fn the_variables_are_those_of_the_event() {
    let event = input("{}");
    for source in [
        "event.id == '00000000-0000-0000-0000-000000000000'",
        "event.type == 'order.created'",
        "event.subject == 'ord-1'",
        "event.provider == 'acme'",
        "event.externalId == null",
        "event.occurredAt == timestamp('2026-01-31T10:00:00.500Z')",
        "event.occurredAt - timestamp('2026-01-31T09:00:00Z') > duration('59m')",
        "headers['x-tag'] == '1, 2'",
        "headers['authorization'] == '[redacted]'",
        "!('cookie' in headers)",
    ] {
        assert_eq!(evaluated(source, &event), Ok(true), "{source}");
    }
}

#[test]
fn a_payload_is_what_the_normalized_format_carries() {
    let of_form = FilterInput { body_form: BodyForm::Form, ..input("a=1&b=x&b=y") };
    assert_eq!(evaluated("payload.a == '1' && payload.b == ['x', 'y']", &of_form), Ok(true));
    let opaque = |bytes: &'static [u8]| FilterInput { body_form: BodyForm::Opaque, ..input(bytes) };
    assert_eq!(evaluated("payload == 'text'", &opaque(b"text")), Ok(true));
    assert_eq!(evaluated("payload == null", &opaque(b"")), Ok(true));
    assert_eq!(evaluated("payload == null", &opaque(b"\xff\0")), Ok(true));
    let json = r#"{"i": 9223372036854775807, "u": 18446744073709551615, "d": 1.5, "t": "é", "b": true, "n": null, "l": [1], "x": 1, "x": 2}"#;
    let source = "payload.i == 9223372036854775807 && payload.u == 18446744073709551615u && payload.d > 1 && \
        payload.t == 'é' && payload.b && payload.n == null && payload.l[0] == 1 && payload.x == 2";
    assert_eq!(result(source, json), Ok(true));
}

#[test]
fn what_there_is_not_is_refused() {
    assert_eq!(refused("total > 1"), ExpressionError::UnknownVariable("total".to_owned()));
    assert_eq!(refused("event.kind == 'x'"), ExpressionError::UnknownField("kind".to_owned()));
    assert_eq!(refused("frobnicate(payload)"), ExpressionError::UnknownFunction("frobnicate".to_owned()));
    assert_eq!(refused("_x(payload)"), ExpressionError::UnknownFunction("_x".to_owned()));
    assert_eq!(refused("payload.all(x, y > 1)"), ExpressionError::UnknownVariable("y".to_owned()));
    assert_eq!(refused("payload.all(x, x > 1) && x"), ExpressionError::UnknownVariable("x".to_owned()));
    assert!(matches!(refused("Account{user: 1}.user == 1"), ExpressionError::Message(_)));
    for source in ["1", "'text'", "[true]", "{'a': true}", "null"] {
        assert_eq!(refused(source), ExpressionError::NeverBool, "{source}");
    }
}

#[test]
fn a_mistake_is_located() {
    for source in ["", "payload.", "payload.total >", "payload.total > 1 1", "a b c", "'open", "\u{0}"] {
        match refused(source) {
            ExpressionError::Syntax { message, .. } => assert!(!message.is_empty(), "{source}"),
            other => panic!("{source}: {other:?}"),
        }
    }
    assert_eq!(refused("payload.all(x)"), ExpressionError::UnknownFunction("all".to_owned()));
    let located = refused("payload.total > 1 &&\n  payload.total < )");
    assert!(located.to_string().contains("line 2"), "{located}");
}

/// Repeats a text until an expression is as long as it may be.
fn filled(before: &str, repeated: &str, after: &str) -> String {
    let times = (MAX_CHARS - before.len() - after.len()) / repeated.len();
    format!("{before}{}{after}", repeated.repeat(times))
}

#[test]
fn no_expression_ends_the_process() {
    let nested = |open: &str, close: &str| {
        let levels = (MAX_CHARS - 1) / (open.len() + close.len());
        format!("{}1{}", open.repeat(levels), close.repeat(levels))
    };
    let hostile = [
        filled("1", "+1", " > 0"),
        filled("true", "||true", ""),
        filled("true", "&&true", ""),
        filled("true", "?true:true", ""),
        filled("payload", ".a", ""),
        filled("payload", "[0]", ""),
        filled("payload", ".?a", ""),
        filled("", "(", ""),
        filled("", "[", ""),
        filled("", "{1:", ""),
        filled("", "size(", ""),
        filled("payload", ".all(x, x", ""),
        filled("payload", ".map(x, x)", ""),
        filled("true ? ", "true ? ", ""),
        nested("(", ")"),
        nested("[", "]"),
        nested("{1:", "}"),
        nested("size(", ")"),
        nested("[1].map(x,", ")"),
        nested("!(", ")"),
        nested("f(", ")"),
        filled("'", "[\"", "'"),
        filled("", "\u{202e}", ""),
        filled("", "\"", ""),
        filled("", "'''", ""),
        filled("", "\\", ""),
    ];
    for source in hostile {
        let error = refused(&source).to_string();
        assert!(error.chars().count() < 400, "{error}");
    }
    // These are folded while they are parsed.
    for source in [filled("", "!", "true"), filled("", "-", "1 == 1")] {
        drop(Expression::compile(&source));
    }
    assert_eq!(refused(&"1".repeat(MAX_CHARS + 1)), ExpressionError::TooLong);
}

#[test]
fn the_bounds_are_those_that_are_documented() {
    let parts = |numbers: usize| {
        let numbers = vec!["1"; numbers].join(",");
        format!("1 in [{numbers}]")
    };
    // The operator, the number and the list are parts too.
    compiled(&parts(MAX_NODES - 3));
    assert_eq!(refused(&parts(MAX_NODES - 2)), ExpressionError::TooManyNodes);
    let deep = |levels: usize| format!("{}payload{} == 1", "[".repeat(levels), "][0]".repeat(levels));
    compiled(&deep((MAX_DEPTH - 2) / 2));
    assert_eq!(refused(&deep(MAX_DEPTH)), ExpressionError::TooDeep);
    compiled("payload.all(x, x.all(y, y > 1))");
    assert_eq!(refused("payload.all(x, x.all(y, y.all(z, z > 1)))"), ExpressionError::TooManyLoops);
}

#[test]
fn patterns_are_bounded_and_part_of_the_expression() {
    assert_eq!(refused("payload.a.matches(payload.b)"), ExpressionError::PatternNotLiteral);
    assert_eq!(refused("matches(payload.a, event.type)"), ExpressionError::PatternNotLiteral);
    for pattern in ["(", "(a{1000}){1000}", "((a{100}){100}){100}", "(\\\\pL{50}){50}", "[", "a**{2}{"] {
        assert!(
            matches!(refused(&format!("payload.a.matches('{pattern}')")), ExpressionError::Pattern(_)),
            "{pattern}"
        );
    }
    // One that backtracks for ever elsewhere.
    let text = format!(r#"{{"a": "{}!"}}"#, "a".repeat(100_000));
    assert_eq!(result("payload.a.matches('^(a+)+$')", &text), Ok(false));
    assert_eq!(result("matches(payload.a, '^a')", &text), Ok(true));
    assert!(matches!(result("payload.a.matches('a')", r#"{"a": 1}"#), Err(EvaluationError::Failed(_))));
}

#[test]
fn an_error_says_what_is_wrong_without_a_value_of_the_event() {
    let payload = r#"{"secret": "hunter2", "list": ["hunter2"], "number": 9223372036854775807}"#;
    for source in [
        "payload.absent == 1",
        "payload['hunter2'] == 1",
        "payload[payload.secret] == 1",
        "payload.secret > 1",
        "payload.secret + 1 == 2",
        "payload.secret && true",
        "payload.secret.all(x, x)",
        "int(payload.secret) == 1",
        "payload.list[7] == ''",
        "payload.number + 1 > 0",
        "payload.number / 0 > 0",
        "timestamp(payload.secret) == event.occurredAt",
        "payload.secret.absent",
        "{payload.secret: 1, payload.secret: 2} == {}",
        "size(1) == 1",
        "payload.secret",
        "payload.secret ? true : false",
        "payload.list.map(x, x)",
    ] {
        let error = result(source, payload).expect_err(source).to_string();
        assert!(!error.contains("hunter2") && !error.is_empty(), "{source}: {error}");
    }
}

#[test]
fn a_payload_that_cannot_be_read_is_an_error_only_where_it_is_named() {
    let large = format!(r#"{{"a": "{}"}}"#, "x".repeat(10 * 1024 * 1024));
    assert_eq!(result("payload.a != ''", &large), Err(EvaluationError::PayloadTooLong));
    assert_eq!(result("event.type == 'order.created'", &large), Ok(true));
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for unreadable in [deep.as_str(), "{", "", "{} {}", r#""\ud83d""#, "1e999"] {
        assert_eq!(
            result("payload == 1", unreadable),
            Err(EvaluationError::PayloadUnreadable),
            "{unreadable}"
        );
    }
    let wide = format!("[{}0]", "0,".repeat(120_000));
    assert_eq!(result("size(payload) > 100000", &wide), Ok(true));
}

#[test]
fn loops_and_sums_are_bounded_by_the_event_at_hand() {
    let list = |length: usize| format!("[{}]", vec!["1"; length].join(","));
    let squares = "payload.all(x, payload.exists(y, x == y))";
    assert_eq!(result(squares, &list(300)), Ok(true));
    assert_eq!(result(squares, &list(400)), Err(EvaluationError::TooManyTurns));
    assert_eq!(result("payload.all(x, x == 1)", &list(100_000)), Ok(true));
    assert_eq!(result("payload.all(x, x == 1)", &list(100_001)), Err(EvaluationError::TooManyTurns));
    // Chained loops of sums would double the text with each.
    let text = format!(r#"{{"a": "{}"}}"#, "x".repeat(100_000));
    let doubled = format!("[payload.a]{} == []", ".map(x, x + x)".repeat(12));
    assert_eq!(result(&doubled, &text), Err(EvaluationError::TooLarge));
    // And a list of copies of a text takes the product of both.
    let copies = format!(r#"{{"a": "{}", "l": {}}}"#, "x".repeat(100_000), list(50_000));
    assert_eq!(result("payload.l.map(x, payload.a) == []", &copies), Err(EvaluationError::TooLarge));
    assert_eq!(result("payload.l.map(x, x + 1) == []", &copies), Ok(false));
    // Comparing all with all of them takes the product too.
    let compared = "payload.l.all(x, payload.a == payload.b && payload == payload)";
    let both = format!(r#"{{"a": "{0}", "b": "{0}", "l": {1}}}"#, "x".repeat(50_000), list(5_000));
    assert_eq!(result(compared, &both), Err(EvaluationError::TooMuchWork));
    assert_eq!(
        result("payload.l.all(x, payload.a.matches('^x+$'))", &both),
        Err(EvaluationError::TooMuchWork)
    );
    assert_eq!(
        result("payload.a == payload.b && payload == payload && payload.a.matches('^x+$')", &both),
        Ok(true)
    );
    // The elements of a list are together no larger than it.
    let objects = format!("[{}]", vec![r#"{"name": "somebody", "tags": ["a", "b"]}"#; 4_000].join(","));
    assert_eq!(result("payload.map(x, x.name).exists(name, name == 'nobody')", &objects), Ok(false));
}

#[test]
fn the_worst_that_is_permitted_ends() {
    let (send, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let list = format!("[{}]", vec!["0"; 60].join(","));
        let source = "payload.all(x, payload.all(y, x + y + x + y + x + y + x + y == 0 && string(x) + string(y) == '00'))";
        send.send(result(source, &list)).unwrap();
    });
    assert_eq!(ended.recv_timeout(Duration::from_secs(300)), Ok(Ok(true)));
}

#[test]
fn several_expressions_share_the_variables() {
    let (first, second) = (compiled("payload.a == 1"), compiled("event.type == 'order.created'"));
    let context = FilterContext::new(&input("{"), [&first, &second]);
    assert_eq!(context.evaluate(&first), Err(EvaluationError::PayloadUnreadable));
    assert_eq!(context.evaluate(&second), Ok(true));
    assert!(first.uses_payload() && !second.uses_payload());
}

#[test]
fn times_beyond_those_of_the_language_are_null() {
    for (time, expected) in [(Timestamp::MAX, true), (Timestamp::MIN, false), (Timestamp::UNIX_EPOCH, true)] {
        let event = FilterInput { occurred_at: time, ..input("{}") };
        let result = evaluated("event.occurredAt >= timestamp('1970-01-01T00:00:00Z')", &event);
        assert!(result == Ok(expected) || result.is_err(), "{time}: {result:?}");
    }
    let before = FilterInput { occurred_at: "1969-12-31T23:59:59.25Z".parse().unwrap(), ..input("{}") };
    assert_eq!(evaluated("event.occurredAt == timestamp('1969-12-31T23:59:59.250Z')", &before), Ok(true));
}
