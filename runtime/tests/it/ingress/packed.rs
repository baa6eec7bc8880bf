//! What an event does not store as it came, because its row has it in fewer bytes: it is shown, sent and deleted like the rest.

use grapnel_core::ids::IntegrationId;
use grapnel_store::integrations::{self, purge};
use grapnel_testing::{MANAGEMENT_KEY, TestReceiver, acme_event, wait_until};
use serde_json::json;
use uuid::Uuid;

use super::super::harness::{Answer, Platform, acme_integration, destination, sign};
use super::nowhere;

/// How each event is stored, in the order of receipt: whether its headers are packed, whether they are JSON, and whether its key is stored.
const FORMS: &str = "SELECT json_agg(json_build_array(packed_headers IS NOT NULL, headers::text <> '[]', idempotency_key <> '') ORDER BY id)::text
    FROM events";

impl Platform {
    async fn post_with(&self, id: &str, further: &[(&str, &str)]) -> Answer {
        let body = acme_event(id);
        let signature = sign(body.as_bytes());
        let mut headers = vec![("x-acme-signature", signature.as_str()), ("x-trace", "a b")];
        headers.extend(further);
        self.post("/api/v1/webhooks/acme", &headers, &body).await
    }

    async fn forms(&self) -> String {
        self.database.text(FORMS).await.expect("events").replace([' ', '\n'], "")
    }

    async fn id_of_acme(&self) -> Uuid {
        let id = self.database.text("SELECT id::text FROM integrations").await;
        id.expect("an id").parse().expect("a UUID")
    }
}

/// Returns a destination that is sent a header of the webhook.
fn tracing_destination(receiver: &TestReceiver) -> String {
    format!("{{name: orders, url: '{}', forwardHeaders: [x-trace]}}", receiver.url("/"))
}

#[tokio::test]
async fn packed_headers_and_a_key_of_parts_are_shown_and_sent_as_they_came() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let plain = acme_integration(&[destination("orders", &receiver.url("/"))]);
    let _running = platform.start_api_and_worker(&plain).await;
    platform.wait_for_count("SELECT count(*) FROM worker_heartbeats WHERE format_version >= 3", 1).await;
    let digest = "5d41402abc4b2a76b9719d911017c592";
    let further =
        [("x-digest", digest), ("x-twice", "1"), ("x-twice", "2"), ("authorization", "Bearer secret")];
    let id = platform.post_with("e-1", &further).await.event_id();
    assert_eq!(platform.forms().await, "[[true,false,false]]");
    let again = platform.post_with("e-1", &[]).await;
    assert_eq!((again.status, again.event_id()), (200, id.clone()), "{again:?}");

    let webhook = platform.get(&format!("/api/v1/events/{id}")).await.json()["data"]["webhook"].clone();
    let expected = format!("{}:e-1", platform.id_of_acme().await);
    assert_eq!(webhook["idempotencyKey"], expected);
    let headers = &webhook["requestHeaders"];
    let shown = ["x-trace", "x-digest", "x-twice", "authorization"].map(|name| headers[name].as_str());
    assert_eq!(shown, [Some("a b"), Some(digest), Some("1, 2"), Some("[redacted]")], "{headers}");
    assert_eq!(headers["x-acme-signature"], sign(acme_event("e-1").as_bytes()));

    // A destination that needs them gets them of events of before too.
    receiver.wait_for(1).await;
    platform.apply(&acme_integration(&[tracing_destination(&receiver)])).await;
    let (key, replay) = ([("x-internal-api-key", MANAGEMENT_KEY)], json!({"reason": "again"}).to_string());
    wait_until("the header to be sent on", async || {
        let count = receiver.deliveries().len();
        let path = format!("/api/v1/events/{id}/replay");
        assert_eq!(platform.post(&path, &key, &replay).await.status, 202);
        receiver.wait_for(count + 1).await.last().expect("one").headers.contains_key("x-trace")
    })
    .await;
    assert_eq!(receiver.deliveries().last().expect("one").header("x-trace"), "a b");
}

#[tokio::test]
async fn headers_that_a_process_of_before_may_need_are_not_packed() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    platform.apply(&acme_integration(&[nowhere()])).await;
    platform.insert_older_worker(2).await;
    let _api = platform.start(&["api"]);
    platform.wait_until_known("acme").await;
    platform.post_with("beside-an-older-worker", &[]).await;
    assert_eq!(platform.forms().await, "[[false,true,false]]");

    platform.database.execute("TRUNCATE worker_heartbeats").await;
    let mut number = 0;
    wait_until("headers to be packed", async || {
        number += 1;
        platform.database.execute("DELETE FROM events").await;
        platform.post_with(&format!("e-{number}"), &[]).await;
        platform.forms().await == "[[true,false,false]]"
    })
    .await;
    platform.post_with("of-a-loop", &[("cdn-loop", "grapnel; hops=1")]).await;
    assert_eq!(platform.forms().await, "[[true,false,false],[false,true,false]]");

    platform.apply(&acme_integration(&[tracing_destination(&receiver)])).await;
    wait_until("headers that a destination is sent not to be packed", async || {
        number += 1;
        platform.database.execute("DELETE FROM events").await;
        platform.post_with(&format!("e-{number}"), &[]).await;
        platform.forms().await == "[[false,true,false]]"
    })
    .await;
}

#[tokio::test]
async fn an_erasure_by_a_process_of_before_and_a_deleted_history_leave_nothing_of_it() {
    let platform = Platform::new().await;
    let _api = platform.start_api(&acme_integration(&[nowhere()])).await;
    platform.post_with("e-1", &[]).await;
    platform.post_with("e-2", &[]).await;
    assert_eq!(platform.forms().await, "[[true,false,false],[true,false,false]]");
    let erase =
        "UPDATE events SET headers = '[]', raw_body = '', erased_at = now(), erased_by = 'key:current'
        WHERE external_event_id = 'e-1'";
    platform.database.execute(erase).await;
    assert_eq!(platform.forms().await, "[[false,false,false],[true,false,false]]");

    let id = IntegrationId::new(platform.id_of_acme().await);
    assert_eq!(platform.count("SELECT count(*) FROM idempotency_keys").await, 2);
    integrations::remove(&platform.db, id, "test").await.expect("a commit");
    purge::purge(&platform.db, id, "test").await.expect("a record");
    platform.wait_for_count("SELECT count(*) FROM purges", 0).await;
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 0);
    assert_eq!(platform.count("SELECT count(*) FROM idempotency_keys").await, 0);
}
