//! The Integration resource as its users see it: what is accepted, what is refused with which words, and the published
//! definition.

mod cases;
mod definition;
mod documents;
mod validation;
