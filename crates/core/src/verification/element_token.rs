//! A token that every element of a request carries: one request may be about several subscriptions, each with its own.

use super::error::{SchemeError, VerifyError, invalid};
use super::keys::Digests;
use crate::request::json::{self, Pointer, SplitPaths};

/// The member of each element that carries a token.
#[derive(Debug)]
pub(super) struct ElementToken {
    elements: SplitPaths,
    member: Pointer,
}

impl ElementToken {
    /// Parses `element:/…`; `None` for any other source. `split` is that of the mapping.
    pub(super) fn parse(source: &str, split: &[String]) -> Option<Result<Self, SchemeError>> {
        let pointer = source.strip_prefix("element:")?;
        let token = || {
            let member = Pointer::parse(pointer).filter(|pointer| !pointer.is_whole())?;
            let elements = SplitPaths::parse(split).filter(|paths| !paths.is_empty())?;
            Some(Self { elements, member })
        };
        Some(token().ok_or_else(|| {
            invalid(
                "signature.from",
                "element: must be followed by a JSON Pointer, and mapping.split must be set",
            )
        }))
    }

    /// Returns the index of the oldest secret that the token of an element matches. Each must match one.
    pub(super) fn secret(&self, tokens: &Digests, body: &[u8]) -> Result<usize, VerifyError> {
        let missing = || VerifyError::Missing(format!("{} of an element", self.member.field));
        let elements = self.elements.find(body).map_err(VerifyError::TooManyElements)?;
        let mut oldest = None;
        for element in elements {
            let document = json::JsonDocument::parse(element.get().as_bytes()).map_err(|_| missing())?;
            let token = document.find(&self.member).and_then(json::scalar).ok_or_else(missing)?;
            let secret = tokens.position(token.as_bytes()).ok_or(VerifyError::WrongToken)?;
            oldest = oldest.max(Some(secret));
        }
        oldest.ok_or_else(missing)
    }

    /// Returns where the tokens are in the body.
    pub(super) fn ranges(&self, body: &[u8]) -> Vec<std::ops::Range<usize>> {
        let elements = self.elements.find(body).unwrap_or_default();
        let ranges = elements.into_iter().flat_map(|element| {
            let start = json::range_in(body, element).start;
            let found = json::ranges_of_scalars(element.get().as_bytes(), &self.member);
            found.into_iter().map(move |range| start + range.start..start + range.end)
        });
        ranges.collect()
    }
}
