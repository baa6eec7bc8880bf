use serde_json::{Value, json};

use super::*;
use crate::delivery::service_endpoints::ServiceEndpoints;
use crate::ids::IntegrationId;
use crate::integration::RowState;

/// The value of the Secret `s` under the key.
fn value(key: &str) -> Vec<u8> {
    match key {
        "token" => b"t0ken".to_vec(),
        "broken" => b"a\nb".to_vec(),
        "colon" => b"a:b".to_vec(),
        key => key.as_bytes().to_vec(),
    }
}

fn compiled(provider: &str, fields: Value) -> Result<CompiledDestination, CompileError> {
    let mut spec = json!({"name": "orders", "url": "https://orders.example.com/hooks"});
    let (Value::Object(spec_fields), Value::Object(fields)) = (&mut spec, fields) else { panic!("objects") };
    spec_fields.extend(fields);
    let spec: Destination = serde_json::from_value(spec).expect("a destination");
    let sent = spec.sent_refs().into_iter().filter(|(_, secret_ref)| secret_ref.key != "none");
    let sent = sent.map(|(_, secret_ref)| (secret_ref.clone(), Zeroizing::new(value(&secret_ref.key))));
    let secrets = IntegrationSecrets::new([], Default::default(), None).with_sent(sent.collect());
    CompiledDestination::new(&spec, &row(provider), &ServiceEndpoints::default(), &secrets)
}

fn row(provider: &str) -> IntegrationRow {
    IntegrationRow {
        id: IntegrationId::new(uuid::Uuid::nil()),
        uid: String::new(),
        namespace: "shop".to_owned(),
        name: "orders".to_owned(),
        generation: 1,
        writer_epoch: 1,
        provider: provider.to_owned(),
        route: "orders".to_owned(),
        display_name: "orders".to_owned(),
        state: RowState::Active,
        spec: String::new(),
        secrets: Vec::new(),
        gone: Vec::new(),
        endpoints: None,
    }
}

fn headers(fields: Value) -> Vec<(String, String)> {
    let headers = compiled("acme", fields).expect("a destination").target.own_headers;
    let text = |value: &HeaderValue| value.to_str().expect("text").to_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// Returns the chain of messages of the refusal.
fn refusal(fields: Value) -> String {
    crate::error_chain::chain(&compiled("acme", fields).expect_err("it cannot be used")).to_string()
}

#[test]
fn headers_have_their_values_with_what_comes_before_them() {
    let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let fields = json!({"headers": [
        {"name": "X-Team", "value": "payments"},
        {"name": "Authorization", "prefix": "Bearer ", "valueFrom": {"name": "s", "key": "token"}},
    ]});
    assert_eq!(headers(fields), [named("x-team", "payments"), named("authorization", "Bearer t0ken")]);
    let basic = json!({"auth": {"basic": {
        "usernameRef": {"name": "s", "key": "Aladdin"}, "passwordRef": {"name": "s", "key": "open sesame"},
    }}});
    assert_eq!(headers(basic), [named("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")]);
}

#[test]
fn what_cannot_be_sent_is_refused_without_repeating_it() {
    let header = |key: &str| json!({"headers": [{"name": "x", "valueFrom": {"name": "s", "key": key}}]});
    assert_eq!(
        refusal(header("broken")),
        "a secret of destination orders cannot be used: the value of headers[0] cannot be sent in a header: it must be visible ASCII"
    );
    assert!(refusal(header("none")).ends_with("the value of headers[0].valueFrom is missing"));
    let basic = json!({"auth": {"basic": {
        "usernameRef": {"name": "s", "key": "colon"}, "passwordRef": {"name": "s", "key": "p"},
    }}});
    assert!(refusal(basic).ends_with("the user name of auth.basic must not contain a colon"));
    let tls = json!({"tls": {"caRef": {"name": "s"}}});
    assert!(refusal(tls).ends_with("the value of tls.caRef has no certificate in PEM"));
}

#[test]
fn nothing_printed_contains_a_secret() {
    let fields = json!({
        "headers": [{"name": "x-key", "valueFrom": {"name": "s", "key": "token"}}],
        "auth": {"oauth2": {
            "tokenUrl": "https://login.example.com/token",
            "clientIdRef": {"name": "s", "key": "token"}, "clientSecretRef": {"name": "s", "key": "token"},
        }},
    });
    let compiled = compiled("acme", fields).expect("a destination");
    let printed =
        format!("{compiled:?} {:?} {:?}", compiled.target.own_headers, compiled.target.token_request);
    assert!(!printed.contains("t0ken"), "{printed}");
}

#[test]
fn the_headers_of_the_preset_are_sent_on_with_the_body_as_it_came() {
    let forwarded = |provider: &str, fields: Value, form| {
        let forwarded = compiled(provider, fields).expect("a destination").forwarded;
        forwarded.names(form).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let of_github = ["x-github-event", "x-github-delivery"];
    assert_eq!(forwarded("github", json!({}), DeliveredAs::Raw)[..2], of_github);
    for form in [DeliveredAs::Normalized, DeliveredAs::CloudEvent, DeliveredAs::CloudEventBinary] {
        assert!(forwarded("github", json!({}), form).is_empty());
        assert_eq!(forwarded("github", json!({"forwardHeaders": ["X-A"]}), form), ["x-a"]);
    }
    assert!(forwarded("github", json!({"forwardHeaders": []}), DeliveredAs::Raw).is_empty());
    assert!(forwarded("custom", json!({}), DeliveredAs::Raw).is_empty());
}

#[test]
fn a_service_is_called_by_its_name_in_the_namespace_of_the_integration() {
    let fields =
        json!({"url": null, "service": {"name": "orders", "port": 8443, "path": "/a", "scheme": "https"}});
    let target = compiled("acme", fields).expect("a destination").target;
    assert_eq!(target.url.as_str(), "https://orders.shop.svc:8443/a");
}
