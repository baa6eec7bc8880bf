//! Any body, split at the paths of a preset or at others.
//!
//! Nothing panics. Every event is a part of the body, and the parts are those that a parser of the whole finds. Two events have the
//! same identity only if they are the same JSON, apart from a field of the attempt.
//!
//! The input is a number (of the paths) and a body.

#![no_main]

use std::collections::HashMap;
use std::sync::LazyLock;

use grapnel_core::mapping::{FormerMapping, Identity, Mapper};
use grapnel_core::payload::BodyForm;
use grapnel_core::preset;
use grapnel_core::request::IncomingRequest;
use grapnel_core::request::json::MAX_ELEMENTS;
use grapnel_crds::Mapping;
use http::{HeaderMap, Method, Uri};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// The field that tells of the attempt, where there is one.
const ATTEMPT: &str = "a";

struct Subject {
    paths: Vec<Vec<String>>,
    has_attempt: bool,
    mapper: Mapper,
}

static SUBJECTS: LazyLock<Vec<Subject>> = LazyLock::new(|| {
    let presets = preset::providers().into_iter().filter_map(preset::find);
    let mut splits: Vec<Vec<String>> =
        presets.map(|preset| preset.mapping.split.clone()).filter(|split| !split.is_empty()).collect();
    for paths in [&["/*/*"][..], &["/a/*/b/*", "/a/*/c/*", "/d/*"], &["/0/*", "/1/a/*"], &["/a~1b/*/~0"]] {
        splits.push(paths.iter().map(|path| (*path).to_owned()).collect());
    }
    let subjects =
        splits.into_iter().flat_map(|split| [false, true].map(|has_attempt| (split.clone(), has_attempt)));
    subjects.map(|(split, has_attempt)| Subject::new(split, has_attempt)).collect()
});

impl Subject {
    fn new(split: Vec<String>, has_attempt: bool) -> Self {
        let unescape = |segment: &str| segment.replace("~1", "/").replace("~0", "~");
        let paths = split.iter().map(|path| path.split('/').skip(1).map(unescape).collect()).collect();
        let attempt_fields = if has_attempt { vec![format!("element:/{ATTEMPT}")] } else { Vec::new() };
        let mapping =
            Mapping { split, attempt_fields, event_type: vec!["literal:t".to_owned()], ..Mapping::default() };
        let mapper = Mapper::new(&mapping, &FormerMapping::default()).expect("a mapping");
        Self { paths, has_attempt, mapper }
    }
}

/// Collects the parts at the paths, from a parsed value: an item in which no path goes on is one itself.
fn parts<'v>(value: &'v Value, paths: &[&[String]], found: &mut Vec<&'v Value>) {
    if paths.iter().any(|path| path.is_empty()) {
        return found.push(value);
    }
    let below = |segment: &str| -> Vec<&[String]> {
        paths.iter().filter(|path| path[0] == segment).map(|path| &path[1..]).collect()
    };
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if name != "*" && paths.iter().any(|path| path[0] == *name) {
                    parts(member, &below(name), found);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let by_index = below(&index.to_string());
                let paths = if by_index.is_empty() { below("*") } else { by_index };
                if paths.is_empty() {
                    continue;
                }
                let before = found.len();
                parts(item, &paths, found);
                if found.len() == before {
                    found.push(item);
                }
            }
        }
        _ => {}
    }
}

fuzz_target!(|input: &[u8]| {
    let [number, body @ ..] = input else { return };
    let subject = &SUBJECTS[usize::from(*number) % SUBJECTS.len()];
    let (method, uri, headers) = (Method::POST, Uri::from_static("/"), HeaderMap::new());
    let request = IncomingRequest {
        method: &method,
        uri: &uri,
        headers: &headers,
        body,
        encoded_body: None,
        form: None,
        public_url: None,
        json: None,
    };
    let Ok(split) = subject.mapper.split(&request, body, BodyForm::Json) else { return };
    let events: Vec<_> = split.iter().flat_map(|split| split.events().collect::<Vec<_>>()).collect();
    assert!(events.len() <= MAX_ELEMENTS);
    let mut by_identity: HashMap<String, Value> = HashMap::new();
    let mut values = Vec::new();
    for event in &events {
        let part = &body[event.payload.clone()];
        // What this parser refuses, such as a number out of range, has no value to compare.
        let Ok(value) = serde_json::from_slice::<Value>(part) else { return };
        let Identity { name, .. } = &event.identity;
        let mut counted = value.clone();
        if let (true, Value::Object(members)) = (subject.has_attempt, &mut counted) {
            members.remove(ATTEMPT);
        }
        let known = by_identity.entry(format!("{name:?}")).or_insert_with(|| counted.clone());
        assert_eq!(*known, counted, "two events have one identity");
        values.push(value);
    }
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let Ok(whole) = serde_json::from_slice::<Value>(text) else { return };
    let (paths, mut expected): (Vec<&[String]>, _) =
        (subject.paths.iter().map(Vec::as_slice).collect(), Vec::new());
    parts(&whole, &paths, &mut expected);
    // Of a repeated member the parser keeps the last, and members come in the order of their names.
    assert!(values.len() >= expected.len(), "an element is missing");
    assert!(expected.iter().all(|part| values.contains(part)), "an element is missing");
});
