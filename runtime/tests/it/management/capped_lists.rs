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
    }
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
