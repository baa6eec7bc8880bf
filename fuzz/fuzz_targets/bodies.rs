//! Any body of any type, with any content coding, read as the ingress does.
//!
//! Nothing panics. A decoded body is within the limit, and so is the memory that was asked for. A token that verifies is not in
//! what is stored and read of the body.
//!
//! The input is a request as text.

#![no_main]

use std::sync::LazyLock;

use grapnel_core::compiled_provider::CompiledProvider;
use grapnel_core::payload::BodyForm;
use grapnel_core::request::IncomingRequest;
use grapnel_core::request::content_coding::ContentCodings;
use grapnel_fuzz::request::Request;
use grapnel_fuzz::seeds;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

const LIMIT: usize = 64 * 1024;
const TOKEN: &str = "a-token-that-nobody-guesses";

static PROVIDER: LazyLock<CompiledProvider> = LazyLock::new(|| {
    let parts = json!({
        "scheme": {"type": "token", "signature": {"from": "form:token"}},
        "mapping": {
            "externalEventId": ["/id", "form:id", "query:id"], "eventType": ["/type", "form:type", "literal:t"],
            "bodyField": "payload", "accept": ["json", "form", "multipart", "opaque"],
        },
    });
    let object = seeds::integration("custom", &parts);
    let spec = serde_json::from_value(object["spec"].clone()).expect("a spec");
    CompiledProvider::new(&spec, &[TOKEN], None).expect("a provider")
});

fuzz_target!(|input: &[u8]| {
    let request = Request::parse(input);
    let Ok(codings) = ContentCodings::of(&request.headers) else { return };
    let body = match codings {
        None => request.body.clone(),
        Some(codings) => {
            let mut granted = 0;
            let decoded = codings.decode(&request.body, LIMIT, |bytes| {
                granted += bytes;
                true
            });
            assert!(granted <= 2 * LIMIT, "{granted} bytes for at most two codings");
            let Ok(decoded) = decoded else { return };
            assert!(
                decoded.len() <= LIMIT && decoded.capacity() <= granted,
                "it takes more than it asked for"
            );
            decoded
        }
    };
    read(&Request { body, ..request });
});

fn read(request: &Request) {
    let (provider, headers) = (&*PROVIDER, &request.headers);
    let parts = |body: &[u8]| provider.mapper.multipart(headers, body);
    let received = parts(&request.body);
    let fields = received.as_ref().map(|read| read.as_ref().map_or(&b""[..], |parts| &parts.fields));
    let incoming = IncomingRequest { form: fields, ..request.incoming() };
    let is_verified = provider.verifier.verify(&incoming, Timestamp::UNIX_EPOCH).is_ok();

    let stored = provider.verifier.blanked_body(&incoming).expect("a token in a form");
    assert_eq!(stored.len(), request.body.len());
    let Some(form) = provider.mapper.body_form(headers, &stored) else { return };
    let Ok(parts) = parts(&stored).transpose() else { return };
    let fields = parts.as_ref().map_or(&stored[..], |parts| &parts.fields);
    if is_verified {
        let shown = IncomingRequest { body: fields, ..request.incoming() };
        assert!(provider.verifier.verify(&shown, Timestamp::UNIX_EPOCH).is_err(), "the token is still there");
    }
    let json = provider.mapper.json_in_form(fields).filter(|_| form == BodyForm::Form);
    let (form, body) = json.as_ref().map_or((form, fields), |json| (BodyForm::Json, json.as_bytes()));
    let shown = IncomingRequest { body, form: json.as_ref().map(|_| fields), ..request.incoming() };
    if let Ok(found) = provider.mapper.read(&shown, &stored, form) {
        assert!(found.payload.end <= body.len(), "the payload is not a slice");
    }
}
