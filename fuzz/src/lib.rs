//! What the fuzz targets share: requests as text, providers that sign them, and what to begin with.

pub mod request;
pub mod signer;
pub mod seeds;
