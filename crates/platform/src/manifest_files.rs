//! Reads the YAML files that define Integrations and Secrets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use grapnel_core::manifests::ManifestErrors;

/// Reads the text of each file. A directory means its `.yaml` and `.yml` files, in the order of their names.
pub fn read(paths: &[PathBuf]) -> Result<BTreeMap<PathBuf, String>, ManifestErrors> {
    let mut texts = BTreeMap::new();
    let mut errors = Vec::new();
    for path in paths {
        match expand(path) {
            Ok(files) => {
                for file in files {
                    match std::fs::read_to_string(&file) {
                        Ok(text) => drop(texts.insert(file, text)),
                        Err(error) => errors.push(format!("{}: {error}", file.display())),
                    }
                }
            }
            Err(error) => errors.push(format!("{}: {error}", path.display())),
        }
    }
    if errors.is_empty() { Ok(texts) } else { Err(ManifestErrors(errors)) }
}

fn expand(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let is_yaml =
        |file: &PathBuf| file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    let entries = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
    let files: Vec<PathBuf> = entries.collect::<Result<_, _>>()?;
    Ok(files.into_iter().filter(is_yaml).collect())
}
