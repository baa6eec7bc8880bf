use std::collections::BTreeSet;

use grapnel_crds::presets;

use super::behavior::Retries;
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

fn every_preset() -> impl Iterator<Item = Arc<Preset>> {
    providers().into_iter().map(|name| find(name).expect("a preset"))
}

#[test]
fn every_preset_says_what_was_read_and_when() {
    for preset in every_preset() {
        let name = &preset.provider;
        assert!(!preset.sources.is_empty(), "{name} names no source");
        for source in &preset.sources {
            assert!(source.url.starts_with("https://"), "{name}: {}", source.url);
            assert!(
                source.read >= jiff::civil::date(2026, 1, 1),
                "{name}: {} was read {}",
                source.url,
                source.read
            );
            assert!(!source.topics.is_empty(), "{name}: {} was read for nothing", source.url);
        }
    }
}

#[test]
fn a_preset_takes_an_id_if_and_only_if_its_provider_sends_one() {
    for preset in every_preset() {
        let sources = &preset.mapping.external_event_id;
        let takes_none = sources.is_empty() || *sources == ["request"];
        assert_eq!(
            preset.behavior.event_id == EventIdOrigin::None,
            takes_none,
            "{}: {sources:?}",
            preset.provider
        );
    }
}

/// An Integration keeps its events for a day at least, and for so long a repeat is recognized by its key. A tolerance counts in
/// both directions.
const LONGEST_TOLERANCE: i64 = 86_400 / 2 - 1;

#[test]
fn no_signature_is_accepted_for_longer_than_events_are_kept() {
    for preset in every_preset() {
        let timestamp = preset.verification.timestamp.as_ref();
        let tolerance = timestamp.and_then(|timestamp| timestamp.tolerance_seconds).unwrap_or(300);
        assert!(i64::from(tolerance) <= LONGEST_TOLERANCE, "{}: {tolerance} s", preset.provider);
    }
}

/// A repetition with its first timestamp must still be within the tolerance; one that is signed anew needs no more than the
/// common five or ten minutes, and a longer tolerance would only help whoever replays requests.
#[test]
fn every_tolerance_fits_the_retries_of_its_provider() {
    const USUAL_TOLERANCE: i64 = 600;
    for preset in every_preset() {
        let Preset { provider, verification, behavior, .. } = &*preset;
        let Retries { window, timestamps } = behavior.retries;
        let Some(timestamp) = &verification.timestamp else {
            assert_eq!(timestamps, AttemptTimestamps::None, "{provider} signs no time that is checked");
            continue;
        };
        let tolerance = i64::from(timestamp.tolerance_seconds.unwrap_or(300));
        match (timestamps, window) {
            (AttemptTimestamps::First, RetryWindow::For(window)) => {
                let needed = window.as_secs().min(LONGEST_TOLERANCE);
                assert!(
                    tolerance >= needed,
                    "{provider} repeats for {needed} s, but {tolerance} s are tolerated"
                );
            }
            (AttemptTimestamps::First, _) => panic!("{provider} repeats its first time for an unknown time"),
            (AttemptTimestamps::None, window) => {
                assert_eq!(
                    window,
                    RetryWindow::None,
                    "{provider} repeats requests that are signed with a time"
                );
            }
            (AttemptTimestamps::Each | AttemptTimestamps::Unknown, _) => {
                assert!(tolerance <= USUAL_TOLERANCE, "{provider} tolerates {tolerance} s without need");
            }
        }
    }
}

#[test]
fn a_request_that_the_preset_accepts_has_a_content_type_of_the_provider() {
    for preset in every_preset() {
        let types = &preset.behavior.content_types;
        let fixture = preset.fixture.headers.get("content-type").expect("a content type");
        let fixture = fixture.split(';').next().expect("a first part");
        assert!(
            types.is_empty() || types.iter().any(|kind| kind == fixture),
            "{}: {fixture}",
            preset.provider
        );
    }
}
