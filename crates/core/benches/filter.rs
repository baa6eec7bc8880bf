//! The cost of the filters of one event: reading what the expressions need of it, and evaluating them.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use grapnel_core::filter::{EventTypes, Expression, FilterContext, FilterInput, IntegrationFilters};
use grapnel_core::ids::EventId;
use grapnel_core::payload::BodyForm;
use grapnel_crds::IntegrationSpec;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

fn event(payload: String) -> FilterInput {
    FilterInput {
        id: EventId::new(Uuid::nil()),
        event_type: "order.created".to_owned(),
        subject: Some("ord-1".to_owned()),
        provider: "acme".into(),
        external_event_id: Some("e-1".to_owned()),
        occurred_at: Timestamp::UNIX_EPOCH,
        body_form: BodyForm::Json,
        payload: Bytes::from(payload),
        headers:
            r#"[["content-type","application/json"],["x-acme-signature","00"],["host","hooks.example.com"]]"#
                .to_owned(),
    }
}

fn spec() -> IntegrationSpec {
    serde_json::from_value(json!({
        "provider": "acme", "verification": {"secretRef": {"name": "acme"}},
        "destinations": [{"name": "orders", "url": "https://orders.example.com"}],
    }))
    .expect("a spec")
}

fn expressions(criterion: &mut Criterion) {
    let usual = event(format!(r#"{{"id":"ord-1","total":1500,"filler":"{}"}}"#, "x".repeat(1_000)));
    let objects = vec![r#"{"sku":"BOOK-7","quantity":10,"price":12.5}"#; 1_000].join(",");
    let long = event(format!(r#"{{"lines":[{objects}]}}"#));
    // At the bounds of `limits`; a webhook waits for an evaluation for 50 ms at most.
    let largest = event(format!(r#"{{"total":1500,"filler":"{}"}}"#, "x".repeat(255 * 1024)));
    // 315 × 315 turns inside, and 315 outside.
    let square = event(format!("[{}]", vec!["1"; 315].join(",")));
    let widest = vec!["payload.total > 1000"; 51].join(" && ");
    let cases = [
        ("type", "event.type == 'order.created'", &usual),
        ("headers", "headers['content-type'].startsWith('application/json')", &usual),
        ("payload of 1 KB", "payload.total > 1000", &usual),
        ("pattern", "payload.id.matches('^ord-[0-9]+$')", &usual),
        ("list of 1,000 objects", "payload.lines.exists(line, line.sku == 'PEN-1')", &long),
        ("bound: payload of 256 KB", "payload.total > 1000", &largest),
        ("bound: 256 parts", widest.as_str(), &usual),
        ("bound: 100,000 turns", "payload.all(one, payload.all(other, one <= other))", &square),
    ];
    let mut group = criterion.benchmark_group("filter");
    for (name, source, event) in cases {
        let expression = Expression::compile(source).expect("an expression");
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                FilterContext::new(black_box(event), [&expression]).evaluate(&expression).expect("a result")
            });
        });
    }
    let sixteen: Vec<Expression> = (0..16)
        .map(|total| Expression::compile(&format!("payload.total > {total}")).expect("an expression"))
        .collect();
    group.bench_function("16 destinations, payload of 1 KB", |bencher| {
        bencher.iter(|| {
            let context = FilterContext::new(black_box(&usual), &sixteen);
            sixteen.iter().filter(|expression| context.evaluate(expression) == Ok(true)).count()
        });
    });
    group.bench_function("compile", |bencher| {
        bencher.iter(|| {
            Expression::compile(black_box("payload.total > 1000 && event.provider == 'acme'"))
                .expect("an expression")
        });
    });
    // What every event of an Integration without filters costs.
    let none = IntegrationFilters::new(&spec()).expect("filters");
    group.bench_function("no filters", |bencher| bencher.iter(|| black_box(&none).is_some()));
    let patterns = ["order.*", "!order.test.*", "*.created"].map(str::to_owned);
    let types = EventTypes::new(&patterns).expect("patterns");
    group.bench_function("eventTypes of 3 patterns", |bencher| {
        bencher.iter(|| types.includes(black_box("order.created")))
    });
    group.finish();
}

criterion_group!(benches, expressions);
criterion_main!(benches);
