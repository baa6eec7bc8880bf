//! Why a webhook is refused: a captured request is verified with a secret that somebody types.
//!
//! Neither is stored, and the secret is not shown again. No computed signature is ever in the page: whoever may use this tool could otherwise have
//! anything signed by it. The secret of an Integration cannot be used: it is sealed, and this process has no key.

use askama::Template;
use axum::extract::RawQuery;
use axum::response::IntoResponse;
use grapnel_core::verification::VerificationStep;
use grapnel_crds::{IntegrationSpec, presets, white_space_warning};
use jiff::Timestamp;
use secrecy::zeroize::Zeroizing;

use super::integration_id;
use crate::captured_request::verification::{StepOutcome, Verification, VerificationReport, spec_of_preset};
use crate::captured_request::{Note, parse};
use crate::console::Outcome;
use crate::console::forms::Fields;
use crate::console::pages::known_integrations::KnownIntegrations;
use crate::console::pages::list_query::ListQuery;
use crate::console::shell::{Section, Shell};
use crate::console::show;
use crate::console::visitor::Visitor;
use crate::http::envelope::ApiError;

const PATH: &str = "/tools/verify";

/// A captured request and how it is to be judged, as the form has it. The secret is not here.
#[derive(Debug, Default)]
struct Question {
    integration: String,
    provider: String,
    url: String,
    now: String,
    request: String,
}

/// What was found.
struct Finding {
    report: VerificationReport,
    /// The events of a request that verifies.
    events: Vec<Note>,
    /// The header that has the signature, and its value in the request.
    received: Option<(String, String)>,
    warning: Option<String>,
}

#[derive(Template)]
#[template(path = "console/verify.html")]
struct VerifyPage {
    shell: Shell,
    integrations: KnownIntegrations,
    question: Question,
    finding: Option<Finding>,
    problem: Option<String>,
}

impl VerifyPage {
    fn providers(&self) -> &'static [&'static str] {
        presets::NAMES
    }
}

/// Shows the form.
pub(in crate::console) async fn page(visitor: Visitor, RawQuery(raw): RawQuery) -> Outcome {
    let query = match ListQuery::read(&visitor, PATH, raw.as_deref()) {
        Ok(query) => query,
        Err(redirect) => return Ok(redirect.into_response()),
    };
    let question = Question { integration: query.get("integration").to_owned(), ..Question::default() };
    answer(&visitor, question, Ok(None)).await
}

/// Verifies what the form has.
pub(in crate::console) async fn verify(visitor: Visitor, fields: Fields) -> Outcome {
    let field = |name| fields.get(name).unwrap_or_default().to_owned();
    let question = Question {
        integration: field("integration"),
        provider: field("provider"),
        url: field("url"),
        now: field("now"),
        request: field("request"),
    };
    let secret = Zeroizing::new(field("secret").into_bytes());
    let spec = super::as_problem(spec(&visitor, &question).await)?;
    let finding = spec.and_then(|spec| find(&spec, &question, secret));
    answer(&visitor, question, finding.map(Some)).await
}

async fn answer(visitor: &Visitor, question: Question, finding: Result<Option<Finding>, String>) -> Outcome {
    visitor.operator.require_payloads_somewhere().await?;
    let (finding, problem) = match finding {
        Ok(finding) => (finding, None),
        Err(problem) => (None, Some(problem)),
    };
    let page = VerifyPage {
        shell: Shell::new(visitor, Section::Tools),
        integrations: KnownIntegrations::read(visitor).await?,
        question,
        finding,
        problem,
    };
    Ok(visitor.page(&page))
}

async fn spec(visitor: &Visitor, question: &Question) -> Result<IntegrationSpec, ApiError> {
    if !question.integration.is_empty() {
        return visitor.operator.spec_for_payloads(integration_id(&question.integration)?).await;
    }
    visitor.operator.require_payloads_somewhere().await?;
    if presets::NAMES.contains(&question.provider.as_str()) {
        return Ok(spec_of_preset(&question.provider));
    }
    Err(ApiError::invalid("integration", "choose an Integration, or a provider"))
}

/// The problem, if there is one, is about the form.
fn find(spec: &IntegrationSpec, question: &Question, secret: Zeroizing<Vec<u8>>) -> Result<Finding, String> {
    let now = match question.now.as_str() {
        "" => Timestamp::now(),
        text => text.parse().map_err(|_| "now: must be a time such as 2026-01-31T10:00:00Z".to_owned())?,
    };
    // A browser sends the lines of a field with CR LF. The body had the line ends that its provider wrote, most often LF.
    let text = question.request.replace("\r\n", "\n");
    let text = if text.contains("\n\n") { text } else { text + "\n\n" };
    let request = parse(text.as_bytes()).map_err(|error| format!("request: {error:#}"))?;
    let received = received_signature(spec, &request.headers);
    let warning = white_space_warning("the secret", &secret);
    let url = Some(question.url.as_str()).filter(|url| !url.is_empty());
    let verification =
        Verification::new(spec, &[secret], url, request, now).map_err(|error| format!("{error:#}"))?;
    let report = verification.report();
    let events = if report.is_verified() { verification.events() } else { Vec::new() };
    Ok(Finding { report, events, received, warning })
}

/// Returns the header in which the signature is looked for, and what is in it. A token is the secret itself, and not shown.
fn received_signature(spec: &IntegrationSpec, headers: &http::HeaderMap) -> Option<(String, String)> {
    use grapnel_core::resolved_provider::ResolvedProvider;
    use grapnel_crds::SchemeType::{Basic, Token};
    let scheme = ResolvedProvider::new(spec).ok()?.scheme;
    if matches!(scheme.kind, Some(Token | Basic) | None) {
        return None;
    }
    let source = scheme.signature?.from?;
    let name = source.strip_prefix("header:")?;
    let value = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    Some((name.to_owned(), value.unwrap_or_else(|| "missing".to_owned())))
}

/// Returns what a step looks at.
fn explain(step: &VerificationStep) -> &'static str {
    match step {
        VerificationStep::Required => "what must be there is, and what must not is not",
        VerificationStep::Signature => "a signature or token is where it should be, and can be read",
        VerificationStep::Timestamp => "the request is not too old, and not from the future",
        VerificationStep::BodyDigest => "the digest of the body is that of the body",
        VerificationStep::Comparison => "the signature is that of this message with this secret",
    }
}
