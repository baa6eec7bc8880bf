//! Typed ids: an event's id is never taken for a delivery's or an integration's.
//!
//! Each is a UUID. The store converts them where it binds and reads.
