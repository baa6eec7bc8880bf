use std::collections::BTreeSet;

use grapnel_crds::presets;

use super::*;

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

/// An Integration keeps its events for a day at least. For so long a repeat is recognized by its key.
const SHORTEST_RETENTION_SECONDS: i32 = 86_400;

#[test]
fn a_long_tolerance_is_that_of_repeated_signatures_and_shorter_than_any_retention() {
    for name in providers() {
        let preset = find(name).expect("a preset");
        let timestamp = preset.verification.timestamp.as_ref();
        let tolerance = timestamp.and_then(|timestamp| timestamp.tolerance_seconds).unwrap_or(300);
        let has_source =
            preset.notes.iter().any(|note| note.contains("repeats") && note.contains("https://"));
        assert!(tolerance <= 600 || has_source, "{name}: {tolerance} s without a source");
        // The tolerance counts in both directions.
        assert!(tolerance * 2 < SHORTEST_RETENTION_SECONDS, "{name}: {tolerance} s");
    }
}
