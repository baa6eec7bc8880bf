use grapnel_crds::{Document, parse_documents};

use super::*;

/// An Integration can state all that a preset does, within the same bounds and rules and with the same result.
#[test]
fn every_preset_can_be_written_as_a_custom_provider() {
    for name in preset::providers() {
        let text = preset::text(name).expect("a preset");
        let yaml: serde_json::Value = serde_saphyr::from_str(text).expect("YAML");
        let mut spec = serde_json::json!({
            "provider": "custom",
            "verification": {"secretRef": {"name": "s"}, "scheme": yaml["verification"]},
            "mapping": yaml["mapping"],
            "destinations": [{"name": "d", "url": "https://receiver.example"}],
        });
        for field in ["handshakes", "acknowledgement"] {
            if !yaml[field].is_null() {
                spec[field] = yaml[field].clone();
            }
        }
        let object = serde_json::json!({
            "apiVersion": "grapnel.dev/v1alpha1", "kind": "Integration", "metadata": {"name": "i"}, "spec": spec,
        });
        let documents =
            parse_documents(&object.to_string()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let Some(Document::Integration(custom)) = documents.into_iter().next() else { panic!("{name}") };
        assert_eq!(custom.validate(), [], "{name}");
        let mut of_preset = custom.clone();
        of_preset.spec.provider = name.to_owned();
        of_preset.spec.verification.scheme = None;
        of_preset.spec.mapping = None;
        of_preset.spec.handshakes = Vec::new();
        of_preset.spec.acknowledgement = None;
        assert_eq!(ResolvedProvider::new(&custom.spec), ResolvedProvider::new(&of_preset.spec), "{name}");
    }
}

#[test]
fn a_field_of_the_integration_takes_precedence_over_the_same_field_of_the_preset() {
    let text = r#"
apiVersion: grapnel.dev/v1alpha1
kind: Integration
metadata: {name: i}
spec:
  provider: acme
  verification: {secretRef: {name: s}, scheme: {signature: {prefix: "sha256="}}}
  mapping: {subject: [/data/number]}
  destinations: [{name: d, url: "https://receiver.example"}]
"#;
    let documents = parse_documents(text).expect("documents");
    let Some(Document::Integration(object)) = documents.into_iter().next() else { panic!("no Integration") };
    let provider = ResolvedProvider::new(&object.spec).expect("a provider");
    let signature = provider.scheme.signature.expect("a signature");
    assert_eq!(signature.prefix.as_deref(), Some("sha256="));
    assert_eq!(signature.from.as_deref(), Some("header:x-acme-signature"));
    assert_eq!(provider.mapping.subject, ["/data/number"]);
    assert_eq!(provider.mapping.payload.as_deref(), Some("/data"));
}
