//! `grapnel-controller explain FILE…`: checks the rules of the API server and of the controller without either, before
//! anything is applied.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use grapnel_core::filter;
use grapnel_core::resolved_provider::{self, ResolvedProvider};
use grapnel_crds::names::{self, DESTINATION_LABEL};
use grapnel_crds::{Document, Integration, ScalingMode, parse_documents};
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
    problems.extend(filter::errors(&integration.spec).iter().map(ToString::to_string));
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
    if let Ok(provider) = ResolvedProvider::new(spec) {
        lines += &format!(
            "\n  a repeated webhook: recognized by {}",
            resolved_provider::recognized_by(&provider.mapping)
        );
    }
    for destination in &spec.destinations {
        lines += &format!(
            "\n  destination {}: {} ({} attempts)",
            destination.name,
            destination.request_url(&integration.namespace_or_default()),
            destination.retry.max_attempts
        );
        if let Some(service) = &destination.service {
            lines += &format!(
                "\n    to the ready pods of the Service {}/{} behind its port {}",
                integration.namespace_or_default(),
                service.name,
                service.port
            );
        }
    }
    let mut secrets: Vec<String> = references(integration)
        .iter()
        .map(|secret_ref| format!("{} (key {})", secret_ref.name, secret_ref.key))
        .collect();
    secrets.sort();
    secrets.dedup();
    lines += &format!("\n  requires the Secrets: {}", secrets.join(", "));
    let sent = spec.destinations.iter().flat_map(|destination| destination.sent_refs());
    let labeled: BTreeSet<String> = sent.map(|(_, secret_ref)| secret_ref.name).collect();
    if !labeled.is_empty() {
        let labeled: Vec<String> = labeled.into_iter().collect();
        lines +=
            &format!("\n  of these with the label {DESTINATION_LABEL}: \"true\": {}", labeled.join(", "));
    }
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
        assert!(!lines.contains("with the label"), "{lines}");
    }

    #[test]
    fn what_a_repeated_webhook_is_recognized_by_is_explained() {
        let recognized = |provider: &str, mapping: &str| {
            let (lines, _) = described(&format!(
                "{{provider: {provider}, verification: {{secretRef: {{name: s}}}}, mapping: {mapping}, \
                 destinations: [{{name: a, url: 'https://a.example.com'}}]}}"
            ));
            let line =
                lines.lines().find_map(|line| line.strip_prefix("  a repeated webhook: recognized by "));
            line.unwrap_or_else(|| panic!("{lines}")).to_owned()
        };
        assert_eq!(recognized("acme", "{}"), "its id (/eventId), else its content");
        assert_eq!(recognized("hubspot", "{}"), "its content without element:/attemptNumber");
        assert_eq!(
            recognized(
                "recurly",
                "{externalEventId: ['header:x-id', /id], attemptFields: ['json:/n', 'json:/m']}"
            ),
            "its id (header:x-id, else /id), else its content without json:/n, json:/m"
        );
        assert_eq!(recognized("dropbox", "{}"), "nothing: every one is an event");
    }

    #[test]
    fn secrets_that_destinations_send_need_a_label() {
        let (lines, problems) = described(
            "{provider: acme, verification: {secretRef: {name: s}}, destinations: [{name: a, url: 'https://a.example.com', \
             headers: [{name: x, valueFrom: {name: out}}], tls: {clientCertificateRef: {name: cert}}}]}",
        );
        assert_eq!(problems, 0, "{lines}");
        assert!(lines.contains("out (key secret)") && lines.contains("cert (key tls.key)"), "{lines}");
        assert!(lines.contains("with the label grapnel.dev/destination: \"true\": cert, out"), "{lines}");
    }

    #[test]
    fn a_service_is_explained_by_its_url_and_its_pods() {
        let (lines, problems) = described(
            "{provider: acme, verification: {secretRef: {name: s}}, \
             destinations: [{name: a, service: {name: orders, port: 8080, path: /hooks}}]}",
        );
        assert_eq!(problems, 0, "{lines}");
        for part in [
            "destination a: http://orders.shop.svc:8080/hooks (5 attempts)",
            "to the ready pods of the Service shop/orders behind its port 8080",
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
    fn a_filter_that_cannot_be_used_is_a_problem() {
        let (lines, problems) = described(
            "{provider: acme, verification: {secretRef: {name: s}}, \
             destinations: [{name: a, url: 'https://a.example.com', filter: 'payload.total >'}]}",
        );
        assert_eq!(problems, 1, "{lines}");
        assert!(lines.contains("spec.destinations[0].filter: does not parse at line 1"), "{lines}");
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
