//! The requests of a run. Everything that does not depend on the event is written once; composing an event is a few copies into
//! a buffer that each lane uses again.

use std::ops::Range;
use std::time::Instant;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use grapnel_core::preset;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;
use jiff::Timestamp;
use secrecy::ExposeSecret;

use self::clock_text::ClockText;
use crate::byte_template::EventValues;
use crate::config::{Config, Provider, Target};
use crate::credentials::Credentials;
use crate::decimal::decimal;
use crate::event_body::EventBody;
use crate::signer::PresetSigner;

mod clock_text;

/// The parts of a request that all events share.
pub(crate) struct RequestTemplate {
    form: EventForm,
    headers: HeaderMap,
    target: Target,
    /// The same moment on both clocks.
    origin: (Instant, Timestamp),
}

/// The form of the events of a run.
enum EventForm {
    /// Numbered, so that deliveries are recognized.
    Own {
        body: EventBody,
        /// Whether the body is a list of events.
        is_list: bool,
        credentials: Credentials,
    },
    Preset(PresetSigner),
}

/// The events of one request, ready to be sent any number of times.
pub(crate) struct SignedEvent {
    body: Bytes,
    /// The headers that not all events share.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl RequestTemplate {
    pub(crate) fn new(config: &Config) -> anyhow::Result<RequestTemplate> {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(HOST, config.target.host_header().clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static("grapnel-loadtest"));
        let form = match config.provider {
            Provider::Preset(name) => {
                let preset = preset::find(name).context("unknown preset")?;
                let secret = config.secret.expose_secret().as_bytes();
                let (url, run) = (config.target.to_string(), config.run_id.as_str());
                EventForm::Preset(PresetSigner::new(&preset, secret, &url, run, config.body_bytes)?)
            }
            Provider::Acme | Provider::Globex => EventForm::Own {
                body: EventBody::new(config.provider, &config.run_id, config.body_bytes)?,
                is_list: config.elements > 1,
                credentials: Credentials::new(config.provider, &config.secret)?,
            },
        };
        Ok(RequestTemplate {
            form,
            headers,
            target: config.target.clone(),
            origin: (Instant::now(), Timestamp::now()),
        })
    }

    /// Returns a composer of events. Each lane has its own.
    pub(crate) fn composer(&self) -> EventComposer<'_> {
        EventComposer { template: self, buffer: BytesMut::new(), clock: ClockText::default() }
    }

    /// Returns the request that sends an event.
    pub(crate) fn request(&self, event: &SignedEvent) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(event.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.path().clone();
        let mut headers = self.headers.clone();
        for (name, value) in &event.headers {
            headers.insert(name.clone(), value.clone());
        }
        *request.headers_mut() = headers;
        request
    }
}

/// Composes events into a buffer that it uses again.
pub(crate) struct EventComposer<'a> {
    template: &'a RequestTemplate,
    buffer: BytesMut,
    clock: ClockText,
}

impl EventComposer<'_> {
    /// Composes the events with these numbers at the time `now`.
    pub(crate) fn compose(&mut self, numbers: Range<u64>, now: Instant) -> anyhow::Result<SignedEvent> {
        let (then, then_wall_clock) = self.template.origin;
        let since =
            i64::try_from(now.saturating_duration_since(then).as_millis()).context("read the clock")?;
        let unix_ms = then_wall_clock.as_millisecond() + since;
        let time = self.clock.text(unix_ms);
        match &self.template.form {
            EventForm::Own { body, is_list, credentials } => {
                for number in numbers.clone() {
                    if *is_list {
                        self.buffer.extend_from_slice(if number == numbers.start { b"[" } else { b"," });
                    }
                    body.write(&mut self.buffer, number, time);
                }
                if *is_list {
                    self.buffer.extend_from_slice(b"]");
                }
                let body = self.buffer.split().freeze();
                let header = credentials.header(&body, &mut self.buffer)?;
                Ok(SignedEvent { body, headers: vec![header] })
            }
            EventForm::Preset(signer) => {
                let mut digits = [0; 20];
                let values = EventValues::new(decimal(numbers.start, &mut digits), unix_ms, time);
                let (body, headers) = signer.compose(&values)?;
                Ok(SignedEvent { body, headers })
            }
        }
    }
}
