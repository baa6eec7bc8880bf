//! What a request carries: what of it is stored, and what of it is read.
//!
//! Most requests carry their body, and it is read as it is stored. A GET without a body carries its query, which is stored in
//! place of the body. Of a form with parts the text fields are read, and of a form with JSON in a field that JSON: neither is
//! a slice of the body, so it is stored beside it.

use bytes::Bytes;
use grapnel_core::compiled_provider::CompiledProvider;
use grapnel_core::mapping::InvalidEvent;
use grapnel_core::payload::BodyForm;
use grapnel_core::request::IncomingRequest;
use grapnel_core::request::multipart::{FilePart, Multipart};

use super::outcome::Refusal;

/// The content of a request.
pub(super) struct Content {
    /// How the text is read.
    pub(super) form: BodyForm,
    /// What is stored as the body, without its token.
    pub(super) raw_body: Bytes,
    /// What was received, if it had a token.
    pub(super) with_token: Option<Bytes>,
    /// The fields of a form with parts, in the encoding of forms.
    fields: Option<Bytes>,
    /// The JSON in a field of a form.
    json: Option<Bytes>,
    /// A digest of all parts of a form with parts.
    digest: Option<[u8; 32]>,
    pub(super) files: Vec<FilePart>,
}

impl Content {
    /// Finds the content. `body` is that of the request, and `multipart` what was read of it, if it has parts.
    ///
    /// # Errors
    /// When the type of the body is not accepted, or it is not what its type says.
    pub(super) fn of(
        provider: &CompiledProvider,
        request: &IncomingRequest<'_>,
        body: Bytes,
        multipart: Option<Result<Multipart, InvalidEvent>>,
    ) -> Result<Self, Refusal> {
        let mut content = match request.query_as_payload() {
            Some(query) => {
                let blanked = provider.verifier.blanked_query(query);
                Self::new(BodyForm::Form, Bytes::copy_from_slice(query.as_bytes()), blanked)
            }
            None => {
                let form = provider.mapper.body_form(request.headers, request.body);
                let form = form.ok_or(Refusal::UnsupportedMediaType)?;
                Self::new(form, body, provider.verifier.blanked_body(request))
            }
        };
        // A token must not be in the fields either.
        let multipart = match &content.with_token {
            Some(_) => provider.mapper.multipart(request.headers, &content.raw_body),
            None => multipart,
        };
        if let Some(Multipart { fields, files, digest }) =
            multipart.transpose().map_err(Refusal::InvalidEvent)?
        {
            (content.fields, content.files, content.digest) = (Some(fields), files, Some(digest));
        }
        if content.form == BodyForm::Form
            && let Some(json) = provider.mapper.json_in_form(content.text())
        {
            (content.form, content.json) = (BodyForm::Json, Some(json.into()));
        }
        Ok(content)
    }

    fn new(form: BodyForm, received: Bytes, blanked: Option<Vec<u8>>) -> Self {
        let (raw_body, with_token) = match blanked {
            Some(blanked) => (blanked.into(), Some(received)),
            None => (received, None),
        };
        Self { form, raw_body, with_token, fields: None, json: None, digest: None, files: Vec::new() }
    }

    /// What is read, if it is no part of the raw body.
    pub(super) fn own_text(&self) -> Option<&Bytes> {
        self.json.as_ref().or(self.fields.as_ref())
    }

    /// Returns the length of the text that was taken from a form.
    pub(super) fn json_length(&self) -> usize {
        self.json.as_ref().map_or(0, Bytes::len)
    }

    /// Returns the request as it is read: its body is the text.
    pub(super) fn shown<'a>(&'a self, request: &IncomingRequest<'a>) -> IncomingRequest<'a> {
        let form = self.json.as_ref().map(|_| &self.fields.as_ref().unwrap_or(&self.raw_body)[..]);
        IncomingRequest { body: self.text(), form, ..*request }
    }

    /// Returns what tells it from others: all that was received.
    pub(super) fn received(&self) -> &[u8] {
        let received = self.with_token.as_ref().unwrap_or(&self.raw_body);
        self.digest.as_ref().map_or(&received[..], |digest| digest)
    }

    /// Returns the text as received. A blanked one has the same length.
    pub(super) fn received_text(&self) -> &[u8] {
        self.own_text().unwrap_or_else(|| self.with_token.as_ref().unwrap_or(&self.raw_body))
    }

    fn text(&self) -> &[u8] {
        self.own_text().unwrap_or(&self.raw_body)
    }
}
