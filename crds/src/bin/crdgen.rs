//! Writes each CustomResourceDefinition as YAML into the directory that is its argument, under its own name.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| ".".into()));
    for definition in grapnel_crds::definitions() {
        let name = definition.metadata.name.as_deref().unwrap_or_default();
        std::fs::write(directory.join(format!("{name}.yaml")), grapnel_crds::definition_yaml(&definition))?;
    }
    Ok(())
}
