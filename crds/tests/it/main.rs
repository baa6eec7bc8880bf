//! The Integration resource as its users see it: accepted objects, rejected objects with their messages, and the
//! published definition.

mod cases;
mod definition;
mod documents;
mod validation;
