//! Writes the seeds of the corpora into `seeds/TARGET`, and the words of each into `seeds/TARGET.dict`.
//!
//! Usage: seeds FOLDER

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use grapnel_core::preset;
use grapnel_crds::presets;
use grapnel_fuzz::seeds;
use serde_json::Value;

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "seeds".to_owned());
    let folder = Path::new(&folder);
    for target in ["verify", "scheme", "bodies", "split", "filter"] {
        fs::create_dir_all(folder.join(target))?;
    }
    let (mut names, mut words) = (BTreeSet::new(), BTreeSet::new());
    for (index, name) in preset::providers().into_iter().enumerate() {
        let preset = preset::find(name).expect("a preset");
        let request = seeds::request(&preset);
        for action in [0, 1, 2, 3, 33] {
            let input = [&[index as u8, action, 0, 40], request.as_bytes()].concat();
            fs::write(folder.join("verify").join(format!("{name}-{action}")), input)?;
        }
        fs::write(folder.join("bodies").join(name), &request)?;
        let body = [&[index as u8], preset.fixture.body.as_bytes()].concat();
        fs::write(folder.join("split").join(name), body)?;
        let parts = seeds::parts(name);
        let whole = seeds::integration(presets::CUSTOM, &parts);
        for (action, text) in [whole.to_string(), parts.to_string()].into_iter().enumerate() {
            let input = [&[action as u8, index as u8], text.as_bytes()].concat();
            fs::write(folder.join("scheme").join(format!("{name}-{action}")), input)?;
        }
        collect(&parts, &mut words);
        names.extend(preset.fixture.headers.keys().cloned());
        names.extend(words.iter().filter_map(|word| word.split_once(':').map(|(_, name)| name.to_owned())));
    }
    for (index, example) in seeds::filters().iter().enumerate() {
        fs::write(folder.join("filter").join(index.to_string()), example)?;
    }
    fs::write(folder.join("filter.dict"), dictionary(&seeds::filter_words()))?;
    for (name, request) in seeds::bodies() {
        fs::write(folder.join("bodies").join(name), request)?;
    }
    fs::write(folder.join("bodies.dict"), dictionary(&seeds::body_words()))?;
    fs::write(folder.join("verify.dict"), dictionary(&names))?;
    let members = [
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"a\"",
        "\"*\"",
        "\"entry\"",
        "\"changes\"",
        "\"messages\"",
        "\\ud83d",
        "1e999",
    ];
    fs::write(folder.join("split.dict"), dictionary(&members.map(str::to_owned).into()))?;
    fs::write(folder.join("scheme.dict"), dictionary(&words))
}

/// Collects the names and the texts.
fn collect(value: &Value, words: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                words.insert(name.clone());
                collect(value, words);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, words)),
        Value::String(text) => {
            words.insert(text.clone());
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Formats the words for libFuzzer, which takes words of at most 64 bytes.
fn dictionary(words: &BTreeSet<String>) -> String {
    let printable = |word: &&String| word.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let short = words.iter().filter(|word| (1..=64).contains(&word.len())).filter(printable);
    short.map(|word| format!("{word:?}\n")).collect()
}
