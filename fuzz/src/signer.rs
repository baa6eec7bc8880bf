//! The signer of the tests, for the requests of the fuzz targets.
//!
//! It takes the message from the verifier itself: the targets do not search for a wrong message, which vectors find, but
//! for a request that passes without the signature over its message.

use grapnel_core::verification::Verifier;
use grapnel_crds::{Scheme, SchemeType, TimeUnit};
use grapnel_testing::signer::{self, Placement};
use http::{HeaderName, HeaderValue};

use crate::request::Request;

pub use grapnel_testing::signer::PLACEHOLDER;

/// The time at which requests are verified: 2026-01-31T09:00:00Z.
pub const NOW: i64 = 1_769_850_000;

/// A provider with its key.
pub struct Signer {
    scheme: Scheme,
    signer: signer::Signer,
    /// The text that the receiver keeps in a Secret.
    pub secret: String,
}

impl Signer {
    /// Takes a scheme that is complete.
    pub fn new(scheme: &Scheme) -> Self {
        let signer = signer::Signer::new(scheme);
        Self { scheme: scheme.clone(), secret: signer.secret.clone(), signer }
    }

    /// Returns the request with its signature in its place; `None` if it cannot be signed. `spoil` changes the bytes of
    /// the signature before they are encoded.
    pub fn sign(
        &self,
        verifier: &Verifier,
        request: &Request,
        spoil: impl Fn(&mut Vec<u8>),
    ) -> Option<Request> {
        // A time next to the signature must be there before the message can be built.
        let unsigned = self.place(request.clone(), "00")?;
        let in_body = self.scheme.signature.as_ref()?.from.as_deref()?.starts_with("json:");
        let message = verifier.message(&if in_body { request.incoming() } else { unsigned.incoming() })?;
        let mut signature = if self.scheme.kind == Some(SchemeType::Digest) {
            let known = String::from_utf8_lossy(&message).replacen("{secret}", &self.secret, 1);
            self.signer.signature(known.as_bytes())?
        } else {
            self.signer.signature(&message)?
        };
        spoil(&mut signature);
        self.place(request.clone(), &self.signer.encode(&signature))
    }

    fn place(&self, mut request: Request, signature: &str) -> Option<Request> {
        match self.signer.placement(&self.time(), signature)? {
            Placement::Header(name, value) => {
                request.headers.insert(name.parse::<HeaderName>().ok()?, HeaderValue::from_str(&value).ok()?);
            }
            Placement::Query(query) => request = request.with_query(&query),
            Placement::Body(value) => {
                let at = request
                    .body
                    .windows(PLACEHOLDER.len())
                    .position(|window| window == PLACEHOLDER.as_bytes())?;
                request.body.splice(at..at + PLACEHOLDER.len(), value.bytes());
            }
        }
        Some(request)
    }

    /// Returns [`NOW`] in the unit of the scheme.
    fn time(&self) -> String {
        match self.scheme.timestamp.as_ref().and_then(|source| source.unit) {
            Some(TimeUnit::Ms) => format!("{NOW}000"),
            Some(TimeUnit::Iso8601) => "2026-01-31T09:00:00Z".to_owned(),
            _ => NOW.to_string(),
        }
    }
}
