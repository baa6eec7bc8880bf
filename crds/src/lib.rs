//! The Integration custom resource.
