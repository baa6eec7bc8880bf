//! Shared by the fuzz targets: requests as text, providers that sign them, and seeds.

pub mod request;
pub mod signer;
pub mod seeds;
