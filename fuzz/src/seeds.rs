//! The seeds of the corpora: every preset's fixture as a request, and every preset as an Integration of its own.

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
