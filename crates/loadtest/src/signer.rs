//! The webhooks of any preset that is signed with an HMAC: its fixture, numbered, padded, and signed by its scheme.
//!
//! The scheme is interpreted here independently of the code under test. Everything that does not depend on the event is done
//! before the first one: message, body and headers become constant text with placeholders for number, time and signature.

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use grapnel_core::preset::Preset;
use grapnel_crds::{HashAlgorithm, KeyEncoding, Scheme, SchemeType, Separator, SignatureEncoding};
use http::{HeaderName, HeaderValue};
use ring::hmac;
use secrecy::zeroize::Zeroizing;

use self::fixture_template::FixtureTemplate;
use crate::byte_template::{ByteTemplate, EventValues};

mod fixture_template;

/// Composes and signs the webhooks of one preset.
pub(crate) struct PresetSigner {
    body: ByteTemplate,
    headers: Vec<(HeaderName, ByteTemplate)>,
    message: Vec<SignedPart>,
    key: hmac::Key,
    encoding: SignatureEncoding,
}

/// A part of the signed message.
enum SignedPart {
    Body,
    Template(ByteTemplate),
}

impl PresetSigner {
    /// `url` is the URL that the provider calls, and `run` is part of every event.
    ///
    /// # Errors
    /// When the scheme of the preset is not supported, or the secret is not a key for it.
    pub(crate) fn new(
        preset: &Preset,
        secret: &[u8],
        url: &str,
        run: &str,
        body_bytes: usize,
    ) -> anyhow::Result<PresetSigner> {
        let scheme = &preset.verification;
        let algorithm = match (scheme.kind, scheme.hash.unwrap_or(HashAlgorithm::Sha256)) {
            (Some(SchemeType::Hmac), HashAlgorithm::Sha1) => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            (Some(SchemeType::Hmac), HashAlgorithm::Sha256) => hmac::HMAC_SHA256,
            (Some(SchemeType::Hmac), HashAlgorithm::Sha384) => hmac::HMAC_SHA384,
            (Some(SchemeType::Hmac), HashAlgorithm::Sha512) => hmac::HMAC_SHA512,
            _ => bail!("{} is not signed with an HMAC", preset.provider),
        };
        let key = hmac::Key::new(algorithm, &key(scheme, secret)?);
        let mut fixture = FixtureTemplate::new(preset, run, body_bytes)?;
        let time = fixture.time(scheme)?;
        let message = fixture.signed_parts(scheme, &time, url)?;
        if let Some((name, value)) = signature_header(scheme, &time)? {
            fixture.headers.push((name, value));
        }
        let header = |(name, value): &(String, String)| {
            let name = HeaderName::try_from(name).context("use a header of the preset")?;
            Ok((name, ByteTemplate::parse(value)))
        };
        let signature = scheme.signature.as_ref();
        Ok(PresetSigner {
            body: ByteTemplate::parse(&fixture.body),
            headers: fixture.headers.iter().map(header).collect::<anyhow::Result<_>>()?,
            message,
            key,
            encoding: signature.and_then(|signature| signature.encoding).unwrap_or(SignatureEncoding::Hex),
        })
    }

    /// Composes the event with these values: its body, and the headers that not all events share.
    pub(crate) fn compose(
        &self,
        values: &EventValues<'_>,
    ) -> anyhow::Result<(Bytes, Vec<(HeaderName, HeaderValue)>)> {
        let mut body = self.body.to_bytes(values);
        let mut mac = hmac::Context::with_key(&self.key);
        for part in &self.message {
            match part {
                SignedPart::Body => mac.update(&body),
                SignedPart::Template(template) => template.write(values, &mut |text| mac.update(text)),
            }
        }
        let signature = match self.encoding {
            SignatureEncoding::Base64 => STANDARD.encode(mac.sign()),
            SignatureEncoding::Hex => hex::encode(mac.sign()),
        };
        let values = values.signed(signature.as_bytes());
        if self.body.has_signature() {
            body = self.body.to_bytes(&values);
        }
        let header = |(name, template): &(HeaderName, ByteTemplate)| {
            let value = HeaderValue::from_maybe_shared(Bytes::from(template.to_bytes(&values)))?;
            Ok((name.clone(), value))
        };
        Ok((body.into(), self.headers.iter().map(header).collect::<anyhow::Result<_>>()?))
    }
}

/// Decodes the secret as the scheme requires.
fn key(scheme: &Scheme, secret: &[u8]) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let key = scheme.key.clone().unwrap_or_default();
    let prefix = key.strip_prefix.unwrap_or_default();
    let text = secret.strip_prefix(prefix.as_bytes()).unwrap_or(secret);
    // The cause would contain a part of the secret.
    let bytes = match key.encoding {
        Some(KeyEncoding::Base64) => STANDARD.decode(text).ok().context("the secret is not base64")?,
        Some(KeyEncoding::Hex) => hex::decode(text).ok().context("the secret is not hexadecimal")?,
        Some(KeyEncoding::Utf8 | KeyEncoding::Seed) | None => text.to_vec(),
    };
    Ok(Zeroizing::new(bytes))
}

/// Returns the header of the signature, or `None` when the body carries it, in the place that the fixture marks.
fn signature_header(scheme: &Scheme, time: &str) -> anyhow::Result<Option<(String, String)>> {
    let source = scheme.signature.clone().unwrap_or_default();
    let (kind, name) = source.from.as_deref().and_then(|from| from.split_once(':')).unwrap_or_default();
    let name = match kind {
        "header" => name.to_owned(),
        "headerPrefix" => format!("{name}1"),
        "json" => return Ok(None),
        _ => bail!("a signature in {kind}:{name} is not supported"),
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

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, Uri};
    use jiff::Timestamp;
    use serde_json::Value;

    use super::*;
    use grapnel_core::compiled_provider::CompiledProvider;
    use grapnel_core::preset;
    use grapnel_core::request::IncomingRequest;
    use grapnel_testing::WebhookRequest;
    use grapnel_testing::signer::{PLACEHOLDER, Placement, Signer};

    const URL: &str = "http://127.0.0.1:8080/api/v1/webhooks/r";
    const NOW_MS: i64 = 1_769_850_000_250;

    /// Presets that are not supported: their JSON is in a field of a form.
    const UNSUPPORTED: [&str; 1] = ["mandrill"];

    #[test]
    fn webhooks_of_hmac_presets_verify_and_are_distinct_events() {
        for name in preset::providers() {
            let preset = preset::find(name).expect("a preset");
            if preset.verification.kind != Some(SchemeType::Hmac) {
                continue;
            }
            let secret = Signer::new(&preset.verification).secret;
            let signer = match PresetSigner::new(&preset, secret.as_bytes(), URL, "run", 1024) {
                Ok(signer) => signer,
                Err(error) => {
                    assert!(UNSUPPORTED.contains(&name), "{name}: {error:#}");
                    continue;
                }
            };
            let compiled = CompiledProvider::of_preset(&preset, &[&secret]).expect("it compiles");
            let mut events = Vec::new();
            for number in [b"7".as_slice(), b"123456"] {
                let values = EventValues::new(number, NOW_MS, b"2026-01-31T09:00:00.250Z");
                let (body, headers) = signer.compose(&values).expect("an event");
                assert!((900..=1200).contains(&body.len()), "{name}: {}", body.len());
                let headers: HeaderMap = headers.into_iter().collect();
                let (method, uri) = (Method::POST, Uri::from_static("/api/v1/webhooks/r"));
                let public_url = Some("http://127.0.0.1:8080");
                let incoming = IncomingRequest {
                    method: &method,
                    uri: &uri,
                    headers: &headers,
                    body: &body,
                    encoded_body: None,
                    form: None,
                    public_url,
                    json: None,
                };
                let now = Timestamp::from_millisecond(NOW_MS).expect("a time");
                let judged = compiled.verifier.verify(&incoming, now);
                assert!(judged.is_ok(), "{name}: {judged:?}");
                let form = compiled.mapper.body_form(&headers, &body).expect("a form");
                let fields = match compiled.mapper.split(&incoming, &body, form).expect("JSON") {
                    Some(split) => {
                        assert_eq!(split.count(), 1, "{name}");
                        split.events().next().expect("an event")
                    }
                    None => compiled.mapper.read(&incoming, &body, form).expect("fields"),
                };
                events.push((fields.external_event_id.is_some(), fields.external_event_id, body));
            }
            assert_ne!(events[0].2, events[1].2, "{name}");
            assert!(!events[0].0 || events[0].1 != events[1].1, "{name} gives all events one id");
        }
    }

    #[test]
    fn signatures_are_those_of_an_independent_signer() {
        let now = Timestamp::from_millisecond(NOW_MS).expect("a time");
        for name in preset::providers() {
            let preset = preset::find(name).expect("a preset");
            if preset.verification.kind != Some(SchemeType::Hmac) || UNSUPPORTED.contains(&name) {
                continue;
            }
            let independent = Signer::new(&preset.verification);
            let signer = PresetSigner::new(&preset, independent.secret.as_bytes(), URL, "run", 1024);
            let values = EventValues::new(b"7", NOW_MS, b"2026-01-31T09:00:00.250Z");
            let (body, headers) = signer.expect("a supported preset").compose(&values).expect("an event");
            let mut sent = WebhookRequest::new("POST", "r");
            sent.public_url = "http://127.0.0.1:8080".to_owned();
            sent.body = body.to_vec();
            for (name, value) in &headers {
                sent = sent.header(name.as_str(), value.to_str().expect("text"));
            }
            let mut unsigned = sent.clone();
            match independent.placement("", "").expect("a place of the signature") {
                Placement::Header(name, _) => {
                    unsigned.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(&name));
                }
                Placement::Body(_) => {
                    let from =
                        preset.verification.signature.as_ref().and_then(|source| source.from.as_deref());
                    let pointer = from.and_then(|from| from.strip_prefix("json:")).expect("a JSON pointer");
                    let json: Value = serde_json::from_slice(&body).expect("JSON");
                    let signature = json.pointer(pointer).and_then(Value::as_str).expect("a signature");
                    let text = String::from_utf8(unsigned.body).expect("text");
                    unsigned.body = text.replace(signature, PLACEHOLDER).into_bytes();
                }
                Placement::Query(_) => panic!("{name}: a signature in the query is not supported"),
            }
            let mut signed = independent.sign_at(&unsigned, now, |signature| signature);
            for request in [&mut sent, &mut signed] {
                request.headers.iter_mut().for_each(|(name, _)| name.make_ascii_lowercase());
                request.headers.sort();
            }
            assert_eq!(signed.headers, sent.headers, "{name}");
            assert_eq!(signed.body, sent.body, "{name}");
        }
    }

    #[test]
    fn unsupported_presets_are_refused() {
        for name in ["discord", "globex", "paypal"] {
            let preset = preset::find(name).expect("a preset");
            assert!(PresetSigner::new(&preset, b"secret", URL, "run", 1024).is_err(), "{name}");
        }
        let adyen = preset::find("adyen").expect("a preset");
        let error = PresetSigner::new(&adyen, b"no hex", URL, "run", 1024).err().expect("refused");
        assert!(!format!("{error:#}").contains("no hex"));
    }
}
