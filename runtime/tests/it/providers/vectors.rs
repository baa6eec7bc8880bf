//! Signatures that were made by other implementations, through the real route.
//!
//! `tests/vectors/signatures.json` is made by the script beside it and always read. GRAPNEL_PROVIDER_VECTORS names a further
//! file of the same form.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::harness::Platform;
use super::{Sent, documents};

struct Vector {
    id: String,
    json: Value,
}

fn vectors(path: &PathBuf) -> Vec<Vector> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let all: Vec<Value> = serde_json::from_str(&text).expect("a list");
    let signatures = all.into_iter().filter(|vector| vector["kind"] == "signature");
    let expressed = signatures
        .filter(|vector| !vector["scheme"]["type"].as_str().expect("a type").starts_with("builtin:"));
    expressed.map(|json| Vector { id: json["id"].as_str().expect("an id").to_owned(), json }).collect()
}

impl Vector {
    fn route(&self) -> String {
        self.id.to_ascii_lowercase().replace(['.', '_'], "-")
    }

    fn secrets(&self) -> Vec<&str> {
        self.json["secrets"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|secret| secret.as_str().expect("a text"))
            .collect()
    }

    fn spec(&self) -> Value {
        let mut scheme = self.json["scheme"].clone();
        // Where a vector names no tolerance, its age was not judged.
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

    fn request(&self) -> Sent {
        let mut request = Sent::new(self.json["method"].as_str().expect("a method"), &self.route());
        request.query =
            self.json["url"].as_str().and_then(|url| url.split_once('?')).map(|(_, query)| query.to_owned());
        for (name, value) in self.json["headers"].as_object().expect("headers") {
            request = request.header(name, value.as_str().expect("a text"));
        }
        // Everything is opaque here; a form must say that it is one.
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
        let path = platform.write_integrations(&documents(&vector.route(), vector.spec(), &vector.secrets()));
        let output = platform.try_run(&["apply", "--file", path.to_str().expect("a path")]).await;
        assert!(!output.status.success(), "{}: an empty secret was loaded", vector.id);
    }
    let yaml: String =
        usable.iter().map(|vector| documents(&vector.route(), vector.spec(), &vector.secrets())).collect();
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
async fn signatures_of_an_independent_implementation_are_judged_right() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/signatures.json");
    check(vectors(&path), 50).await;
}

#[tokio::test]
async fn further_vectors_are_judged_right_where_there_are_some() {
    let Some(path) = std::env::var_os("GRAPNEL_PROVIDER_VECTORS") else {
        eprintln!("GRAPNEL_PROVIDER_VECTORS is not set");
        return;
    };
    check(vectors(&path.into()), 1).await;
}
