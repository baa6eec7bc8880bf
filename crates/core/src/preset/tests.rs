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

/// What a preset has sent on, an Integration may name too: no header that is refused there, and none that is not stored.
#[test]
fn the_headers_that_a_preset_has_sent_on_are_permitted() {
    let mut named = 0;
    for preset in every_preset().filter(|preset| !preset.forward_headers.is_empty()) {
        let object = serde_json::json!({
            "apiVersion": grapnel_crds::API_VERSION, "kind": grapnel_crds::KIND, "metadata": {"name": "a"},
            "spec": {
                "provider": "acme", "verification": {"secretRef": {"name": "a"}},
                "destinations": [{
                    "name": "a", "url": "https://a.example", "deliver": "raw", "forwardHeaders": preset.forward_headers,
                }],
            },
        });
        let object: grapnel_crds::Integration = serde_json::from_value(object).expect("an Integration");
        assert_eq!(object.validate(), [], "{}", preset.provider);
        let is_lower = |name: &String| *name == name.to_ascii_lowercase();
        assert!(preset.forward_headers.iter().all(is_lower), "{}", preset.provider);
        named += 1;
    }
    assert!(named > 0);
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

/// A repetition with its first timestamp must still be within the tolerance, which is the longest if nobody says for how long it is
/// repeated; one that is signed anew needs no more than the
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
            (AttemptTimestamps::First, window) => {
                let needed = match window {
                    RetryWindow::For(window) => window.as_secs().min(LONGEST_TOLERANCE),
                    RetryWindow::Unknown => LONGEST_TOLERANCE,
                    RetryWindow::None => panic!("{provider} repeats nothing with its first time"),
                };
                assert!(
                    tolerance >= needed,
                    "{provider} repeats for {needed} s, but {tolerance} s are tolerated"
                );
            }
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

/// A request of these carries several things that changed, and no description of any.
const NOT_SPLIT: [&str; 3] = [
    // The accounts for which something changed, and nothing more.
    "dropbox", // The alerts of a group, which is what fires and ends.
    "grafana", // Lists of many kinds, each with the users that all of its items refer to.
    "x",
];

#[test]
fn a_request_with_several_events_is_split_and_the_fixture_has_three() {
    for preset in every_preset() {
        let Preset { provider, mapping, behavior, fixture, .. } = &*preset;
        let is_split = !mapping.split.is_empty();
        let several = behavior.events_per_request == EventsPerRequest::Several;
        assert_eq!(several && !NOT_SPLIT.contains(&&**provider), is_split, "{provider}");
        assert_eq!(fixture.event.is_some(), !is_split, "{provider}");
        assert_eq!(fixture.events.len(), if is_split { 3 } else { 0 }, "{provider}");
    }
}
