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
