//! Any request against the compiled scheme, handshakes and mapping of every preset.
//!
//! Nothing panics; no unsigned request verifies; no request that was changed after signing verifies. A preset's own fixture,
//! signed, does: otherwise the rest would prove nothing, so it is checked first.
//!
//! The input is the number of a preset, the change to the request, its position, and the request as text.

#![no_main]

use std::sync::LazyLock;

use grapnel_core::compiled_provider::CompiledProvider;
use grapnel_core::handshake::HandshakeDecision;
use grapnel_core::mapping::EventFields;
use grapnel_core::preset;
use grapnel_core::verification::{Certificate, Evaluation};
use grapnel_crds::HandshakeAuth;
use grapnel_fuzz::request::Request;
use grapnel_fuzz::seeds;
use grapnel_fuzz::signer::{NOW, Signer};
use jiff::{SignedDuration, Timestamp};
use libfuzzer_sys::fuzz_target;

struct Subject {
    name: &'static str,
    compiled: CompiledProvider,
    signer: Signer,
    /// Whether the age of a request is bounded.
    timed: bool,
}

static SUBJECTS: LazyLock<Vec<Subject>> = LazyLock::new(|| {
    let subject = |name: &'static str| {
        let preset = preset::find(name).expect("a preset");
        let signer = Signer::new(&preset.verification);
        let compiled = CompiledProvider::of_preset(&preset, &[&signer.secret]).expect("a preset compiles");
        let timestamp = preset.verification.timestamp.as_ref();
        let timed = timestamp.is_some_and(|timestamp| timestamp.tolerance_seconds != Some(0));
        let subject = Subject { name, compiled, signer, timed };
        let fixture = Request::parse(seeds::request(&preset).as_bytes());
        if let Some(signed) = subject.sign(&fixture, |_| ()) {
            assert!(subject.accepts(&signed, now()), "{name} refuses its own fixture");
        }
        subject
    };
    preset::providers().into_iter().map(subject).collect()
});

/// A certificate whose key nobody here has.
static CERTIFICATE: LazyLock<Certificate> = LazyLock::new(|| {
    let text = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/certificates/sns.pem"))
        .expect("made by fuzz/run");
    Certificate::parse(&text).expect("a certificate")
});

fn while_it_is_valid() -> Timestamp {
    now() + SignedDuration::from_hours(24 * 365)
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).expect("a time")
}

impl Subject {
    fn sign(&self, request: &Request, spoil: impl Fn(&mut Vec<u8>)) -> Option<Request> {
        self.signer.sign(&self.compiled.verifier, request, spoil)
    }

    fn accepts(&self, request: &Request, now: Timestamp) -> bool {
        self.compiled.verifier.verify(&request.incoming(), now).is_ok()
    }

    /// Takes a request through all the steps of the ingress.
    fn process(&self, request: &Request) {
        let incoming = request.incoming();
        for proof in [HandshakeAuth::Unverified, HandshakeAuth::Verified] {
            if let Some(HandshakeDecision::Respond(handshake)) =
                self.compiled.handshakes.recognize(&incoming, proof)
            {
                drop(handshake.captured_secret(&incoming));
                drop(handshake.confirmation_url(&incoming));
                drop(handshake.respond(&incoming, &self.compiled.verifier));
            }
        }
        drop(Certificate::parse(&request.body));
        let verifies = match self.compiled.verifier.evaluate(&incoming, while_it_is_valid()) {
            Ok(Evaluation::Verified(_)) => true,
            Ok(Evaluation::NeedsCertificate(claim)) => {
                claim.verify_by(&CERTIFICATE, while_it_is_valid()).is_ok()
            }
            Err(_) => false,
        };
        assert!(!verifies, "{}: an unsigned request verifies by a certificate", self.name);
        if let Some(form) = self.compiled.mapper.body_form(&request.headers, &request.body)
            && let Ok(split) = self.compiled.mapper.split(&incoming, incoming.body, form)
        {
            let whole = || self.compiled.mapper.read(&incoming, incoming.body, form).ok();
            let events =
                split.map_or_else(|| whole().into_iter().collect(), |split| split.events().collect());
            let events: Vec<EventFields> = events;
            let is_slice = |event: &EventFields| event.payload.end <= request.body.len();
            assert!(events.iter().all(is_slice), "{}: the payload is not a slice", self.name);
        }
    }

    /// Checks that a request that was changed after signing is refused, unless the change does not affect the message.
    fn refuses_a_change(&self, signed: &Request, at: usize, bit: u8) {
        let mut changed = signed.clone();
        if changed.body.is_empty() {
            return;
        }
        let at = at % changed.body.len();
        changed.body[at] ^= 1 << (bit % 8);
        let message = |request: &Request| self.compiled.verifier.message(&request.incoming());
        if message(&changed) != message(signed) {
            assert!(!self.accepts(&changed, now()), "{}: a changed body verifies", self.name);
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let [number, action, high, low, text @ ..] = input else { return };
    let subjects = &*SUBJECTS;
    let subject = &subjects[usize::from(*number) % subjects.len()];
    let at = usize::from(u16::from_be_bytes([*high, *low]));
    let request = Request::parse(text);
    subject.process(&request);
    assert!(!subject.accepts(&request, now()), "{}: an unsigned request verifies", subject.name);
    match action % 4 {
        0 => {}
        1 => {
            // One bit of it, or its end.
            let spoiled = subject.sign(&request, |signature| {
                let at = at % signature.len();
                if action / 32 % 2 == 0 {
                    signature[at] ^= 1 << (action / 4 % 8);
                } else {
                    signature.truncate(at);
                }
            });
            if let Some(spoiled) = spoiled {
                assert!(!subject.accepts(&spoiled, now()), "{}: a spoiled signature verifies", subject.name);
            }
        }
        2 => {
            if let Some(signed) = subject.sign(&request, |_| ())
                && subject.accepts(&signed, now())
            {
                subject.refuses_a_change(&signed, at, action / 4);
            }
        }
        _ => {
            // A request that is valid now is invalid at other times, earlier and later.
            if let Some(signed) = subject.sign(&request, |_| ()) {
                let off = SignedDuration::from_hours(48);
                for moment in [now() - off, now() + off] {
                    let late = subject.timed && subject.accepts(&signed, moment);
                    // A timestamp in the body may match that very moment.
                    assert!(!late || !subject.accepts(&signed, now()), "{}: it has no age", subject.name);
                }
            }
        }
    }
});
