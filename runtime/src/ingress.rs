//! A webhook in: `POST /api/v1/webhooks/{route}`.
//!
//! The modules are the steps, in order; `receive` is the handler that calls them. No 2xx before the commit.

pub mod receive;
mod refuse;
pub mod source;
pub mod body;
pub mod json;
pub mod place;
pub mod template;
mod comparison;
pub mod verify;
pub mod handshake;
pub mod capture;
pub mod outside;
pub mod normalize;
mod assemble;
pub mod commit;
mod acknowledge;
