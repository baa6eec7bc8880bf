//! The control plane through its outer surface: the real binary against a real API server, PostgreSQL and RabbitMQ.
//!
//! The API server is that of KUBECONFIG, the rest is where `scripts/services env` says. A controller looks at the whole
//! cluster, so one test runs at a time; each has a database, a queue prefix and namespaces of its own.

mod harness;

mod lifecycle;
mod claims;
mod scaling;
mod deletion;
mod fencing;
mod crashes;
mod thousand;
