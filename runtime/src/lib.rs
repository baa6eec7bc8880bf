//! The data plane of Grapnel.

pub mod standard_webhooks;
pub mod sealing;
pub mod deliver;
pub mod retry;
