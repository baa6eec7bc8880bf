//! Any text as an Integration: parsed, validated and compiled, as files, the controller and the api do it.
//!
//! Nothing panics. A valid Integration compiles, or is refused with an error that names a field or an invalid key. A compiled
//! one accepts no unsigned request.
//!
//! The input is the way to read the rest, a number (of the provider, if one is completed), and a text.

#![no_main]

use grapnel_core::compiled_provider::{CompiledProvider, ProviderError};
use grapnel_core::handshake::HandshakeDecision;
use grapnel_core::preset;
use grapnel_core::resolved_provider::{self, ResolvedProvider};
use grapnel_crds::{Document, HandshakeAuth, Integration, IntegrationSpec, parse_documents, presets};
use grapnel_fuzz::request::Request;
use grapnel_fuzz::seeds;
use grapnel_fuzz::signer::{NOW, Signer};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const REQUEST: &str = "POST /api/v1/webhooks/r?a=b&t=1769850000\n\
    x-sig: t=1769850000,v1=00\nauthorization: Basic QTpC\ncontent-type: application/json\n\n\
    {\"id\":\"1\",\"type\":\"t\",\"data\":{\"list\":[1,\"2\",null]},\"time\":1769850000}";

fuzz_target!(|input: &[u8]| {
    let [action, number, text @ ..] = input else { return };
    match action % 4 {
        0 => {
            if let Ok(text) = std::str::from_utf8(text) {
                documents(text);
            }
        }
        // Parts of a spec, for a custom provider or for a preset that they change.
        action @ (1 | 2) => {
            let Ok(text) = std::str::from_utf8(text) else { return };
            let Ok(parts) = serde_saphyr::from_str::<Value>(text) else { return };
            let names = preset::providers();
            let provider =
                if action == 1 { presets::CUSTOM } else { names[usize::from(*number) % names.len()] };
            documents(&seeds::integration(provider, &parts).to_string());
        }
        // A row of the database, which was validated by another version or by nobody.
        _ => {
            if let Ok(spec) = serde_json::from_slice::<IntegrationSpec>(text) {
                drop(compile(&spec));
            }
        }
    }
});

fn documents(text: &str) {
    let documents = match parse_documents(text) {
        Ok(documents) => documents,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for document in documents {
        let Document::Integration(object) = document else { continue };
        valid_ones_compile(&object);
    }
}

fn valid_ones_compile(object: &Integration) {
    let errors = object.validate();
    assert!(errors.iter().all(|error| !error.message.is_empty()));
    let problems = resolved_provider::errors(&object.spec, errors.is_empty());
    if !errors.is_empty() || !problems.is_empty() {
        return;
    }
    if let Err(error) = compile(&object.spec) {
        let error = error.to_string();
        let names_a_field = error.starts_with("spec.") || error.starts_with("a verification secret");
        assert!(names_a_field, "it is valid, but refused with: {error}");
    }
}

fn compile(spec: &IntegrationSpec) -> Result<(), ProviderError> {
    let scheme = ResolvedProvider::new(spec).map(|provider| provider.scheme).unwrap_or_default();
    let compiled = CompiledProvider::new(spec, &[Signer::new(&scheme).secret], None)?;
    let request = Request::parse(REQUEST.as_bytes());
    let incoming = request.incoming();
    let now = Timestamp::from_second(NOW).expect("a time");
    assert!(compiled.verifier.verify(&incoming, now).is_err(), "it accepts an unsigned request");
    drop(compiled.verifier.message(&incoming));
    for proof in [HandshakeAuth::Unverified, HandshakeAuth::Verified] {
        if let Some(HandshakeDecision::Respond(handshake)) = compiled.handshakes.recognize(&incoming, proof) {
            drop(handshake.captured_secret(&incoming));
            drop(handshake.confirmation_url(&incoming));
            drop(handshake.respond(&incoming, &compiled.verifier));
        }
    }
    if let Some(form) = compiled.mapper.body_form(&request.headers, &request.body) {
        drop(compiled.mapper.read(&incoming, incoming.body, form));
    }
    Ok(())
}
