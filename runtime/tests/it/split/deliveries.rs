//! What receivers get of an event that shares its request.

use grapnel_testing::TestReceiver;
use serde_json::{Value, json};

use super::{TOKEN, element, list_named, post_to, request};
use crate::harness::Platform;

#[tokio::test]
async fn each_delivery_has_the_bytes_of_its_element() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let formats = ["raw", "normalized", "cloudevents"];
    let yaml: String = formats
        .iter()
        .map(|format| {
            let destinations = json!([{"name": "orders", "url": receiver.url(&format!("/{format}"))}]);
            list_named(format, &json!({"deliver": format}), &destinations)
        })
        .collect();
    platform.apply(&yaml).await;
    let _running = (platform.start(&["api"]), platform.start(&["worker"]));
    platform.wait_until_known("raw").await;
    // One that does not come with its claim.
    let long = format!(r#"{{ "id":"2","type":"created", "n":1.50,"text":"{}" }}"#, "é".repeat(70_000));
    let elements = [element("1"), long.clone(), element("3")];
    let body = request(&elements.iter().map(String::as_str).collect::<Vec<_>>());
    for format in formats {
        let answer = post_to(&platform, &format!("/api/v1/webhooks/{format}"), &body).await;
        assert_eq!(answer.status, 202, "{format}: {answer:?}");
    }
    receiver.wait_for(9).await;
    let sorted = |format: &str| {
        let mut deliveries = receiver.deliveries_to(&format!("/{format}"));
        deliveries.sort_by(|one, other| one.header("webhook-id").cmp(other.header("webhook-id")));
        deliveries
    };
    for (delivery, element) in sorted("raw").iter().zip(&elements) {
        assert_eq!((&delivery.body, delivery.header("content-type")), (element, "application/json"));
    }
    for (delivery, element) in sorted("normalized").iter().zip(&elements) {
        assert!(delivery.body.ends_with(&format!(r#""data":{element}}}"#)), "{}", delivery.body);
        assert_eq!(delivery.json()["eventType"], "created");
    }
    for (delivery, element) in sorted("cloudevents").iter().zip(&elements) {
        assert!(delivery.body.ends_with(&format!(r#""data":{element}}}"#)), "{}", delivery.body);
        assert_eq!(delivery.json()["subject"], "a-1");
    }
    assert!(receiver.deliveries().iter().all(|delivery| !delivery.body.contains(TOKEN)));
}

#[tokio::test]
async fn one_event_of_a_request_is_replayed_by_itself_and_alone_it_is_delivered_in_the_same_form() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let destinations = json!([{"name": "orders", "url": receiver.url("/orders")}]);
    platform.apply(&list_named("list", &json!({"deliver": "raw"}), &destinations)).await;
    let _running = (platform.start(&["api"]), platform.start(&["worker"]));
    platform.wait_until_known("list").await;
    let alone = post_to(&platform, super::PATH, &request(&[&element("1")])).await;
    let several = post_to(&platform, super::PATH, &request(&[&element("2"), &element("3")])).await;
    assert_eq!((alone.status, several.status), (202, 202));
    // A replay of what is in flight would be that attempt.
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'succeeded'", 3).await;
    let replayed = platform
        .http
        .post(platform.url(&format!("/api/v1/events/{}/replay", several.event_id())))
        .header("x-internal-api-key", grapnel_testing::MANAGEMENT_KEY)
        .json(&json!({"reason": "a test", "requestedBy": "a test"}))
        .send()
        .await
        .expect("an answer");
    assert!(replayed.status().is_success(), "{replayed:?}");
    let deliveries = receiver.wait_for(4).await;
    assert_eq!(deliveries[3].body, element("2"));
    let mut bodies: Vec<Value> =
        deliveries[..3].iter().map(|delivery| delivery.json()["id"].clone()).collect();
    bodies.sort_by_key(ToString::to_string);
    assert_eq!(bodies, ["1", "2", "3"]);
}
