//! Signatures that were made by other implementations, through the real route.
//!
//! `tests/vectors/signatures.json` is written by the script next to it and always read. GRAPNEL_PROVIDER_VECTORS names a
//! further file of the same form.

use std::collections::BTreeMap;
use std::path::PathBuf;

use grapnel_testing::WebhookRequest;
use grapnel_testing::signer::Signer;
use serde_json::{Value, json};

use super::super::harness::Platform;
use super::handshakes::scheme;
use super::{SendTo, documents};

struct Vector {
    id: String,
    json: Value,
}

fn vectors(path: &PathBuf) -> Vec<Vector> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let all: Vec<Value> = serde_json::from_str(&text).expect("a list");
    let signatures = all.into_iter().filter(|vector| vector["kind"] == "signature");
    signatures.map(|json| Vector { id: json["id"].as_str().expect("an id").to_owned(), json }).collect()
}

impl Vector {
    fn route(&self) -> String {
        self.id.to_ascii_lowercase().replace(['.', '_'], "-")
    }

    fn secrets(&self) -> Vec<String> {
        let secrets = self.json["secrets"].as_array().expect("a list").iter();
        secrets.map(|secret| self.secret(secret.as_str().expect("a text"))).collect()
    }

    /// Adds the topic of the body to a certificate alone: the secret must name it.
    fn secret(&self, secret: &str) -> String {
        if self.json["scheme"]["type"] != "builtin:aws-sns" || !secret.starts_with("-----BEGIN") {
            return secret.to_owned();
        }
        let body: Value = serde_json::from_str(self.json["body"].as_str().expect("a body")).expect("JSON");
        format!("{}\n{secret}", body["TopicArn"].as_str().expect("a topic"))
    }

    fn documents(&self) -> String {
        let secrets = self.secrets();
        documents(&self.route(), self.spec(), &secrets.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn spec(&self) -> Value {
        let mut scheme = self.json["scheme"].clone();
        // The age of a vector without a tolerance was not verified.
        if scheme["timestamp"].is_object() && scheme["timestamp"]["toleranceSeconds"].is_null() {
            scheme["timestamp"]["toleranceSeconds"] = json!(0);
        }
        let mut verification = json!({"scheme": scheme});
        if let Some(url) = self.json["url"].as_str() {
            verification["url"] = json!(url.split('?').next());
        }
        json!({
            "provider": "custom",
            "verification": verification,
            "ingress": {"maxBodyBytes": 2097152},
            "mapping": {"externalEventId": ["request"], "eventType": ["literal:t"], "accept": ["opaque"]},
        })
    }

    fn request(&self) -> WebhookRequest {
        let mut request = WebhookRequest::new(self.json["method"].as_str().expect("a method"), &self.route());
        request.query =
            self.json["url"].as_str().and_then(|url| url.split_once('?')).map(|(_, query)| query.to_owned());
        for (name, value) in self.json["headers"].as_object().expect("headers") {
            request = request.header(name, value.as_str().expect("a text"));
        }
        // Every body is opaque here; only a form needs its content type.
        request.body = match self.json["bodyEncoding"].as_str().expect("an encoding") {
            "utf8" => self.json["body"].as_str().expect("a body").as_bytes().to_vec(),
            "hex" => hex::decode(self.json["body"].as_str().expect("a body")).expect("hex"),
            "repeat" => {
                let repeat = &self.json["bodyRepeat"];
                let count = usize::try_from(repeat["count"].as_u64().expect("a count")).expect("small");
                repeat["text"].as_str().expect("a text").repeat(count).into_bytes()
            }
            other => panic!("{}: {other}", self.id),
        };
        request
    }

    fn now(&self) -> Option<i64> {
        self.json["now"].as_f64().map(|now| now as i64)
    }
}

async fn check(all: Vec<Vector>, at_least: usize) {
    assert!(all.len() >= at_least, "{}", all.len());
    let mut platform = Platform::new().await;
    let (empty, usable): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|vector| vector.secrets().iter().any(|secret| secret.is_empty()));
    for vector in &empty {
        assert_eq!(vector.json["expected"], "invalid");
        let path = platform.write_integrations(&vector.documents());
        let output = platform.try_run(&["apply", "--file", path.to_str().expect("a path")]).await;
        assert!(!output.status.success(), "{}: an empty secret was loaded", vector.id);
    }
    let yaml: String = usable.iter().map(|vector| vector.documents()).collect();
    platform.apply(&yaml).await;
    let mut by_time: BTreeMap<Option<i64>, Vec<&Vector>> = BTreeMap::new();
    for vector in &usable {
        by_time.entry(vector.now()).or_default().push(vector);
    }
    let mut wrong = Vec::new();
    for (now, vectors) in by_time {
        let moment = now.map(|now| jiff::Timestamp::from_second(now).expect("a time").to_string());
        platform.set("GRAPNEL_VERIFICATION_CLOCK", &moment.unwrap_or_default());
        let api = platform.start(&["api"]);
        platform.wait_until_known(&vectors[0].route()).await;
        for vector in vectors {
            let answer = vector.request().send(&platform).await;
            let expected = if vector.json["expected"] == "valid" { 202 } else { 401 };
            if answer.status != expected {
                wrong.push(format!("{}: {} and not {expected}: {}", vector.id, answer.status, answer.text));
            }
        }
        drop(api);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn signatures_of_an_independent_implementation_are_verified() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/signatures.json");
    check(vectors(&path), 100).await;
}

#[tokio::test]
async fn further_vectors_are_verified_if_there_are_some() {
    let Some(path) = std::env::var_os("GRAPNEL_PROVIDER_VECTORS") else {
        eprintln!("GRAPNEL_PROVIDER_VECTORS is not set");
        return;
    };
    check(vectors(&path.into()), 1).await;
}

/// Handshakes of the presets. The vectors have no signatures, so signed handshakes are signed here.
#[tokio::test]
async fn further_handshakes_are_answered_as_published_if_there_are_some() {
    let Some(path) = std::env::var_os("GRAPNEL_PROVIDER_VECTORS") else {
        eprintln!("GRAPNEL_PROVIDER_VECTORS is not set");
        return;
    };
    let all: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(path).expect("a file")).expect("a list");
    let all: Vec<Value> = all.into_iter().filter(|vector| vector["kind"] == "handshake").collect();
    let provider = |vector: &Value| vector["provider"].as_str().expect("a provider").to_owned();
    let signer = |vector: &Value| {
        let secret = vector["secrets"][0].as_str().unwrap_or("a-secret-of-the-provider-0123456");
        Signer::with(&scheme(&provider(vector)), secret)
    };
    let yaml: String = all
        .iter()
        .map(|vector| {
            let provider = provider(vector);
            documents(&provider, json!({"provider": provider, "verification": {}}), &[&signer(vector).secret])
        })
        .collect();
    let platform = Platform::new().await;
    platform.apply(&yaml).await;
    let _api = platform.start(&["api"]);
    platform.wait_until_known(&provider(&all[0])).await;
    for vector in &all {
        let (asked, expected) = (&vector["request"], &vector["response"]);
        let mut request = WebhookRequest::new(asked["method"].as_str().expect("a method"), &provider(vector));
        request = request.body(asked["body"].as_str().unwrap_or_default());
        for (name, value) in asked["headers"].as_object().into_iter().flatten() {
            request = request.header(name, value.as_str().expect("a text"));
        }
        for (name, value) in asked["query"].as_object().into_iter().flatten() {
            request = request.query(&format!("{name}={}", value.as_str().expect("a text")));
        }
        let preset = scheme(&provider(vector));
        if let Some(name) = preset["timestamp"]["from"].as_str().and_then(|from| from.strip_prefix("header:"))
        {
            request = request.header(name, "@now@");
        }
        if request.method == "POST" && provider(vector) != "woocommerce" {
            request = signer(vector).sign(&request, |signature| signature);
        }
        let answer = request.send(&platform).await;
        assert_eq!(u64::from(answer.status), expected["status"], "{vector}: {answer:?}");
        for (name, value) in expected["headers"].as_object().into_iter().flatten() {
            // The rate is our choice.
            let is_rate = name.to_ascii_lowercase().ends_with("-rate");
            assert!(
                if is_rate { !answer.header(name).is_empty() } else { answer.header(name) == value },
                "{name}: {answer:?}"
            );
        }
        match expected["body"].as_str() {
            Some("") | None => assert_eq!(answer.text, "", "{vector}"),
            Some(body) => {
                assert_eq!(answer.json(), serde_json::from_str::<Value>(body).expect("JSON"), "{vector}")
            }
        }
    }
}
