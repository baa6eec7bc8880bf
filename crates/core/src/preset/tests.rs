use std::collections::BTreeSet;

use grapnel_crds::{Document, parse_documents};

use super::*;
use crate::compiled_provider::Compiled;

#[test]
fn every_file_is_embedded_under_its_providers_name() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("presets");
    let files: BTreeSet<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    let embedded: BTreeSet<String> = PRESETS.iter().map(|(name, _)| format!("{name}.yaml")).collect();
    assert_eq!(files, embedded);
    assert!(
        presets::NAMES.iter().eq(PRESETS.iter().map(|(name, _)| name)),
        "the names that the definition has"
    );
    for (name, text) in PRESETS {
        let preset: Preset = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(&*preset.provider, name);
        assert!(find(name).is_some());
        assert!(preset.documentation.starts_with("https://"), "{name}");
        assert!(!preset.setup.is_empty() && !preset.secret.is_empty() && !preset.name.is_empty(), "{name}");
    }
    assert!(find("initech").is_none());
}

/// What a preset says can be said by an Integration, within the same bounds and rules, and comes to the same.
#[test]
fn every_preset_can_be_written_as_a_custom_provider() {
    for (name, text) in PRESETS {
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
        let mut preset = custom.clone();
        preset.spec.provider = name.to_owned();
        preset.spec.verification.scheme = None;
        preset.spec.mapping = None;
        preset.spec.handshakes = Vec::new();
        preset.spec.acknowledgement = None;
        assert_eq!(resolve(&custom.spec), resolve(&preset.spec), "{name}");
    }
}

#[test]
fn a_field_of_the_integration_goes_before_the_presets_alone() {
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
    let provider = resolve(&object.spec).expect("a provider");
    let signature = provider.scheme.signature.expect("a signature");
    assert_eq!(signature.prefix.as_deref(), Some("sha256="));
    assert_eq!(signature.from.as_deref(), Some("header:x-acme-signature"));
    assert_eq!(provider.mapping.subject, ["/data/number"]);
    assert_eq!(provider.mapping.payload.as_deref(), Some("/data"));
}

#[test]
fn no_preset_has_a_timestamp_that_proves_nothing() {
    for (name, _) in PRESETS {
        let preset = find(name).expect("a preset");
        let secret = grapnel_testing::secret::test_secret(&preset.verification);
        let compiled =
            Compiled::of_preset(&preset, &[secret]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(compiled.verifier.warning(), None, "{name}");
    }
}
