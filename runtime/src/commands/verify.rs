//! `grapnel verify`: reports whether a captured request verifies and, if not, at which step it fails and which message was
//! signed.
//!
//! It uses the verifier of the ingress, offline. A secret is never printed: where the message contains it, its placeholder is
//! shown instead.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use grapnel_crds::{Document, IntegrationSpec, parse_documents, white_space_warning};
use jiff::Timestamp;
use secrecy::zeroize::Zeroizing;

use crate::captured_request::parse;
use crate::captured_request::verification::{Verification, spec_of_preset};
use grapnel_platform::secret_file;

#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The preset to verify the request with
    #[arg(long, required_unless_present = "integration")]
    provider: Option<String>,
    /// A file whose first Integration is used to verify the request, instead of a preset
    #[arg(long, value_name = "FILE", conflicts_with = "provider")]
    integration: Option<PathBuf>,
    /// A file with a secret; one final line end is dropped. Repeat the option for previous secrets
    #[arg(long = "secret-file", required = true, value_name = "FILE")]
    secret_files: Vec<PathBuf>,
    /// The request as it was received: its first line, its headers, an empty line, and its body
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// The URL that the provider called, without its query, where it signs it
    #[arg(long)]
    url: Option<String>,
    /// The time to verify a timestamp against, such as 2026-01-31T10:00:00Z; now by default
    #[arg(long)]
    now: Option<Timestamp>,
}

/// Prints the steps; succeeds when the request verifies.
///
/// # Errors
/// When a file cannot be read, or the provider and the secrets make no verifier.
pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let spec = match &args.integration {
        Some(path) => integration(path)?,
        None => spec_of_preset(args.provider.as_deref().unwrap_or_default()),
    };
    let secrets: Vec<Zeroizing<Vec<u8>>> =
        args.secret_files.iter().map(|path| secret(path)).collect::<Result<_, _>>()?;
    let text = std::fs::read(&args.request).with_context(|| format!("read {}", args.request.display()))?;
    let request = parse(&text).with_context(|| format!("read {}", args.request.display()))?;
    let now = args.now.unwrap_or_else(Timestamp::now);
    let verification = Verification::new(&spec, &secrets, args.url.as_deref(), request, now)?;
    let report = verification.report();
    print!("{report}");
    if report.is_verified() {
        verification.events().iter().for_each(|event| print!("{event}"));
    }
    for (path, secret) in args.secret_files.iter().zip(&secrets) {
        if let Some(warning) = white_space_warning(&path.display().to_string(), secret) {
            println!("{:<18}{warning}", "warning");
        }
    }
    Ok(if report.is_verified() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the spec of the first Integration of a file.
pub(super) fn integration(path: &Path) -> anyhow::Result<IntegrationSpec> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let documents = parse_documents(&text).with_context(|| format!("read {}", path.display()))?;
    let found = documents.into_iter().find_map(|document| match document {
        Document::Integration(object) => Some(object),
        Document::Secret(_) => None,
    });
    let Some(object) = found else { bail!("{} has no Integration", path.display()) };
    let errors: Vec<String> = object.validate().iter().map(ToString::to_string).collect();
    if errors.is_empty() { Ok(object.spec) } else { bail!("{}", errors.join("\n")) }
}

fn secret(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    secret_file::read(path).with_context(|| format!("read {}", path.display()))
}
