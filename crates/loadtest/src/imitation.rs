//! The webhooks of any preset that is signed with an HMAC: its fixture, numbered, made longer, and signed as its scheme says.
//!
//! The scheme is read here anew, so that the probe shares nothing with what it probes. All that can be is done before the
//! first event: what is left of message, body and headers is constant text with gaps for number, time and signature.

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use grapnel_crds::{Hash, KeyEncoding, Scheme, SchemeType, Separator, SignatureEncoding, TimeUnit};
use http::{HeaderName, HeaderValue};
use ring::hmac;
use secrecy::zeroize::Zeroizing;
use serde_json::Value;

use super::pattern::{Pattern, Values};
use grapnel_core::preset::Preset;

/// A preset as a sender.
pub(crate) struct Imitation {
    body: Pattern,
    headers: Vec<(HeaderName, Pattern)>,
    message: Vec<Piece>,
    key: hmac::Key,
    encoding: SignatureEncoding,
}

/// A part of what is signed.
enum Piece {
    Body,
    Text(Pattern),
}

/// The fixture as text, with the marks that a [`Pattern`] has gaps for.
struct Marked {
    body: String,
    headers: Vec<(String, String)>,
}

impl Imitation {
    /// `url` is what the provider was given, and `run` is part of every event.
    ///
    /// # Errors
    /// When the preset needs what is not imitated, or the secret is no key for it.
    pub(crate) fn new(
        preset: &Preset,
        secret: &[u8],
        url: &str,
        run: &str,
        body_bytes: usize,
    ) -> anyhow::Result<Imitation> {
        let scheme = &preset.verification;
        let algorithm = match (scheme.kind, scheme.hash.unwrap_or(Hash::Sha256)) {
            (Some(SchemeType::Hmac), Hash::Sha1) => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            (Some(SchemeType::Hmac), Hash::Sha256) => hmac::HMAC_SHA256,
            (Some(SchemeType::Hmac), Hash::Sha384) => hmac::HMAC_SHA384,
            (Some(SchemeType::Hmac), Hash::Sha512) => hmac::HMAC_SHA512,
            _ => bail!("{} is not signed with an HMAC", preset.provider),
        };
        let key = hmac::Key::new(algorithm, &key(scheme, secret)?);
        let mut marked = Marked::new(preset, run, body_bytes)?;
        let time = marked.time(scheme)?;
        let message = marked.message(scheme, &time, url)?;
        if let Some((name, value)) = header(scheme, &time)? {
            marked.headers.push((name, value));
        }
        let header = |(name, value): &(String, String)| {
            let name = HeaderName::try_from(name).context("use a header of the preset")?;
            Ok((name, Pattern::parse(value)))
        };
        let signature = scheme.signature.as_ref();
        Ok(Imitation {
            body: Pattern::parse(&marked.body),
            headers: marked.headers.iter().map(header).collect::<anyhow::Result<_>>()?,
            message,
            key,
            encoding: signature.and_then(|signature| signature.encoding).unwrap_or(SignatureEncoding::Hex),
        })
    }

    /// The event with these values: its body, and its headers beside those that all events have.
    pub(crate) fn compose(
        &self,
        values: &Values<'_>,
    ) -> anyhow::Result<(Bytes, Vec<(HeaderName, HeaderValue)>)> {
        let mut body = self.body.text(values);
        let mut mac = hmac::Context::with_key(&self.key);
        for piece in &self.message {
            match piece {
                Piece::Body => mac.update(&body),
                Piece::Text(pattern) => pattern.write(values, &mut |text| mac.update(text)),
            }
        }
        let signature = match self.encoding {
            SignatureEncoding::Base64 => STANDARD.encode(mac.sign()),
            SignatureEncoding::Hex => hex::encode(mac.sign()),
        };
        let values = values.signed(signature.as_bytes());
        if self.body.is_signed() {
            body = self.body.text(&values);
        }
        let header = |(name, pattern): &(HeaderName, Pattern)| {
            let value = HeaderValue::from_maybe_shared(Bytes::from(pattern.text(&values)))?;
            Ok((name.clone(), value))
        };
        Ok((body.into(), self.headers.iter().map(header).collect::<anyhow::Result<_>>()?))
    }
}

fn key(scheme: &Scheme, secret: &[u8]) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let key = scheme.key.clone().unwrap_or_default();
    let prefix = key.strip_prefix.unwrap_or_default();
    let text = secret.strip_prefix(prefix.as_bytes()).unwrap_or(secret);
    // The cause would repeat a part of it.
    let bytes = match key.encoding {
        Some(KeyEncoding::Base64) => STANDARD.decode(text).ok().context("the secret is not base64")?,
        Some(KeyEncoding::Hex) => hex::decode(text).ok().context("the secret is not hexadecimal")?,
        Some(KeyEncoding::Utf8 | KeyEncoding::Seed) | None => text.to_vec(),
    };
    Ok(Zeroizing::new(bytes))
}

/// The header that carries the signature; `None` when the body does, which is marked for it.
fn header(scheme: &Scheme, time: &str) -> anyhow::Result<Option<(String, String)>> {
    let source = scheme.signature.clone().unwrap_or_default();
    let (kind, name) = source.from.as_deref().and_then(|from| from.split_once(':')).unwrap_or_default();
    let name = match kind {
        "header" => name.to_owned(),
        "headerPrefix" => format!("{name}1"),
        "json" => return Ok(None),
        _ => bail!("a signature in {kind}:{name} is not imitated"),
    };
    let mut value = format!("{}@signature@", source.prefix.unwrap_or_default());
    if let Some(field) = source.field.filter(|field| !field.is_empty()) {
        value = format!("{field}={value}");
    }
    let separator = match source.separator {
        Some(Separator::Semicolon) => ";",
        Some(Separator::Space) => " ",
        Some(Separator::Comma | Separator::None) | None => ",",
    };
    let from = scheme.timestamp.as_ref().and_then(|timestamp| timestamp.from.as_deref()).unwrap_or_default();
    match from.split_once(':') {
        Some(("field", name)) => value = format!("{name}={time}{separator}{value}"),
        Some(("item", _)) => value = format!("{time}{separator}{value}"),
        _ => {}
    }
    Ok(Some((name, value)))
}

impl Marked {
    fn new(preset: &Preset, run: &str, body_bytes: usize) -> anyhow::Result<Marked> {
        let fixture = &preset.fixture;
        if fixture.query.is_some() {
            bail!("webhooks with a query are not imitated");
        }
        let event = format!("{run}-@number@");
        let mut body = fixture.body.clone();
        let mut headers: Vec<(String, String)> =
            fixture.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        if let Some(id) = &fixture.event.external_event_id {
            body = body.replace(&format!("\"{id}\""), &format!("\"{event}\""));
            headers
                .iter_mut()
                .filter(|(_, value)| value == id)
                .for_each(|(_, value)| value.clone_from(&event));
        }
        let missing = body_bytes.saturating_sub(body.len() + 32);
        let padding: String = ('a'..='z').cycle().take(missing).collect();
        if let Some(at) = body.find('{') {
            let comma = if body[at + 1..].trim_start().starts_with('}') { "" } else { "," };
            body.insert_str(at + 1, &format!(r#""probe":"{event} {padding}"{comma}"#));
        } else if body.contains('=') {
            body.push_str(&format!("&Probe={event}"));
            // As many short fields as such forms have.
            for index in 0..missing / 41 {
                body.push_str(&format!("&Field{index:02}={}", &padding[..32]));
            }
        } else {
            bail!("the webhooks of {} are neither JSON nor forms", preset.provider);
        }
        Ok(Marked { body, headers })
    }

    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    fn member(&self, pointer: &str) -> anyhow::Result<String> {
        let body: Value = serde_json::from_str(&self.body).context("read the fixture as JSON")?;
        Ok(match body.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        })
    }

    /// The time as the provider sends it.
    fn time(&self, scheme: &Scheme) -> anyhow::Result<String> {
        let Some(source) = &scheme.timestamp else { return Ok(String::new()) };
        Ok(match source.from.as_deref().and_then(|from| from.split_once(':')) {
            Some(("header", name)) => self.header(name).to_owned(),
            Some(("json", pointer)) => self.member(pointer).unwrap_or_default(),
            _ => match source.unit {
                Some(TimeUnit::Ms) => "@nowMs@".to_owned(),
                Some(TimeUnit::Iso8601) => "@nowIso@".to_owned(),
                Some(TimeUnit::S) | None => "@now@".to_owned(),
            },
        })
    }

    fn message(&self, scheme: &Scheme, time: &str, url: &str) -> anyhow::Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = scheme.message.as_deref().unwrap_or_default();
        while let Some((literal, after)) = rest.split_once('{') {
            let (placeholder, after) = after.split_once('}').context("read the preset's message")?;
            text.push_str(literal);
            rest = after;
            // There is nothing to unescape in what is sent.
            match placeholder.trim_end_matches("|unescape") {
                "body" => {
                    pieces.push(Piece::Text(Pattern::parse(&std::mem::take(&mut text))));
                    pieces.push(Piece::Body);
                }
                "timestamp" => text.push_str(time),
                "method" => text.push_str("POST"),
                "url" => text.push_str(url),
                "form:sorted" => {
                    let mut fields: Vec<_> = url::form_urlencoded::parse(self.body.as_bytes()).collect();
                    fields.sort();
                    fields.iter().for_each(|(name, value)| text.extend([&**name, &**value]));
                }
                other => match other.split_once(':') {
                    Some(("header", name)) => text.push_str(self.header(name)),
                    Some(("json", pointer)) => text.push_str(&self.member(pointer)?),
                    _ => bail!("{{{other}}} is not imitated"),
                },
            }
        }
        text.push_str(rest);
        pieces.push(Piece::Text(Pattern::parse(&text)));
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, Uri};
    use jiff::Timestamp;

    use super::*;
    use grapnel_core::compiled_provider::CompiledProvider;
    use grapnel_core::preset;
    use grapnel_core::request::IncomingRequest;
    use grapnel_testing::secret::test_secret;

    const URL: &str = "http://127.0.0.1:8080/api/v1/webhooks/r";
    const NOW_MS: i64 = 1_769_850_000_250;

    /// Those that the probe does not imitate.
    const OTHERS: [&str; 0] = [];

    #[test]
    fn webhooks_of_hmac_presets_verify_and_are_events_of_their_own() {
        for name in preset::providers() {
            let preset = preset::find(name).expect("a preset");
            if preset.verification.kind != Some(SchemeType::Hmac) {
                continue;
            }
            let secret = test_secret(&preset.verification);
            let imitation = match Imitation::new(&preset, secret.as_bytes(), URL, "run", 1024) {
                Ok(imitation) => imitation,
                Err(error) => {
                    assert!(OTHERS.contains(&name), "{name}: {error:#}");
                    continue;
                }
            };
            let compiled = CompiledProvider::of_preset(&preset, &[&secret]).expect("it compiles");
            let mut events = Vec::new();
            for number in [b"7".as_slice(), b"123456"] {
                let values = Values::new(number, NOW_MS, b"2026-01-31T09:00:00.250Z");
                let (body, headers) = imitation.compose(&values).expect("an event");
                assert!((900..=1200).contains(&body.len()), "{name}: {}", body.len());
                let headers: HeaderMap = headers.into_iter().collect();
                let (method, uri) = (Method::POST, Uri::from_static("/api/v1/webhooks/r"));
                let public_url = Some("http://127.0.0.1:8080");
                let incoming = IncomingRequest {
                    method: &method,
                    uri: &uri,
                    headers: &headers,
                    body: &body,
                    public_url,
                    json: None,
                };
                let now = Timestamp::from_millisecond(NOW_MS).expect("a time");
                let judged = compiled.verifier.verify(&incoming, now);
                assert!(judged.is_ok(), "{name}: {judged:?}");
                let form = compiled.mapper.body_form(&headers).expect("a form");
                let fields = compiled.mapper.read(&incoming, form).expect("fields");
                events.push((fields.external_event_id.is_some(), fields.external_event_id, body));
            }
            assert_ne!(events[0].2, events[1].2, "{name}");
            assert!(!events[0].0 || events[0].1 != events[1].1, "{name} has one id for all");
        }
    }

    #[test]
    fn what_is_not_imitated_is_refused() {
        for name in ["discord", "globex", "paypal"] {
            let preset = preset::find(name).expect("a preset");
            assert!(Imitation::new(&preset, b"secret", URL, "run", 1024).is_err(), "{name}");
        }
        let adyen = preset::find("adyen").expect("a preset");
        let error = Imitation::new(&adyen, b"no hex", URL, "run", 1024).err().expect("refused");
        assert!(!format!("{error:#}").contains("no hex"));
    }
}
