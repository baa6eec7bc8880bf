//! The events themselves: a body that is written once, with number and time patched in for each event, and the
//! check that what was delivered is what was sent under that number.
//!
//! The text around number and time is constant for a run, so composing an event is a few copies into a buffer that
//! each lane uses again. An event's id is `RUN-NUMBER`, in plain decimal.

use std::time::Instant;

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;
use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::config::{Config, Provider, RunId, Target};
use super::imitation::Imitation;
use super::pattern::Values;
use super::signature::Credentials;
use grapnel_core::preset;

const TIME_LENGTH: usize = "2026-01-01T00:00:00.000Z".len();

/// Everything about a request that does not change.
pub(crate) struct Template {
    form: Form,
    headers: HeaderMap,
    target: Target,
    /// A pair of readings of the two clocks.
    origin: (Instant, Timestamp),
}

/// Of what the events are made.
enum Form {
    /// Numbered so that their deliveries are recognized.
    Own {
        text: Text,
        credentials: Credentials,
    },
    Preset(Imitation),
}

/// One event, ready to be sent any number of times.
pub(crate) struct Message {
    body: Bytes,
    /// Those beside the headers that all events have.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Template {
    pub(crate) fn new(config: &Config) -> anyhow::Result<Template> {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(HOST, config.target.host_header().clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static("grapnel-probe"));
        let form = match config.provider {
            Provider::Preset(name) => {
                let preset = preset::find(name).context("there is no such preset")?;
                let secret = config.secret.expose_secret().as_bytes();
                let (url, run) = (config.target.to_string(), config.run_id.as_str());
                Form::Preset(Imitation::new(&preset, secret, &url, run, config.body_bytes)?)
            }
            Provider::Acme | Provider::Globex => Form::Own {
                text: Text::new(config.provider, &config.run_id, config.body_bytes)?,
                credentials: Credentials::new(config.provider, &config.secret)?,
            },
        };
        Ok(Template {
            form,
            headers,
            target: config.target.clone(),
            origin: (Instant::now(), Timestamp::now()),
        })
    }

    /// A writer of this template's messages. Each lane has its own.
    pub(crate) fn composer(&self) -> Composer<'_> {
        Composer { template: self, buffer: BytesMut::new(), clock: ClockText::default() }
    }

    pub(crate) fn request(&self, message: &Message) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(message.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.path().clone();
        let mut headers = self.headers.clone();
        for (name, value) in &message.headers {
            headers.insert(name.clone(), value.clone());
        }
        *request.headers_mut() = headers;
        request
    }
}

pub(crate) struct Composer<'a> {
    template: &'a Template,
    buffer: BytesMut,
    clock: ClockText,
}

impl Composer<'_> {
    /// The event `number`, stamped with the time of `now`.
    pub(crate) fn compose(&mut self, number: u64, now: Instant) -> anyhow::Result<Message> {
        let (then, then_on_the_wall) = self.template.origin;
        let since =
            i64::try_from(now.saturating_duration_since(then).as_millis()).context("read the clock")?;
        let unix_ms = then_on_the_wall.as_millisecond() + since;
        let time = self.clock.text(unix_ms);
        match &self.template.form {
            Form::Own { text, credentials } => {
                text.write(&mut self.buffer, number, time);
                let body = self.buffer.split().freeze();
                let header = credentials.header(&body, &mut self.buffer)?;
                Ok(Message { body, headers: vec![header] })
            }
            Form::Preset(imitation) => {
                let mut digits = [0; 20];
                let values = Values::new(decimal(number, &mut digits), unix_ms, time);
                let (body, headers) = imitation.compose(&values)?;
                Ok(Message { body, headers })
            }
        }
    }
}

/// RFC 3339 with milliseconds. The calendar is asked once a second.
#[derive(Default)]
struct ClockText {
    second: Option<i64>,
    text: [u8; TIME_LENGTH],
}

impl ClockText {
    fn text(&mut self, unix_ms: i64) -> &[u8; TIME_LENGTH] {
        let (second, millisecond) = (unix_ms.div_euclid(1000), unix_ms.rem_euclid(1000));
        if self.second != Some(second) {
            let time = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
            let text = time.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string();
            if let Some(text) = text.as_bytes().first_chunk() {
                self.text = *text;
            }
            self.second = Some(second);
        }
        let [.., hundreds, tens, ones, _zone] = &mut self.text;
        for (digit, value) in
            [(hundreds, millisecond / 100), (tens, millisecond / 10 % 10), (ones, millisecond % 10)]
        {
            *digit = b'0' + value as u8;
        }
        &self.text
    }
}

/// The constant text of all bodies of a run.
pub(crate) struct Text {
    head: Vec<u8>,
    after_id: Vec<u8>,
    after_time: Vec<u8>,
    after_data_id: Vec<u8>,
    after_number: &'static [u8],
    tail: Vec<u8>,
    data: &'static str,
    run: String,
    padding: String,
}

/// What a delivered body says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// An event of this run.
    Ours(u64),
    /// It names this run, but a number that no run uses or that is not written as we write it.
    OutOfRange,
    /// Of another run, or not of a probe at all.
    Foreign,
    /// It has no event id.
    Unreadable,
}

/// How the data of a delivered body compares with what was sent under its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Integrity {
    Same,
    /// Equal as JSON, but not byte for byte.
    Reencoded,
    Altered,
}

impl Text {
    /// # Errors
    /// For the webhooks of a preset: nothing in their deliveries says which event they are.
    pub(crate) fn new(provider: Provider, run: &RunId, body_bytes: usize) -> anyhow::Result<Text> {
        let run = run.as_str();
        let (head, after_id, after_time, data) = match provider {
            Provider::Acme => (
                format!(r#"{{"eventId":"{run}-"#),
                r#"","eventType":"probe.sent","occurredAt":""#,
                format!(r#"","data":{{"id":"{run}-"#),
                "data",
            ),
            Provider::Globex => (
                format!(r#"{{"id":"{run}-"#),
                r#"","type":"probe.sent","timestamp":""#,
                format!(r#"","resource":{{"id":"{run}-"#),
                "resource",
            ),
            Provider::Preset(name) => {
                bail!("deliveries of {name} cannot be told apart: they can only be sent with --no-sink")
            }
        };
        let after_data_id = format!(r#"","probe":{{"run":"{run}","number":"#);
        let after_number: &'static [u8] = br#","sentAt":""#;
        let before_padding = r#""},"padding":""#;
        // Numbers are counted with five digits.
        let rest = head.len() + after_id.len() + after_time.len() + after_data_id.len() + after_number.len();
        let rest = rest + before_padding.len() + r#""}}"#.len() + 3 * 5 + 2 * TIME_LENGTH;
        let padding: String = ('a'..='z').cycle().take(body_bytes.saturating_sub(rest)).collect();
        Ok(Text {
            head: head.into_bytes(),
            after_id: after_id.as_bytes().to_vec(),
            after_time: after_time.into_bytes(),
            after_data_id: after_data_id.into_bytes(),
            after_number,
            tail: format!(r#"{before_padding}{padding}"}}}}"#).into_bytes(),
            data,
            run: run.to_owned(),
            padding,
        })
    }

    fn write(&self, buffer: &mut BytesMut, number: u64, time: &[u8; TIME_LENGTH]) {
        let mut digits = [0; 20];
        let number = decimal(number, &mut digits);
        // One allocation for body and signature; in the steady state it is the memory of the last message.
        buffer.reserve(self.head.len() + self.after_id.len() + self.after_time.len() + self.tail.len() + 384);
        for part in [
            &self.head,
            number,
            &self.after_id,
            time,
            &self.after_time,
            number,
            &self.after_data_id,
            number,
            self.after_number,
            time,
            &self.tail,
        ] {
            buffer.extend_from_slice(part);
        }
    }

    /// Which event a delivered body is. Reads no more of it than it must.
    pub(crate) fn identify(&self, body: &[u8]) -> Identity {
        let Some(rest) = after(body, br#""externalEventId""#).and_then(|rest| skip(rest, b':')) else {
            return Identity::Unreadable;
        };
        let Some(id) = skip(rest, b'"') else {
            return if rest.trim_ascii_start().starts_with(b"null") {
                Identity::Foreign
            } else {
                Identity::Unreadable
            };
        };
        let Some(length) = id.iter().position(|byte| *byte == b'"') else { return Identity::Unreadable };
        let number = id[..length].strip_prefix(self.run.as_bytes()).and_then(|rest| rest.strip_prefix(b"-"));
        let Some(digits) =
            number.filter(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
        else {
            return Identity::Foreign;
        };
        let canonical = digits.len() == 1 || digits[0] != b'0';
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        match number {
            Some(number) if canonical => Identity::Ours(number),
            _ => Identity::OutOfRange,
        }
    }

    /// Whether the delivered data is that of `number`.
    pub(crate) fn compare(&self, body: &[u8], number: u64) -> Integrity {
        if self.is_verbatim(body, number).is_some() {
            return Integrity::Same;
        }
        let Ok(body) = serde_json::from_slice::<serde_json::Value>(body) else { return Integrity::Altered };
        let data = &body[self.data];
        let same = data["id"].as_str().is_some_and(|id| id == format!("{}-{number}", self.run))
            && data["probe"]["run"] == *self.run
            && data["probe"]["number"].as_u64() == Some(number)
            && data["probe"]["sentAt"].as_str().is_some_and(|time| time.len() == TIME_LENGTH)
            && data["padding"] == *self.padding;
        if same { Integrity::Reencoded } else { Integrity::Altered }
    }

    /// `Some` when the body has our data byte for byte (but for the time, which is not kept).
    fn is_verbatim(&self, body: &[u8], number: u64) -> Option<()> {
        let mut digits = [0; 20];
        let number = decimal(number, &mut digits);
        // Without the quote that ends the time before it in what we send.
        let rest = after(body, self.after_time.get(2..)?)?;
        let rest = rest.strip_prefix(number)?.strip_prefix(&self.after_data_id[..])?;
        let rest = rest.strip_prefix(number)?.strip_prefix(self.after_number)?;
        let rest = rest.get(TIME_LENGTH..)?;
        // The last brace closes our body; the delivered one may go on after the data.
        rest.starts_with(self.tail.get(..self.tail.len() - 1)?).then_some(())
    }
}

/// What follows the first occurrence of `needle`.
fn after<'a>(text: &'a [u8], needle: &[u8]) -> Option<&'a [u8]> {
    let at = text.windows(needle.len()).position(|window| window == needle)?;
    text.get(at + needle.len()..)
}

/// What follows `byte`, when that is next but for white space.
fn skip(text: &[u8], byte: u8) -> Option<&[u8]> {
    text.trim_ascii_start().strip_prefix(&[byte])
}

fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[start..];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn text(provider: Provider) -> Text {
        Text::new(provider, &RunId::parse("run-1").expect("a good id"), 1024).expect("a text")
    }

    fn body(provider: Provider, number: u64) -> Vec<u8> {
        let mut buffer = BytesMut::new();
        text(provider).write(&mut buffer, number, b"2026-11-24T10:00:00.123Z");
        buffer.to_vec()
    }

    /// What a gateway delivers for a body.
    fn relayed(body: &[u8]) -> Value {
        let sent: Value = serde_json::from_slice(body).expect("the body is JSON");
        match sent.get("eventId") {
            Some(id) => {
                json!({"provider": "acme", "eventType": sent["eventType"], "externalEventId": id, "data": sent["data"]})
            }
            None => {
                json!({"provider": "globex", "eventType": sent["type"], "externalEventId": sent["id"], "resource": sent["resource"]})
            }
        }
    }

    #[test]
    fn the_body_is_json_of_the_asked_size_in_the_providers_form() {
        let acme = body(Provider::Acme, 12_345);
        assert_eq!(acme.len(), 1024);
        let acme: Value = serde_json::from_slice(&acme).expect("the body is JSON");
        assert_eq!(acme["eventId"], "run-1-12345");
        assert_eq!(acme["eventType"], "probe.sent");
        assert_eq!(acme["occurredAt"], "2026-11-24T10:00:00.123Z");
        assert_eq!(acme["data"]["id"], "run-1-12345");
        assert_eq!(
            acme["data"]["probe"],
            json!({"run": "run-1", "number": 12_345, "sentAt": "2026-11-24T10:00:00.123Z"})
        );
        let globex: Value = serde_json::from_slice(&body(Provider::Globex, 0)).expect("the body is JSON");
        assert_eq!((&globex["id"], &globex["type"]), (&json!("run-1-0"), &json!("probe.sent")));
        assert_eq!(globex["timestamp"], globex["resource"]["probe"]["sentAt"]);
    }

    #[test]
    fn a_delivered_event_is_found_and_compared() {
        let text = text(Provider::Acme);
        let sent = body(Provider::Acme, 7);
        let data = sent.windows(7).position(|window| window == b"\"data\":").expect("it has data");
        let verbatim =
            [br#"{"provider":"acme","eventType":"probe.sent","externalEventId":"run-1-7","#, &sent[data..]]
                .concat();
        assert_eq!(text.identify(&verbatim), Identity::Ours(7));
        assert_eq!(text.compare(&verbatim, 7), Integrity::Same);
        assert_eq!(text.compare(&verbatim, 8), Integrity::Altered);
        let reencoded = serde_json::to_vec_pretty(&relayed(&sent)).expect("it is JSON");
        assert_eq!(text.identify(&reencoded), Identity::Ours(7));
        assert_eq!(text.compare(&reencoded, 7), Integrity::Reencoded);
        let mut shortened = relayed(&sent);
        shortened["data"]["padding"] = json!("abc");
        assert_eq!(text.compare(shortened.to_string().as_bytes(), 7), Integrity::Altered);
        let globex = self::text(Provider::Globex);
        let relayed = relayed(&body(Provider::Globex, 7)).to_string();
        assert_eq!(globex.identify(relayed.as_bytes()), Identity::Ours(7));
        assert_ne!(globex.compare(relayed.as_bytes(), 7), Integrity::Altered);
    }

    #[test]
    fn only_this_runs_ids_count_as_ours() {
        let text = text(Provider::Acme);
        for (id, identity) in [
            (r#""run-1-0""#, Identity::Ours(0)),
            (r#""run-1-49999999""#, Identity::Ours(49_999_999)),
            (r#""run-1-007""#, Identity::OutOfRange),
            (r#""run-1-99999999999999999999""#, Identity::OutOfRange),
            (r#""run-1-""#, Identity::Foreign),
            (r#""run-1-+7""#, Identity::Foreign),
            (r#""run-1-7-8""#, Identity::Foreign),
            (r#""run-2-7""#, Identity::Foreign),
            (r#""xrun-1-7""#, Identity::Foreign),
            ("null", Identity::Foreign),
            ("7", Identity::Unreadable),
            (r#""run-1-7"#, Identity::Unreadable),
        ] {
            let body = format!(r#"{{"provider":"acme", "externalEventId" : {id}"#);
            assert_eq!(text.identify(body.as_bytes()), identity, "{id}");
        }
        assert_eq!(text.identify(b"{}"), Identity::Unreadable);
    }

    #[test]
    fn the_clock_is_written_like_the_calendar_says() {
        let mut clock = ClockText::default();
        for unix_ms in [0, 1, 999, 1000, 1_764_000_000_123, 1_764_000_000_124, 1_764_000_059_999, -1] {
            let expected = Timestamp::from_millisecond(unix_ms).expect("in range");
            let text = std::str::from_utf8(clock.text(unix_ms)).expect("ASCII");
            assert_eq!(text.parse::<Timestamp>().expect("a time"), expected);
            assert_eq!(text.len(), TIME_LENGTH);
        }
    }

    proptest! {
        #[test]
        fn decimal_is_what_format_says(number: u64) {
            let mut digits = [0; 20];
            let text = number.to_string();
            prop_assert_eq!(decimal(number, &mut digits), text.as_bytes());
        }

        #[test]
        fn an_id_is_ours_only_when_it_stands_there_exactly(
            pieces in proptest::collection::vec(
                proptest::sample::select(vec![r#""externalEventId""#, ":", "\"", "run-1-", "7", "0", " ", "null", ","]),
                0..12,
            )
        ) {
            let body = pieces.concat();
            if let Identity::Ours(number) = text(Provider::Acme).identify(body.as_bytes()) {
                let exact = format!("\"run-1-{number}\"");
                prop_assert!(body.contains(&exact), "{} in {}", exact, body);
            }
        }

        #[test]
        fn any_body_is_identified_without_panic(body: Vec<u8>) {
            let text = text(Provider::Acme);
            prop_assert!(!matches!(text.identify(&body), Identity::Ours(_)));
            prop_assert_eq!(text.compare(&body, 1), Integrity::Altered);
        }
    }
}
