//! Receives webhooks: `POST /api/v1/webhooks/{route}`, and with other methods where an Integration accepts them.
//!
//! The modules are the steps, in order; `receive` is the handler that calls them. No 2xx is sent before the commit.

pub(crate) mod receive;
pub(crate) mod client_ip;
pub(crate) mod body;
pub(crate) mod captured_secret;
pub(crate) mod provider_client;
mod content;
mod new_event;
mod one_or_more;
pub(crate) mod readable_form;
pub(crate) mod filtering;
mod filter_pool;
pub(crate) mod filter_errors;
pub(crate) mod commit;
mod acknowledgement;
mod outcome;

pub(crate) use acknowledgement::WebhookAccepted;
