//! Whether a captured request verifies and, if not, at which step it fails, what was signed, and what usually causes that.

use anyhow::Context;
use grapnel_core::integration::WebhookMethods;
use grapnel_core::mapping::{FormerMapping, Mapper};
use grapnel_core::payload::BodyForm;
use grapnel_core::request::IncomingRequest;
use grapnel_core::request::content_coding::{ContentCodings, DecodeError};
use grapnel_core::resolved_provider::ResolvedProvider;
use grapnel_core::verification::{VerificationStep, Verifier, VerifyError};
use grapnel_crds::{IntegrationSpec, without_line_end};
use jiff::Timestamp;
use secrecy::zeroize::Zeroizing;

use super::{CapturedRequest, Note, events};

mod report;

pub(crate) use report::{SignedMessage, StepOutcome, VerificationReport};

/// A request, and all that it takes to verify it.
pub(crate) struct Verification {
    strict: Verifier,
    /// The same verifier without a limit on the age.
    any_age: Verifier,
    request: CapturedRequest,
    /// `None` if the body has no content coding.
    decoded: Option<DecodedBody>,
    methods: WebhookMethods,
    mapper: Mapper,
    now: Timestamp,
}

/// A body without its content codings.
struct DecodedBody {
    /// The names of the codings.
    codings: String,
    /// The bytes, or the reason why there are none.
    bytes: Result<Vec<u8>, DecodeError>,
}

impl Verification {
    /// `url` is the one that the provider called, where it signs that; by default the one of the spec.
    ///
    /// # Errors
    /// The spec or the secrets make no verifier, or the body has a content coding that is not known.
    pub(crate) fn new(
        spec: &IntegrationSpec,
        secrets: &[Zeroizing<Vec<u8>>],
        url: Option<&str>,
        request: CapturedRequest,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let provider = ResolvedProvider::new(spec).map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", errors.join("\n"))
        })?;
        let url = url.or(spec.verification.url.as_deref());
        let split = &provider.mapping.split;
        let verifier = |tolerance| Verifier::with_split(&provider.scheme, split, tolerance, url, secrets);
        Ok(Self {
            strict: verifier(spec.verification.tolerance_seconds)?,
            any_age: verifier(Some(0))?,
            decoded: decode(&request, spec)?,
            request,
            methods: WebhookMethods::new(&spec.ingress.methods),
            mapper: Mapper::new(&provider.mapping, &FormerMapping::default())
                .context("invalid spec.mapping")?,
            now,
        })
    }

    fn incoming<'b>(&'b self, body: &'b [u8]) -> IncomingRequest<'b> {
        let CapturedRequest { method, uri, headers, .. } = &self.request;
        let is_signed = self.decoded.is_some() && self.strict.signs_encoded_body();
        let encoded_body = is_signed.then_some(&self.request.body[..]);
        IncomingRequest { method, uri, headers, body, encoded_body, form: None, public_url: None, json: None }
    }

    /// The body without its content coding, or as it came.
    fn body(&self) -> &[u8] {
        let decoded = self.decoded.as_ref().and_then(|decoded| decoded.bytes.as_ref().ok());
        decoded.map_or(&self.request.body[..], Vec::as_slice)
    }

    /// Describes what is read, if it is not the body as it is.
    fn content(&self, request: &IncomingRequest<'_>) -> Option<String> {
        if request.query_as_payload().is_some() {
            return Some("the query, as a form".to_owned());
        }
        let form = self.mapper.body_form(request.headers, request.body);
        if form != Some(BodyForm::Form) {
            return form.is_none().then(|| "nothing: the content-type is not accepted (415)".to_owned());
        }
        if self.mapper.json_in_form(request.form_fields()).is_some() {
            return Some("the JSON in a field of the form".to_owned());
        }
        match self.mapper.multipart(request.headers, request.body)? {
            Ok(_) => Some("the text fields of a form with parts".to_owned()),
            Err(error) => Some(format!("nothing: {} (400)", error.reason)),
        }
    }

    /// Takes the steps.
    pub(crate) fn report(&self) -> VerificationReport {
        let parts = self.mapper.multipart(&self.request.headers, self.body());
        let fields = parts.as_ref().map(|read| read.as_ref().map_or(&b""[..], |parts| &parts.fields));
        let incoming = IncomingRequest { form: fields, ..self.incoming(self.body()) };
        let result = self.strict.verify(&incoming, self.now);
        let files = parts.iter().filter_map(|parts| parts.as_ref().ok()).flat_map(|parts| &parts.files);
        let files = files.map(|file| {
            let (name, size, field) = (&file.name, file.size, &file.field);
            Note::new("file", format!("{name:?} of {size} bytes in the field {field:?}: it is only counted"))
        });
        VerificationReport {
            before: self.before(&incoming),
            steps: self.steps(result.as_ref().err()),
            content: self
                .content(&incoming)
                .map(|content| Note::new("read", content))
                .into_iter()
                .chain(files)
                .collect(),
            message: self.strict.message(&incoming).map(|message| SignedMessage::new(&message)),
            hint: result.as_ref().err().and_then(|refused| self.hint(refused)),
            result: result.map(|verified| verified.secret).map_err(|refused| refused.step()),
        }
    }

    fn before(&self, incoming: &IncomingRequest<'_>) -> Vec<Note> {
        let mut notes = Vec::new();
        if !self.methods.contains(incoming.method) {
            let text = format!(
                "{} is not one of spec.ingress.methods: only a handshake may have it",
                incoming.method
            );
            notes.push(Note::new("method", text));
        }
        if let Some(decoded) = &self.decoded {
            let outcome = match &decoded.bytes {
                Ok(bytes) => format!("{} bytes were {} bytes", self.request.body.len(), bytes.len()),
                Err(error) => {
                    format!("{error}: a request is refused for that; taken as it is, as if it were decoded")
                }
            };
            notes.push(Note::new("decoded", format!("{}: {outcome}", decoded.codings)));
        }
        notes
    }

    fn steps(&self, refused: Option<&VerifyError>) -> Vec<(VerificationStep, StepOutcome)> {
        let taken = VerificationStep::ALL.into_iter().filter(|step| self.strict.has_step(*step));
        let outcome = |step| match refused {
            Some(refused) if refused.step() == step => StepOutcome::Failed(refused.to_string()),
            Some(refused) if refused.step() < step => StepOutcome::NotReached,
            _ => StepOutcome::Passed,
        };
        taken.map(|step| (step, outcome(step))).collect()
    }

    /// Returns the usual cause of a failure, if it applies.
    fn hint(&self, refused: &VerifyError) -> Option<&'static str> {
        let body = self.body();
        let verifies = |body: &[u8]| self.any_age.verify(&self.incoming(body), self.now).is_ok();
        match refused {
            VerifyError::TimestampOff { .. } if verifies(body) => {
                Some("apart from its age the request verifies; --now sets the time to verify against")
            }
            VerifyError::Mismatch | VerifyError::TimestampOff { .. } => {
                if let Some(hint) = self.hint_of_coding() {
                    return Some(hint);
                }
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

    /// Returns the events of the request. The JSON in a field of a form is read as a body is.
    pub(crate) fn events(&self) -> Vec<Note> {
        let parts = self.mapper.multipart(&self.request.headers, self.body()).and_then(Result::ok);
        let fields = parts.as_ref().map(|parts| &parts.fields[..]);
        let request = IncomingRequest { form: fields, ..self.incoming(self.body()) };
        if let Some(query) = request.query_as_payload() {
            let request = IncomingRequest { body: query.as_bytes(), ..request };
            return events::events(&self.mapper, &request, request.body, Some(BodyForm::Form));
        }
        let received = parts.as_ref().map_or(request.body, |parts| &parts.digest);
        let form = self.mapper.body_form(request.headers, request.body);
        let json = self.mapper.json_in_form(request.form_fields()).filter(|_| form == Some(BodyForm::Form));
        match (&json, fields) {
            (Some(json), _) => {
                let shown =
                    IncomingRequest { body: json.as_bytes(), form: Some(request.form_fields()), ..request };
                events::events(&self.mapper, &shown, received, Some(BodyForm::Json))
            }
            (None, Some(fields)) => {
                let shown = IncomingRequest { body: fields, form: None, ..request };
                events::events(&self.mapper, &shown, received, form)
            }
            (None, None) => events::events(&self.mapper, &request, received, form),
        }
    }

    /// Returns the hint for a body that is signed in the other of its two forms.
    fn hint_of_coding(&self) -> Option<&'static str> {
        self.decoded.as_ref()?;
        let encoded = self.strict.signs_encoded_body();
        let encoded_body = (!encoded).then_some(&self.request.body[..]);
        let other = IncomingRequest { encoded_body, ..self.incoming(self.body()) };
        self.any_age.verify(&other, self.now).is_ok().then_some(if encoded {
            "it verifies over the decoded body: leave out verification.scheme.body, or set it to decoded"
        } else {
            "it verifies over the body as it was received: set verification.scheme.body to received"
        })
    }
}

/// Decodes the body, if it has a content coding.
fn decode(request: &CapturedRequest, spec: &IntegrationSpec) -> anyhow::Result<Option<DecodedBody>> {
    let limit = usize::try_from(spec.ingress.max_body_bytes).unwrap_or(0);
    let codings = ContentCodings::of(&request.headers)?;
    Ok(codings.map(|codings| DecodedBody {
        codings: codings.names(),
        bytes: codings.decode(&request.body, limit, |_| true),
    }))
}

/// Returns a spec that has what its preset says.
pub(crate) fn spec_of_preset(provider: &str) -> IntegrationSpec {
    let spec = serde_json::json!({
        "provider": provider, "verification": {"secretRef": {"name": "secret"}}, "destinations": [],
    });
    serde_json::from_value(spec).expect("a spec with all that is required")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use grapnel_crds::{Scheme, SignedBody};

    use super::super::parse;
    use super::*;

    const SECRET: &str = "It's a Secret to Everybody";
    /// The example of a provider's documentation.
    const SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn report_of(request: &str, secret: &str) -> (String, bool) {
        report_with(request.as_bytes(), secret, None)
    }

    fn report_with(request: &[u8], secret: &str, signed: Option<SignedBody>) -> (String, bool) {
        let request = parse(request).expect("a request");
        let mut spec = spec_of_preset("github");
        spec.verification.scheme = Some(Scheme { body: signed, ..Scheme::default() });
        let secrets = [Zeroizing::new(secret.as_bytes().to_vec())];
        let verification =
            Verification::new(&spec, &secrets, None, request, Timestamp::UNIX_EPOCH).expect("a verifier");
        let report = verification.report();
        (report.to_string(), report.is_verified())
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
    fn a_body_with_a_content_coding_is_decoded_and_the_signed_form_is_named() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(b"Hello, World!").expect("memory");
        let body = encoder.finish().expect("memory");
        let head = format!("POST / HTTP/1.1\nContent-Encoding: gzip\nX-Hub-Signature-256: {SIGNATURE}\n\n");
        let captured = [head.as_bytes(), &body].concat();
        let (report, verified) = report_with(&captured, SECRET, None);
        assert!(
            verified && report.contains(&format!("gzip: {} bytes were 13 bytes", body.len())),
            "{report}"
        );
        let (report, verified) = report_with(&captured, SECRET, Some(SignedBody::Received));
        assert!(!verified && report.contains("set it to decoded"), "{report}");
        let decoded = [head.as_bytes(), b"Hello, World!"].concat();
        let (report, verified) = report_with(&decoded, SECRET, None);
        assert!(verified && report.contains("not what its content-encoding says"), "{report}");
    }

    #[test]
    fn what_is_read_of_a_form_is_described() {
        let body = "payload=%7B%7D";
        let of_form = "POST / HTTP/1.1\nContent-Type: application/x-www-form-urlencoded\n";
        let (report, _) = report_of(&format!("{of_form}\n{body}"), SECRET);
        assert!(report.contains("read              the JSON in a field of the form\n"), "{report}");
        let (report, _) = report_of(&format!("{of_form}\na=1"), SECRET);
        assert!(!report.contains("read  "), "{report}");
        let (report, _) = report_of("GET /?a=1 HTTP/1.1\n\n", SECRET);
        assert!(report.contains("read              the query, as a form\n"), "{report}");
        assert!(report.contains("method            GET is not one of spec.ingress.methods"), "{report}");
        let (report, _) = report_of("POST / HTTP/1.1\nContent-Type: text/plain\n\na", SECRET);
        assert!(
            report.contains("read              nothing: the content-type is not accepted (415)\n"),
            "{report}"
        );
    }
}
