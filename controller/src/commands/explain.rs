//! `grapnel-controller explain FILE…`: checks the rules of the API server and of the controller without either, before
//! anything is applied.

use std::path::PathBuf;
use std::process::ExitCode;

use grapnel_core::resolved_provider;
use grapnel_crds::{Document, Integration, ScalingMode, names, parse_documents};
use grapnel_platform::manifest_files;

use crate::reconcile::secrets::references;

#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// YAML files with Integrations, or directories of them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Prints the effect of each Integration, or its problems; fails if there are any.
pub fn explain(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let mut problems = 0_usize;
    for (path, text) in manifest_files::read(&args.files)? {
        match parse_documents(&text) {
            Ok(documents) => {
                for document in documents {
                    if let Document::Integration(integration) = document {
                        let (lines, wrong) = describe(&integration);
                        problems += wrong;
                        println!("{}: {lines}", path.display());
                    }
                }
            }
            Err(error) => {
                problems += 1;
                println!("{}: {error}", path.display());
            }
        }
    }
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the lines about one object, and how many problems they report.
fn describe(integration: &Integration) -> (String, usize) {
    let name = integration.metadata.name.as_deref().unwrap_or_default();
    let heading = format!("Integration {}/{name}", integration.namespace_or_default());
    let mut problems: Vec<String> = integration.validate().iter().map(ToString::to_string).collect();
    problems.extend(
        resolved_provider::errors(&integration.spec, problems.is_empty()).iter().map(ToString::to_string),
    );
    if !problems.is_empty() {
        let lines: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
        return (format!("{heading} is not valid{lines}"), problems.len());
    }
    let spec = &integration.spec;
    let scaling = &spec.workers.scaling;
    let workers = match scaling.mode {
        ScalingMode::Auto => {
            format!("{} to {}, following the backlog", scaling.min_replicas, scaling.max_replicas)
        }
        ScalingMode::Manual => format!("{}, from spec.workers.replicas", spec.workers.replicas),
        ScalingMode::External => "set by an autoscaler, through the scale subresource".to_owned(),
    };
    let mut lines = format!(
        "{heading} is valid\n  state: {:?}\n  webhooks: POST {}\n  workers: {workers}",
        spec.state,
        names::webhook_path(integration.route()),
    );
    for destination in &spec.destinations {
        lines += &format!(
            "\n  destination {}: {} ({} attempts)",
            destination.name, destination.url, destination.retry.max_attempts
        );
    }
    let mut secrets: Vec<String> = references(integration)
        .map(|secret_ref| format!("{} (key {})", secret_ref.name, secret_ref.key))
        .collect();
    secrets.sort();
    secrets.dedup();
    lines += &format!("\n  requires the Secrets: {}", secrets.join(", "));
    if let Some(warning) = resolved_provider::warning(spec) {
        lines += &format!("\n  warning: {warning}");
    }
    (lines, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(spec: &str) -> (String, usize) {
        let yaml = format!(
            "apiVersion: grapnel.dev/v1alpha1\nkind: Integration\nmetadata: {{name: acme, namespace: shop}}\nspec: {spec}"
        );
        match parse_documents(&yaml).unwrap().remove(0) {
            Document::Integration(integration) => describe(&integration),
            Document::Secret(_) => unreachable!(),
        }
    }

    #[test]
    fn a_valid_object_is_explained() {
        let (lines, problems) = described(
            "{provider: acme, verification: {secretRef: {name: s}}, destinations: [{name: a, url: 'https://a.example.com'}]}",
        );
        assert_eq!(problems, 0);
        for part in [
            "shop/acme is valid",
            "/api/v1/webhooks/acme",
            "0 to 5",
            "https://a.example.com",
            "s (key secret)",
        ] {
            assert!(lines.contains(part), "{lines}");
        }
    }

    #[test]
    fn a_weak_scheme_is_a_warning_and_not_an_error() {
        let (lines, problems) = described(
            "{provider: github, verification: {secretRef: {name: s}, scheme: {timestamp: {from: 'header:x-time'}}}, \
             destinations: [{name: a, url: 'https://a.example.com'}]}",
        );
        assert_eq!(problems, 0);
        assert!(
            lines.contains("warning: spec.verification.scheme.timestamp: the timestamp is not signed"),
            "{lines}"
        );
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let (lines, problems) = described(
            "{provider: initech, verification: {secretRef: {name: s}}, destinations: [{name: a, url: 'ftp://a'}]}",
        );
        assert_eq!(problems, 2, "{lines}");
        assert!(lines.contains("spec.destinations[0].url") && lines.contains("spec.provider"), "{lines}");
    }
}
