//! A webhook in: `POST /api/v1/webhooks/{route}`.
//!
//! The modules are the steps, in order; `receive` is the handler that calls them. No 2xx before the commit.

pub mod receive;
mod client_ip;
pub mod body;
pub mod captured_secret;
pub mod provider_client;
mod new_event;
pub mod commit;
mod acknowledgement;
mod refuse;

pub(crate) use acknowledgement::WebhookAccepted;
