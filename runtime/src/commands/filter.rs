//! `grapnel filter`: says what each destination of an Integration would do with an event, offline.
//!
//! It compiles and evaluates the filters as the ingress does. Only the time is not bounded: nobody else waits.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bytes::Bytes;
use grapnel_core::filter::{EvaluationError, FilterContext, FilterInput, IntegrationFilters};
use grapnel_core::ids::EventId;
use grapnel_core::mapping::{EventFields, Mapper, SplitError};
use grapnel_core::payload::BodyForm;
use grapnel_core::request::IncomingRequest;
use grapnel_core::request::content_coding::ContentCodings;
use grapnel_core::resolved_provider::{ResolvedProvider, former_mapping};
use grapnel_crds::{FieldError, IntegrationSpec};
use http::{HeaderMap, Method, Uri};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::verify::integration;
use crate::captured_request::{CapturedRequest, parse};

#[derive(Debug, clap::Args)]
pub struct FilterArgs {
    /// A file whose first Integration has the filters
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Events, each in a file: the answer of the management API (`GET /events/{id}`, or an item of `GET /events`), a request as it was
    /// received (its first line, its headers, an empty line, and its body), or only its body, which is then read as JSON
    #[arg(long = "event", required = true, num_args = 1.., value_name = "FILE")]
    events: Vec<PathBuf>,
}

/// Prints a line for each event and destination; fails if a filter could not be evaluated.
///
/// # Errors
/// When a file cannot be read, the Integration is not valid, or a file is no event.
pub fn run(args: &FilterArgs) -> anyhow::Result<ExitCode> {
    let spec = integration(&args.file)?;
    let filters = IntegrationFilters::new(&spec).map_err(|errors| anyhow::anyhow!("{}", lines(&errors)))?;
    let mapper = mapper(&spec)?;
    let mut has_failed = false;
    for path in &args.events {
        let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let inputs =
            read_events(&spec, &mapper, &text).with_context(|| format!("read {}", path.display()))?;
        for input in inputs {
            let (report, failed) = report(&spec, filters.as_ref(), &input);
            println!("{}: {}\n{report}", path.display(), input.event_type);
            has_failed |= failed;
        }
    }
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn lines(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn mapper(spec: &IntegrationSpec) -> anyhow::Result<Mapper> {
    let provider = ResolvedProvider::new(spec).map_err(|errors| anyhow::anyhow!("{}", lines(&errors)))?;
    Mapper::new(&provider.mapping, &former_mapping(spec)).context("spec.mapping has an unknown source")
}

/// Returns a line for each destination, and whether a filter could not be evaluated.
fn report(
    spec: &IntegrationSpec,
    filters: Option<&IntegrationFilters>,
    input: &FilterInput,
) -> (String, bool) {
    let expressions = filters.into_iter().flat_map(|filters| filters.expressions(Default::default()));
    let context = FilterContext::new(input, expressions.map(|(_, expression)| expression));
    let (mut report, mut has_failed) = (String::new(), false);
    for (position, destination) in spec.destinations.iter().enumerate() {
        let filter = filters.and_then(|filters| filters.get(position));
        let is_included = filter.is_none_or(|filter| filter.includes(&input.event_type));
        let result =
            filter.and_then(|filter| filter.expression.as_ref()).map(|filter| context.evaluate(filter));
        let drops = filter.is_some_and(|filter| filter.drops_on_error);
        has_failed |= is_included && matches!(result, Some(Err(_)));
        // Writing to a String cannot fail.
        let _written = writeln!(report, "  {:<24}{}", destination.name, outcome(is_included, result, drops));
    }
    (report, has_failed)
}

fn outcome(is_included: bool, result: Option<Result<bool, EvaluationError>>, drops: bool) -> String {
    match result {
        _ if !is_included => "filtered: eventTypes leaves out its type".to_owned(),
        None | Some(Ok(true)) => "delivered".to_owned(),
        Some(Ok(false)) => "filtered: filter is false".to_owned(),
        Some(Err(error)) if drops => {
            format!("filtered: filter cannot be evaluated ({error}), and filterOnError is Drop")
        }
        Some(Err(error)) => format!("delivered, although filter cannot be evaluated ({error})"),
    }
}

/// Reads an event in any of its forms. A request may carry several.
fn read_events(spec: &IntegrationSpec, mapper: &Mapper, text: &[u8]) -> anyhow::Result<Vec<FilterInput>> {
    if let Some(event) = shown_event(text) {
        return Ok(vec![event.into_input()?]);
    }
    let first_line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if first_line.windows(6).any(|part| part == b" HTTP/") {
        return of_request(spec, mapper, &parse(text)?);
    }
    let request = CapturedRequest {
        method: Method::POST,
        uri: Uri::from_static("/"),
        headers: HeaderMap::new(),
        body: text.to_vec(),
    };
    of_request(spec, mapper, &request)
}

fn of_request(
    spec: &IntegrationSpec,
    mapper: &Mapper,
    request: &CapturedRequest,
) -> anyhow::Result<Vec<FilterInput>> {
    let CapturedRequest { method, uri, headers, body } = request;
    let limit = usize::try_from(spec.ingress.max_body_bytes).unwrap_or(0);
    let codings = ContentCodings::of(headers)?;
    let decoded = codings.map(|codings| codings.decode(body, limit, |_| true)).transpose()?;
    let body = decoded.as_ref().unwrap_or(body);
    let (encoded_body, public_url, json) = (None, None, None);
    let incoming = IncomingRequest { method, uri, headers, body, encoded_body, form: None, public_url, json };
    // As the ingress finds what is read.
    let (form, text) = match incoming.query_as_payload() {
        Some(query) => (BodyForm::Form, Bytes::copy_from_slice(query.as_bytes())),
        None => {
            let form = mapper.body_form(headers, body);
            let form = form.context("the Integration does not accept its content-type")?;
            let parts = mapper.multipart(headers, body).transpose()?;
            (form, parts.map_or_else(|| Bytes::copy_from_slice(body), |parts| parts.fields))
        }
    };
    let json = mapper.json_in_form(&text).filter(|_| form == BodyForm::Form);
    let fields_of_form = json.as_ref().map(|_| text.clone());
    let (form, text) = json.map_or((form, text), |json| (BodyForm::Json, json.into()));
    let shown = IncomingRequest { body: &text, form: fields_of_form.as_deref(), ..incoming };
    let split = mapper.split(&shown, &text, form).map_err(|error| match error {
        SplitError::Invalid(invalid) => anyhow::Error::new(invalid),
        SplitError::TooMany(_) => anyhow::anyhow!("it has more events than a request may have"),
    })?;
    let events: Vec<EventFields> = match split {
        Some(split) => split.events().collect(),
        None => vec![mapper.read(&shown, &text, form)?],
    };
    let pairs: Vec<(&str, String)> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let headers = serde_json::to_string(&pairs)?;
    let input = |fields: EventFields| FilterInput {
        id: EventId::generate(),
        event_type: fields.event_type,
        subject: fields.subject,
        provider: spec.provider.as_str().into(),
        external_event_id: fields.external_event_id,
        occurred_at: fields.occurred_at.unwrap_or_else(Timestamp::now),
        body_form: form,
        payload: text.slice(fields.payload),
        headers: headers.clone(),
    };
    Ok(events.into_iter().map(input).collect())
}

/// An event as the management API shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ShownEvent {
    id: Uuid,
    provider: String,
    external_event_id: Option<String>,
    event_type: String,
    subject: Option<String>,
    occurred_at: Timestamp,
    normalized_payload: Option<Box<RawValue>>,
    /// Of the webhook that is beside it.
    #[serde(default)]
    request_headers: serde_json::Map<String, Value>,
}

/// Returns the event of an answer of the management API; `None` if the text is something else.
fn shown_event(text: &[u8]) -> Option<ShownEvent> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Record<'a> {
        #[serde(borrow)]
        event: &'a RawValue,
        webhook: Option<ShownWebhook>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ShownWebhook {
        request_headers: serde_json::Map<String, Value>,
    }
    let text = std::str::from_utf8(text).ok()?;
    let text = serde_json::from_str::<Answer<'_>>(text).map_or(text, |answer| answer.data.get());
    let Ok(record) = serde_json::from_str::<Record<'_>>(text) else { return serde_json::from_str(text).ok() };
    let mut event: ShownEvent = serde_json::from_str(record.event.get()).ok()?;
    event.request_headers = record.webhook.map(|webhook| webhook.request_headers).unwrap_or_default();
    Some(event)
}

impl ShownEvent {
    fn into_input(self) -> anyhow::Result<FilterInput> {
        let Some(normalized) = self.normalized_payload else {
            bail!(
                "the answer has no payload, because it is longer than 64 KiB: take GET /events/{}",
                self.id
            );
        };
        Ok(FilterInput {
            id: EventId::new(self.id),
            event_type: self.event_type,
            subject: self.subject,
            provider: self.provider.into(),
            external_event_id: self.external_event_id,
            occurred_at: self.occurred_at,
            body_form: BodyForm::Json,
            payload: payload_of(&normalized)?,
            headers: serde_json::to_string(&self.request_headers.into_iter().collect::<Vec<_>>())?,
        })
    }
}

/// Returns the member of a normalized payload that is not one of its own.
fn payload_of(normalized: &RawValue) -> anyhow::Result<Bytes> {
    let members: std::collections::BTreeMap<String, &RawValue> = serde_json::from_str(normalized.get())?;
    let own = ["provider", "eventType", "externalEventId"];
    let payload = members.into_iter().find(|(name, _)| !own.contains(&name.as_str()));
    let (_, payload) = payload.context("the normalized payload has no payload")?;
    Ok(Bytes::copy_from_slice(payload.get().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(destinations: &str) -> IntegrationSpec {
        let spec = format!(
            r#"{{"provider": "acme", "verification": {{"secretRef": {{"name": "s"}}}}, "destinations": {destinations}}}"#
        );
        serde_json::from_str(&spec).expect("a spec")
    }

    fn reported(spec: &IntegrationSpec, event: &str) -> (String, bool) {
        let inputs = read_events(spec, &mapper(spec).expect("a mapper"), event.as_bytes()).expect("events");
        let [input] = inputs.as_slice() else { panic!("{inputs:?}") };
        report(spec, IntegrationFilters::new(spec).expect("filters").as_ref(), input)
    }

    const BODY: &str = r#"{"eventId":"evt-1","eventType":"order.created","occurredAt":"2026-01-31T10:00:00Z","data":{"id":"ord-1","total":1500}}"#;

    #[test]
    fn each_destination_is_explained() {
        let spec = spec(
            r#"[
                {"name": "all", "url": "https://a.example"},
                {"name": "invoices", "url": "https://a.example", "eventTypes": ["invoice.*"]},
                {"name": "large", "url": "https://a.example", "filter": "payload.total > 1000"},
                {"name": "small", "url": "https://a.example", "filter": "payload.total <= 1000"},
                {"name": "broken", "url": "https://a.example", "filter": "payload.customer.vip"},
                {"name": "strict", "url": "https://a.example", "filter": "payload.customer.vip", "filterOnError": "Drop"}
            ]"#,
        );
        let (report, has_failed) = reported(&spec, BODY);
        assert!(has_failed);
        insta::assert_snapshot!(report, @r"
          all                     delivered
          invoices                filtered: eventTypes leaves out its type
          large                   delivered
          small                   filtered: filter is false
          broken                  delivered, although filter cannot be evaluated (a field is absent; test for it with has(), or write .?name and .orValue())
          strict                  filtered: filter cannot be evaluated (a field is absent; test for it with has(), or write .?name and .orValue()), and filterOnError is Drop
        ");
    }

    #[test]
    fn an_event_is_read_in_all_its_forms() {
        let spec = spec(
            r#"[{"name": "a", "url": "https://a.example", "filter": "payload.total == 1500 && event.type == 'order.created'"}]"#,
        );
        let event = r#"{"id":"01935b6e-7a00-7000-8000-000000000001","provider":"acme","externalEventId":"evt-1",
            "eventType":"order.created","subject":null,"occurredAt":"2026-01-31T10:00:00.000Z",
            "normalizedPayload":{"provider":"acme","eventType":"order.created","externalEventId":"evt-1","data":{"total":1500}}}"#;
        let record = format!(r#"{{"event":{event},"webhook":{{"requestHeaders":{{"x-a":"1"}}}}}}"#);
        let forms = [
            BODY.to_owned(),
            format!("POST /hooks HTTP/1.1\r\nContent-Type: application/json\r\n\r\n{BODY}"),
            event.to_owned(),
            record.clone(),
            format!(r#"{{"data":{record},"meta":{{}}}}"#),
        ];
        for form in forms {
            let (report, has_failed) = reported(&spec, &form);
            assert!(!has_failed && report.contains("delivered"), "{form}: {report}");
        }
    }
}
