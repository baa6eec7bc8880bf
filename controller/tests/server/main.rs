//! Tests the control plane from outside: the real binary against a real API server, PostgreSQL and RabbitMQ.
//!
//! KUBECONFIG names the API server, and `scripts/services env` the other services. Each test has its own database,
//! queue prefix and namespaces, and its controller has exactly the rights that the chart grants. Tests run in parallel;
//! those that affect the whole cluster run alone.

mod harness;

mod lifecycle;
mod rotation;
mod captures;
mod services;
mod mistakes;
mod claims;
mod tenants;
mod namespaces;
mod scaling;
mod owners;
mod deletion;
mod status_copies;
mod replays;
mod fencing;
mod crashes;
mod uninstall;
mod rights;
mod management;
mod whole_cluster;
mod thousand;
