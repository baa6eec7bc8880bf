//! What a verification finds, as values and as lines of text.

use std::fmt;

use grapnel_core::verification::VerificationStep;

use crate::captured_request::Note;

/// Bytes of the message that are shown.
const SHOWN_BYTES: usize = 400;

/// What a verification finds.
#[derive(Debug)]
pub(crate) struct VerificationReport {
    /// What was done before the first step.
    pub(crate) before: Vec<Note>,
    /// All steps that the scheme has, in their order.
    pub(crate) steps: Vec<(VerificationStep, StepOutcome)>,
    /// What is read of the request.
    pub(crate) content: Vec<Note>,
    /// What was signed.
    pub(crate) message: Option<SignedMessage>,
    /// The secret that verifies it, counted from 0, or the step that failed.
    pub(crate) result: Result<usize, VerificationStep>,
    /// What usually causes such a failure.
    pub(crate) hint: Option<&'static str>,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StepOutcome {
    Passed,
    /// For this reason.
    Failed(String),
    /// An earlier one failed.
    NotReached,
}

/// The message that a signature covers. Where it contains a secret, it has a placeholder.
#[derive(Debug)]
pub(crate) struct SignedMessage {
    pub(crate) bytes: usize,
    /// Of the message, with the placeholder of a secret.
    pub(crate) sha256: String,
    /// The beginning, with escapes for what is not printable ASCII.
    pub(crate) beginning: String,
    pub(crate) is_cut: bool,
}

impl SignedMessage {
    pub(super) fn new(message: &[u8]) -> Self {
        let shown = &message[..message.len().min(SHOWN_BYTES)];
        Self {
            bytes: message.len(),
            sha256: hex::encode(ring::digest::digest(&ring::digest::SHA256, message)),
            beginning: shown.escape_ascii().to_string(),
            is_cut: shown.len() < message.len(),
        }
    }
}

impl VerificationReport {
    /// Whether it verifies.
    pub(crate) fn is_verified(&self) -> bool {
        self.result.is_ok()
    }

    /// Returns the result in words.
    pub(crate) fn result_text(&self) -> String {
        match self.result {
            Ok(0) => "verified with the first secret".to_owned(),
            Ok(secret) => format!("verified with secret number {}", secret + 1),
            Err(step) => format!("not verified: step {:?} failed", step.name()),
        }
    }
}

/// As lines of text.
impl fmt::Display for VerificationReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut write = |note: &Note| write!(formatter, "{note}");
        self.before.iter().try_for_each(&mut write)?;
        for (step, outcome) in &self.steps {
            match outcome {
                StepOutcome::Passed => write(&Note::new(step.name(), "ok"))?,
                StepOutcome::Failed(reason) => write(&Note::new(step.name(), format!("failed: {reason}")))?,
                StepOutcome::NotReached => {}
            }
        }
        self.content.iter().try_for_each(&mut write)?;
        if let Some(SignedMessage { bytes, sha256, beginning, is_cut }) = &self.message {
            let more = if *is_cut { " …" } else { "" };
            write(&Note::new(
                "computed over",
                format!("{bytes} bytes (SHA-256 {sha256}):\n  {beginning}{more}"),
            ))?;
        }
        write(&Note::new("result", self.result_text()))?;
        self.hint.map_or(Ok(()), |hint| write(&Note::new("hint", hint)))
    }
}
