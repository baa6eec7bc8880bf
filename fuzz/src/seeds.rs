//! The seeds of the corpora: every preset's fixture as a request, every preset as an Integration of its own, and the documented filters.

use std::collections::BTreeSet;
use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use grapnel_core::preset::{self, Preset};
use serde_json::{Value, json};

use crate::signer::NOW;

/// Returns the fixture as the text of a request, not yet signed.
pub fn request(preset: &Preset) -> String {
    let timed = |text: &str| {
        text.replace("@now@", &NOW.to_string())
            .replace("@nowMs@", &format!("{NOW}000"))
            .replace("@nowIso@", "2026-01-31T09:00:00Z")
    };
    let fixture = &preset.fixture;
    let query = fixture.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let headers: String =
        fixture.headers.iter().map(|(name, value)| format!("{name}: {}\n", timed(value))).collect();
    format!("POST /api/v1/webhooks/{}{query}\n{headers}\n{}", preset.provider, timed(&fixture.body))
}

/// Returns the parts of a spec that the preset defines.
pub fn parts(name: &str) -> Value {
    let text = preset::text(name).expect("a preset");
    let yaml: Value = serde_saphyr::from_str(text).expect("YAML");
    let mut parts = json!({"scheme": yaml["verification"], "mapping": yaml["mapping"]});
    for field in ["handshakes", "acknowledgement"] {
        if !yaml[field].is_null() {
            parts[field] = yaml[field].clone();
        }
    }
    parts
}

/// Returns an Integration with these parts.
pub fn integration(provider: &str, parts: &Value) -> Value {
    let mut spec = json!({
        "provider": provider,
        "verification": {"secretRef": {"name": "s"}},
        "destinations": [{"name": "d", "url": "https://receiver.example"}],
    });
    for (field, value) in parts.as_object().into_iter().flatten() {
        match field.as_str() {
            "scheme" | "toleranceSeconds" | "url" => spec["verification"][field] = value.clone(),
            _ => spec[field] = value.clone(),
        }
    }
    json!({
        "apiVersion": "grapnel.dev/v1alpha1", "kind": "Integration", "metadata": {"name": "i"}, "spec": spec,
    })
}

/// Returns requests with a form, with parts, and with a content coding, by name.
pub fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    let form = b"token=a-token-that-nobody-guesses&payload=%7B%22id%22%3A1%2C%22type%22%3A%22t%22%7D&x=1";
    let parts =
        b"--b\r\ncontent-disposition: form-data; name=\"token\"\r\n\r\na-token-that-nobody-guesses\r\n\
        --b\r\ncontent-disposition: form-data; name=\"payload\"\r\n\r\n{\"id\":\"1\"}\r\n\
        --b\r\ncontent-disposition: form-data; name=\"f\"; filename=\"a\"\r\n\r\n\0\r\n--b--\r\n";
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    let encoded = gzip.write_all(form).and_then(|()| zlib.write_all(form));
    encoded.expect("memory");
    let request = |headers: &str, body: &[u8]| [b"POST /\n", headers.as_bytes(), b"\n", body].concat();
    let (form_type, parts_type) = (
        "content-type: application/x-www-form-urlencoded\n",
        "content-type: multipart/form-data; boundary=b\n",
    );
    let coded = |coding: &str| format!("{form_type}content-encoding: {coding}\n");
    vec![
        ("form", request(form_type, form)),
        ("parts", request(parts_type, parts)),
        ("gzip", request(&coded("gzip"), &gzip.finish().expect("memory"))),
        ("deflate", request(&coded("deflate"), &zlib.finish().expect("memory"))),
    ]
}

/// Returns the words of such requests.
pub fn body_words() -> BTreeSet<String> {
    let words = [
        "content-encoding: gzip",
        "content-encoding: deflate",
        "deflate, gzip",
        "multipart/form-data",
        "boundary=b",
        "--b",
        "--b--",
        "content-disposition: form-data; name=",
        "filename=",
        "payload",
        "token",
        "a-token-that-nobody-guesses",
    ];
    words.into_iter().map(str::to_owned).collect()
}

/// Returns the filters of the documentation, each with the payload of its first case after a zero byte.
pub fn filters() -> Vec<String> {
    let text = include_str!("../../docs/filters.md");
    let examples = text.split("```cel\n").skip(1).filter_map(|example| {
        let (source, rest) = example.split_once("\n```")?;
        let (_, cases) = rest.split_once("```json\n")?;
        let (cases, _) = cases.split_once("```")?;
        let cases: Value = serde_json::from_str(cases).ok()?;
        Some(format!("{source}\0{}", cases[0]["payload"]))
    });
    examples.collect()
}

/// Returns the words of expressions.
pub fn filter_words() -> BTreeSet<String> {
    let words = "event payload headers id type subject provider externalId occurredAt has in all exists exists_one map filter size \
        contains startsWith endsWith matches int uint double string bytes bool dyn timestamp duration getHours getFullYear true false \
        null && || == != <= >= ? : .? [? orValue hasValue value or 1u 1.5 b'x' r'x' -9223372036854775808";
    words.split_whitespace().map(str::to_owned).collect()
}
