//! `grapnel verify`: reports whether a captured request verifies and, if not, at which step it fails and which message was
//! signed.
//!
//! It uses the verifier of the ingress, offline. A secret is never printed: where the message contains it, its placeholder is
//! shown instead.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use grapnel_crds::{Document, IntegrationSpec, parse_documents, white_space_warning, without_line_end};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use jiff::Timestamp;
use secrecy::zeroize::Zeroizing;

use grapnel_core::request::IncomingRequest;
use grapnel_core::resolved_provider::ResolvedProvider;
use grapnel_core::verification::{VerificationStep, Verifier, VerifyError};
use grapnel_platform::secret_file;

/// Bytes of the message that are shown.
const SHOWN_BYTES: usize = 400;

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

/// A request as it was received.
#[derive(Debug, PartialEq, Eq)]
struct CapturedRequest {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Prints the steps; succeeds when the request verifies.
///
/// # Errors
/// When a file cannot be read, or the provider and the secrets make no verifier.
pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let spec = match &args.integration {
        Some(path) => integration(path)?,
        None => of_preset(args.provider.as_deref().unwrap_or_default()),
    };
    let provider = ResolvedProvider::new(&spec).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", errors.join("\n"))
    })?;
    let secrets: Vec<Zeroizing<Vec<u8>>> =
        args.secret_files.iter().map(|path| secret(path)).collect::<Result<_, _>>()?;
    let text = std::fs::read(&args.request).with_context(|| format!("read {}", args.request.display()))?;
    let request = parse(&text).with_context(|| format!("read {}", args.request.display()))?;
    let tolerance = spec.verification.tolerance_seconds;
    let url = args.url.as_deref().or(spec.verification.url.as_deref());
    let verifier = |tolerance| Verifier::new(&provider.scheme, tolerance, url, &secrets);
    let verification = Verification {
        strict: verifier(tolerance)?,
        any_age: verifier(Some(0))?,
        request: &request,
        now: args.now.unwrap_or_else(Timestamp::now),
    };
    let (report, verified) = verification.report();
    print!("{report}");
    for (path, secret) in args.secret_files.iter().zip(&secrets) {
        if let Some(warning) = white_space_warning(&path.display().to_string(), secret) {
            println!("{:<18}{warning}", "warning");
        }
    }
    Ok(if verified { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn of_preset(provider: &str) -> IntegrationSpec {
    let spec = serde_json::json!({
        "provider": provider, "verification": {"secretRef": {"name": "secret"}}, "destinations": [],
    });
    serde_json::from_value(spec).expect("a spec with all that is required")
}

fn integration(path: &Path) -> anyhow::Result<IntegrationSpec> {
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

/// Reads a request as it goes over the wire, with either kind of line ends before the body.
fn parse(text: &[u8]) -> anyhow::Result<CapturedRequest> {
    let mut rest = text;
    let mut line = || -> anyhow::Result<&str> {
        let end =
            rest.iter().position(|byte| *byte == b'\n').context("there is no empty line before the body")?;
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).context("a header is not valid UTF-8")
    };
    let first = line()?;
    let mut parts = first.split(' ');
    let (Some(method), Some(uri)) = (parts.next(), parts.next()) else {
        bail!("the first line is not like: POST /path HTTP/1.1");
    };
    let mut headers = HeaderMap::new();
    loop {
        let header = line()?;
        if header.is_empty() {
            break;
        }
        let (name, value) =
            header.split_once(':').with_context(|| format!("{header:?} is not a header line"))?;
        let name = HeaderName::try_from(name.trim())
            .with_context(|| format!("{name:?} is not a valid header name"))?;
        let value = HeaderValue::from_bytes(value.trim().as_bytes()).context("invalid header value")?;
        headers.append(name, value);
    }
    Ok(CapturedRequest {
        method: method.parse().with_context(|| format!("invalid method {method:?}"))?,
        uri: uri.parse().with_context(|| format!("invalid request path {uri:?}"))?,
        headers,
        body: rest.to_vec(),
    })
}

struct Verification<'a> {
    strict: Verifier,
    /// The same verifier without a limit on the age.
    any_age: Verifier,
    request: &'a CapturedRequest,
    now: Timestamp,
}

impl Verification<'_> {
    fn incoming<'b>(&'b self, body: &'b [u8]) -> IncomingRequest<'b> {
        let CapturedRequest { method, uri, headers, .. } = self.request;
        IncomingRequest { method, uri, headers, body, public_url: None, json: None }
    }

    /// Returns the steps as text, and whether the request verifies.
    fn report(&self) -> (String, bool) {
        let incoming = self.incoming(&self.request.body);
        let mut report = String::new();
        let result = self.strict.verify(&incoming, self.now);
        let failed = result.as_ref().err().map(VerifyError::step);
        for step in VerificationStep::ALL {
            if !self.strict.has_step(step) {
                continue;
            }
            let outcome = match (&result, failed) {
                (Err(refused), Some(failed)) if failed == step => format!("failed: {refused}"),
                (_, Some(failed)) if failed < step => break,
                _ => "ok".to_owned(),
            };
            line(&mut report, step.name(), &outcome);
        }
        if let Some(message) = self.strict.message(&incoming) {
            line(&mut report, "computed over", &describe(&message));
        }
        match &result {
            Ok(verified) if verified.secret == 0 => {
                line(&mut report, "result", "verified with the first secret")
            }
            Ok(verified) => {
                line(&mut report, "result", &format!("verified with secret number {}", verified.secret + 1))
            }
            Err(refused) => {
                line(
                    &mut report,
                    "result",
                    &format!("not verified: step {:?} failed", refused.step().name()),
                );
                if let Some(hint) = self.hint(refused) {
                    line(&mut report, "hint", hint);
                }
            }
        }
        (report, result.is_ok())
    }

    /// Returns the usual cause of a failure, if it applies.
    fn hint(&self, refused: &VerifyError) -> Option<&'static str> {
        let body = &self.request.body;
        let verifies = |body: &[u8]| self.any_age.verify(&self.incoming(body), self.now).is_ok();
        match refused {
            VerifyError::TimestampOff { .. } if verifies(body) => {
                Some("apart from its age the request verifies; --now sets the time to verify against")
            }
            VerifyError::Mismatch | VerifyError::TimestampOff { .. } => {
                if verifies(without_line_end(body)) {
                    return Some("it verifies without the line end after the body: the capture added it");
                }
                let longer = |end: &[u8]| [body, end].concat();
                (verifies(&longer(b"\n")) || verifies(&longer(b"\r\n")))
                    .then_some("it verifies with a line end after the body: the capture lost it")
            }
            _ => None,
        }
    }
}

fn line(report: &mut String, name: &str, text: &str) {
    // Writing to a String cannot fail.
    let _written = writeln!(report, "{name:<18}{text}");
}

fn describe(message: &[u8]) -> String {
    let shown = &message[..message.len().min(SHOWN_BYTES)];
    let more = if shown.len() < message.len() { " …" } else { "" };
    let digest = hex::encode(ring::digest::digest(&ring::digest::SHA256, message));
    format!("{} bytes (SHA-256 {digest}):\n  {}{more}", message.len(), shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "It's a Secret to Everybody";
    /// The example of a provider's documentation.
    const SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn report_of(request: &str, secret: &str) -> (String, bool) {
        let request = parse(request.as_bytes()).expect("a request");
        let spec = of_preset("github");
        let scheme = ResolvedProvider::new(&spec).expect("a provider").scheme;
        let verifier = |tolerance| Verifier::new(&scheme, tolerance, None, &[secret]).expect("a verifier");
        Verification {
            strict: verifier(None),
            any_age: verifier(Some(0)),
            request: &request,
            now: Timestamp::UNIX_EPOCH,
        }
        .report()
    }

    fn request(signature: &str, body: &str) -> String {
        format!("POST /hooks HTTP/1.1\r\nX-Hub-Signature-256: {signature}\r\nHost: a\r\n\r\n{body}")
    }

    #[test]
    fn a_valid_request_passes_every_step() {
        let (report, verified) = report_of(&request(SIGNATURE, "Hello, World!"), SECRET);
        assert!(verified, "{report}");
        insta::assert_snapshot!(report, @r"
        signature         ok
        comparison        ok
        computed over     13 bytes (SHA-256 dffd6021bb2bd5b0af676290809ec3a53191dd81c7f70a4b28688a362182986f):
          Hello, World!
        result            verified with the first secret
        ");
    }

    #[test]
    fn the_failing_step_and_the_usual_cause_are_named_and_never_the_secret() {
        let check = |signature: &str, body: &str, expected: &str| {
            let (report, verified) = report_of(&request(signature, body), SECRET);
            assert!(!verified && report.contains(expected) && !report.contains(SECRET), "{report}");
        };
        check(SIGNATURE, "Hello, World", "no signature over this message matches");
        check(SIGNATURE, "Hello, World!\n", "it verifies without the line end");
        check("sha1=757107", "Hello, World!", "no signature could be read");
        let missing = "POST / HTTP/1.1\n\nHello";
        let (report, _) = report_of(missing, SECRET);
        assert!(report.contains("the header x-hub-signature-256 is missing"), "{report}");
    }

    #[test]
    fn an_invalid_request_is_not_read() {
        for text in
            ["", "POST", "POST / HTTP/1.1", "POST / HTTP/1.1\nno header\n\n", "POST / HTTP/1.1\na: b\n"]
        {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
