//! Receives webhooks: `POST /api/v1/webhooks/{route}`.
//!
//! The modules are the steps, in order; `receive` is the handler that calls them. No 2xx is sent before the commit.

pub(crate) mod receive;
mod client_ip;
pub(crate) mod body;
pub(crate) mod captured_secret;
pub(crate) mod provider_client;
mod new_event;
pub(crate) mod commit;
mod acknowledgement;
mod outcome;

pub(crate) use acknowledgement::WebhookAccepted;
