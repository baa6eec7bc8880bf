//! Lists of more than ten thousand events.

use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::harness::Api;

/// Stores events number `first` to `last`, all processed, each received after the one before.
async fn fill(api: &Api, first: i32, last: i32) {
    api.execute(&format!(
        "INSERT INTO events (id, integration_id, provider, event_type, occurred_at, received_at, correlation_id,
            headers, raw_body, payload_key, payload_start, payload_length, idempotency_key)
        SELECT (substr(uuidv7_floor(now())::text, 1, 14) || '7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
            gen_random_uuid(), 'acme', CASE WHEN n <= 10000 THEN 'many' ELSE 'few' END, now(), now(), 'c', '[]',
            '{{}}', 'data', 0, 2, 'k' || n
        FROM generate_series({first}, {last}) n;
        INSERT INTO deliveries (event_id, destination, integration_id, status, finished_at, updated_at)
        SELECT id, 'orders', integration_id, 'succeeded', now(), now() FROM events
        WHERE id NOT IN (SELECT event_id FROM deliveries)"
    ))
    .await;
}

async fn bring_all(api: &Api, status: &str) {
    let finished = if matches!(status, "succeeded" | "failed") { "now()" } else { "NULL" };
    api.execute(&format!(
        "UPDATE deliveries SET status = '{status}', finished_at = {finished}, queued_at = NULL, due_at = NULL,
            last_error = CASE WHEN '{status}' = 'failed' THEN 'refused' END;
        ANALYZE deliveries"
    ))
    .await;
}

/// Checks page 101, and the rest behind its cursor, in both orders.
async fn check(api: &Api, ascending: &[Uuid], query: &str) {
    for order in ["asc", "desc"] {
        let mut expected = ascending.to_vec();
        if order == "desc" {
            expected.reverse();
        }
        let path = format!("/events?pageSize=100&sortOrder={order}{query}");
        let answer = api.get(&format!("{path}&page=101")).await.expect(StatusCode::OK);
        assert_eq!(answer.ids(), expected[10_000..10_100], "{path}");
        let meta = &answer.json["meta"];
        assert_eq!(
            (meta["total"].as_u64(), meta["totalPages"].as_u64()),
            (Some(10_000), Some(100)),
            "{path}"
        );
        assert_eq!(meta["totalIsCapped"], true, "{path}");
        let cursor = meta["nextCursor"].as_str().unwrap_or_else(|| panic!("{path} has no cursor"));
        let rest = api.get(&format!("{path}&cursor={cursor}")).await.expect(StatusCode::OK);
        assert_eq!(rest.ids(), expected[10_100..], "{path}");
        assert_eq!(rest.json["meta"]["page"], 102);
        assert!(rest.json["meta"].get("nextCursor").is_none());
    }
}

#[tokio::test]
async fn totals_are_exact_to_ten_thousand_and_cursors_go_on() {
    let api = Api::start().await;
    let before = Timestamp::now();
    fill(&api, 1, 10_000).await;
    let meta = api.get("/events?pageSize=100").await.json["meta"].clone();
    assert_eq!((meta["total"].as_u64(), meta["totalPages"].as_u64()), (Some(10_000), Some(100)));
    assert!(meta.get("totalIsCapped").is_none());
    fill(&api, 10_001, 10_150).await;
    let ids = api.database.texts("SELECT id::text FROM events ORDER BY id").await;
    let ids: Vec<Uuid> = ids.iter().map(|id| id.parse().unwrap()).collect();
    assert_eq!(api.get("/events?eventType=few").await.json["meta"]["total"], 150);

    check(&api, &ids, "").await;
    check(&api, &ids, "&sortBy=occurredAt").await;
    for (delivery, event) in
        [("succeeded", "processed"), ("failed", "failed"), ("pending", "pending"), ("retrying", "retrying")]
    {
        bring_all(&api, delivery).await;
        check(&api, &ids, "&sortBy=status").await;
        for sort in ["createdAt", "occurredAt", "status"] {
            check(&api, &ids, &format!("&status={event}&sortBy={sort}&provider=acme")).await;
        }
        check(&api, &ids, &format!("&status={event}")).await;
    }
    // More than the cap are stored, but not more are processed.
    bring_all(&api, "succeeded").await;
    api.execute(
        "UPDATE deliveries SET status = 'failed', last_error = 'refused'
        WHERE event_id IN (SELECT id FROM events ORDER BY id LIMIT 151)",
    )
    .await;
    let meta = api.get("/events?status=processed").await.expect(StatusCode::OK).json["meta"].clone();
    assert_eq!((meta["total"].as_u64(), meta.get("totalIsCapped")), (Some(9_999), None));
    bring_all(&api, "retrying").await;
    // Received around, long after and long before the window.
    for hours in [0, -2, 2] {
        api.execute(&format!(
            "UPDATE events SET occurred_at = now() + interval '{hours} hours'; ANALYZE events"
        ))
        .await;
        let from = before + SignedDuration::from_hours(hours) - SignedDuration::from_mins(1);
        let to = from + SignedDuration::from_hours(1);
        check(&api, &ids, &format!("&from={from}&to={to}")).await;
        check(&api, &ids, &format!("&from={from}&to={to}&sortBy=occurredAt&status=retrying")).await;
    }
}

/// Stores so many events of an integration and an attempt for each.
async fn fill_integration(api: &Api, integration: Uuid, event_type: &str, succeeded: bool, events: i32) {
    api.execute(&format!(
        "WITH stored AS (
            INSERT INTO events (id, integration_id, provider, event_type, occurred_at, received_at, correlation_id,
                headers, raw_body, payload_key, payload_start, payload_length, idempotency_key)
            SELECT uuidv7_now(), '{integration}', 'acme', '{event_type}', now(), now(), 'c', '[]', '{{}}', 'data', 0, 2,
                gen_random_uuid()::text
            FROM generate_series(1, {events})
            RETURNING id
        )
        INSERT INTO delivery_attempts (id, event_id, integration_id, destination, attempt_no, succeeded, http_status,
            response_body, duration_ms, triggered_by, scheduled_at, started_at)
        SELECT uuidv7_now(), id, '{integration}', 'orders', 1, {succeeded}, 200, '', 1, 'webhook', now(), now() FROM stored;
        ANALYZE events, delivery_attempts"
    ))
    .await;
}

#[tokio::test]
async fn what_an_index_finds_is_counted_to_ten_thousand() {
    let api = Api::start().await;
    let (acme, globex) =
        (api.integration("acme", &["orders"]).await, api.integration("globex", &["orders"]).await);
    let from = Timestamp::now() - SignedDuration::from_mins(1);
    fill_integration(&api, globex, "few", false, 3).await;
    fill_integration(&api, acme, "many", true, 10_000).await;
    let check = async |path: &str, total: u64, is_capped: bool| {
        let first = api.get(&format!("{path}&pageSize=2")).await.expect(StatusCode::OK).json["meta"].clone();
        let cursor = first["nextCursor"].as_str().unwrap_or_else(|| panic!("{path} has no cursor"));
        let next = api.get(&format!("{path}&pageSize=2&cursor={cursor}")).await.expect(StatusCode::OK);
        for meta in [&first, &next.json["meta"]] {
            assert_eq!(meta["total"], total, "{path}");
            assert_eq!(meta.get("totalIsCapped").is_some(), is_capped, "{path}");
        }
    };
    let exact = [
        ("/events?integration=shop/acme", 10_000),
        ("/events?integration=shop/acme&eventType=many", 10_000),
        ("/events?integration=shop/acme&status=processed", 10_000),
        ("/events?integration=shop/acme&eventType=many&status=processed", 10_000),
        ("/events?integration=shop/globex", 3),
        ("/events?integration=shop/globex&status=processed", 3),
        ("/events?integration=shop/globex&eventType=few", 3),
        ("/deliveries?integration=shop/acme", 10_000),
        ("/deliveries?integration=shop/acme&status=success", 10_000),
        ("/deliveries?integration=shop/globex", 3),
        ("/deliveries?integration=shop/globex&status=failed", 3),
    ];
    for (path, total) in exact {
        check(path, total, false).await;
    }
    fill_integration(&api, acme, "many", true, 1).await;
    fill_integration(&api, acme, "few", false, 5).await;
    for path in [
        "/events?integration=shop/acme",
        "/events?integration=shop/acme&eventType=many",
        "/events?integration=shop/acme&status=processed",
        "/events?integration=shop/acme&eventType=many&status=processed",
        "/events?namespace=shop",
        "/events?namespace=shop&status=processed",
        &format!("/events?receivedFrom={from}&status=processed"),
        &format!("/events?receivedFrom={from}"),
        "/deliveries?integration=shop/acme",
        "/deliveries?integration=shop/acme&status=success",
        &format!("/deliveries?from={from}"),
        &format!("/audit-entries?from={from}"),
        &format!("/audit-entries?from={from}&action=event.processed"),
    ] {
        check(path, 10_000, true).await;
    }
    // More rows about something else than are counted.
    api.execute(
        "INSERT INTO audit_entries (id, entity_type, entity_id, action, actor)
        SELECT uuidv7_now(), 'integration', gen_random_uuid(), 'integration.noted', 'system' FROM generate_series(1, 10001);
        ANALYZE audit_entries",
    )
    .await;
    check(&format!("/audit-entries?from={from}&action=event.processed"), 10_000, true).await;
    check(&format!("/audit-entries?from={from}&actor=provider:acme"), 10_000, true).await;
    check("/events?integration=shop/acme&eventType=few", 5, false).await;
    check("/deliveries?integration=shop/acme&status=failed", 5, false).await;
    check(&format!("/deliveries?from={from}&status=failed"), 8, false).await;
    // Some are not processed, and those that are do not go beyond the cap any more.
    api.execute(&format!(
        "INSERT INTO deliveries (event_id, destination, integration_id, status, queued_at, finished_at, last_error, updated_at)
        SELECT id, 'orders', integration_id, status, CASE status WHEN 'pending' THEN now() END,
            CASE status WHEN 'failed' THEN now() END, CASE status WHEN 'failed' THEN 'refused' END, now()
        FROM unnest(ARRAY['failed', 'pending']::delivery_status[]) AS status CROSS JOIN LATERAL (
            SELECT id, integration_id FROM events WHERE integration_id = '{acme}' AND event_type = 'many'
            ORDER BY id LIMIT 4 OFFSET CASE status WHEN 'failed' THEN 0 ELSE 4 END
        ) AS event"
    ))
    .await;
    check("/events?integration=shop/acme&status=processed", 9_998, false).await;
    check("/events?integration=shop/acme&eventType=many&status=processed", 9_993, false).await;
    check(&format!("/events?receivedFrom={from}&status=processed"), 10_000, true).await;
    check("/events?integration=shop/globex&status=processed", 3, false).await;
}
