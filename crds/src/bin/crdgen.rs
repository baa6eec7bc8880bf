//! Prints the CustomResourceDefinition of Integration as YAML.

use std::io::Write;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(grapnel_crds::crd_yaml().as_bytes())
}
