//! The data plane of Grapnel.
