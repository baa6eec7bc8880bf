//! What the management port answers.

use grapnel_testing::wait_until;
use reqwest::RequestBuilder;
use serde_json::Value;

use super::tenant::{Tenant, marker};

/// The content type of server-sent events.
const STREAM: &str = "text/event-stream";

/// An answer, read to its end; a stream, to the end of its first reading.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Answer {
    pub(super) async fn of(request: RequestBuilder) -> Self {
        let mut response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        if response.headers().get("content-type").is_none_or(|value| value != STREAM) {
            return Self { status, text: response.text().await.expect("a body") };
        }
        let mut text = String::new();
        while !text.contains("id: ") {
            let bytes = response.chunk().await.expect("bytes").expect("an id");
            text.push_str(std::str::from_utf8(&bytes).expect("text"));
        }
        Self { status, text }
    }

    /// Asks again while the address has sent too many new tokens: all roles of a test come from one.
    pub(super) async fn of_patient(request: RequestBuilder) -> Self {
        let again = || request.try_clone().expect("a body that can be sent again");
        let mut answer = Self::of(again()).await;
        wait_until("tokens to be taken again", async || {
            if answer.status == 429 {
                answer = Self::of(again()).await;
            }
            answer.status != 429
        })
        .await;
        answer
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn error(&self) -> Value {
        self.json()["error"].clone()
    }

    /// Returns whether it names anything of a tenant.
    pub(crate) fn names(&self, tenant: &Tenant) -> bool {
        [&tenant.integration, &tenant.event, &tenant.replay].iter().any(|id| self.text.contains(id.as_str()))
    }

    /// Returns whether it has what only a body, a header or a receiver's answer has.
    pub(crate) fn shows_payload_of(&self, tenant: &Tenant) -> bool {
        self.text.contains(&marker(&tenant.namespace))
    }
}
