//! Content that a signature does not cover is refused, where a provider's scheme would accept it.

use grapnel_testing::WebhookRequest;
use grapnel_testing::signer::Signer;
use serde_json::{Value, json};

use super::super::harness::Platform;
use super::handshakes::scheme;
use super::{SendTo, documents};

fn item(reference: &str, signature: &str) -> Value {
    json!({"NotificationRequestItem": {
        "additionalData": {"hmacSignature": signature}, "amount": {"currency": "EUR", "value": 1000},
        "eventCode": "AUTHORISATION", "eventDate": "2026-01-31T10:00:00+01:00", "merchantAccountCode": "Shop",
        "merchantReference": reference, "pspReference": reference, "success": "true",
    }})
}

fn notification(items: &[Value]) -> String {
    json!({"live": "false", "notificationItems": items}).to_string()
}

/// Adyen signs each item. The scheme verifies the first, so nothing may come after it.
#[tokio::test]
async fn adyen_body_with_a_second_item_is_refused_and_the_answer_names_it() {
    let platform = Platform::new().await;
    let signer = Signer::new(&scheme("adyen"));
    let spec = json!({"provider": "adyen", "verification": {}});
    platform.apply(&documents("adyen", spec, &[&signer.secret])).await;
    let _api = platform.start(&["api"]);
    platform.wait_until_known("adyen").await;
    let post = async |body: &str| {
        let request =
            WebhookRequest::new("POST", "adyen").header("content-type", "application/json").body(body);
        signer.sign(&request, |signature| signature).send(&platform).await
    };
    let (signed, unsigned) = (item("first", "@signature@"), item("second", "AAAA"));
    let alone = notification(std::slice::from_ref(&signed));
    let twice = alone.replace(r#""live""#, &format!(r#""notificationItems":[{signed}],"live""#));
    for body in [
        notification(&[signed.clone(), unsigned.clone()]),
        notification(&[signed.clone(), signed.clone()]),
        notification(&[signed.clone(), Value::Null]),
        notification(&[signed.clone(), unsigned.clone(), unsigned.clone()]),
        // Of two members with one name, the last one is used, here and for receivers.
        notification(&[signed.clone(), unsigned.clone()])
            .replace(r#"{"live""#, r#"{"notificationItems":[],"live""#),
    ] {
        let refused = post(&body).await;
        assert_eq!(refused.status, 401, "{body}: {refused:?}");
        assert!(
            refused.text.contains("notificationItems.1 is not signed and must not be set"),
            "{refused:?}"
        );
    }
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 0);
    assert_eq!((post(&alone).await.status, post(&twice).await.status), (200, 200));
}
