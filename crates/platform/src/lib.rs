//! Parts that every process of Grapnel needs: options, logs, shutdown, HTTP serving, the operations port, and the queues.

pub mod secret_file;
pub mod args;
pub mod manifest_files;
pub mod telemetry;
pub mod clock;
pub mod shutdown;
pub mod client_network;
pub mod fair_shares;
pub mod http_server;
pub mod ops_server;
pub mod queue;
