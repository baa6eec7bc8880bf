//! The control plane through its outer surface: the real binary against a real API server, PostgreSQL and RabbitMQ.
//!
//! The API server is that of KUBECONFIG, the rest is where `scripts/services env` says. Each test has a database, a queue
//! prefix and namespaces of its own, and its controller the rights that the chart gives it. Tests run side by side; those
//! that concern the whole cluster run alone.

mod harness;

mod lifecycle;
mod rotation;
mod captures;
mod mistakes;
mod claims;
mod namespaces;
mod scaling;
mod owners;
mod deletion;
mod fencing;
mod crashes;
mod uninstall;
mod rights;
mod whole_cluster;
mod thousand;
