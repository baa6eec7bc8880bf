//! Tokens in the elements of a request.

use serde_json::json;

use super::{PATH, element};
use crate::harness::Platform;
use crate::providers::documents;

#[tokio::test]
async fn every_element_must_have_a_token_that_is_known_and_none_is_stored() {
    let platform = Platform::new().await;
    let spec = json!({
        "provider": "custom",
        "verification": {"scheme": {"type": "token", "signature": {"from": "element:/token"}}},
        "mapping": {"split": ["/items/*"], "eventType": ["literal:t"], "subject": ["element:/token"]},
    });
    platform.apply(&documents("list", spec, &["token-current", "token-previous"])).await;
    let _api = platform.start(&["api"]);
    platform.wait_until_known("list").await;
    let post = async |tokens: &[&str]| {
        let items: Vec<String> = tokens
            .iter()
            .enumerate()
            .map(|(number, token)| {
                element(&number.to_string()).replacen('{', &format!(r#"{{"token":{token},"#), 1)
            })
            .collect();
        let body = format!(r#"{{"items":[{}]}}"#, items.join(","));
        platform.post(PATH, &[("content-type", "application/json")], &body).await
    };
    for refused in [
        &[r#""token-current""#, r#""token-wrong""#][..],
        &[r#""token-wrong""#, r#""token-current""#],
        &[r#""token-current""#, "null"],
        &["{}"],
        &[],
    ] {
        assert_eq!(post(refused).await.status, 401, "{refused:?}");
    }
    // More than a scheme has candidates for.
    let mut many = vec![r#""token-current""#; 40];
    many.push(r#""token-wrong""#);
    assert_eq!(post(&many).await.status, 401);
    many.pop();
    many.push(r#""token-previous""#);
    assert_eq!(post(&many).await.status, 202);
    assert_eq!(platform.count("SELECT count(*) FROM events WHERE secret_index = 1").await, 41);
    let shown = "SELECT count(*) FROM event_requests WHERE convert_from(raw_body, 'UTF8') LIKE '%token-%'";
    assert_eq!(platform.count(shown).await, 0);
    assert_eq!(platform.count("SELECT count(*) FROM events WHERE subject LIKE '%token%'").await, 0);
}
