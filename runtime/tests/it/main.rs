//! The data plane through its outer surface: the real binary against real PostgreSQL, Redis and RabbitMQ.
//!
//! `scripts/test` starts the services and passes their URLs. Each test has a database, a queue prefix and ports of its own,
//! so that all run in parallel; tests that stop or restart a service have services of their own.

mod harness;

mod ingress;
mod providers;
mod split;
mod hostile;
mod delivery;
mod filters;
mod isolation;
mod loops;
mod unusable;
mod secrets;
mod local;
mod configuration;
mod retention;
mod removal;
mod rejections;
mod statistics;
mod streams;
mod faults;
mod management;
mod console;
mod ports;
mod replays;
