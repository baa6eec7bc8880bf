//! What is asked about a user.

/// A verb on a resource of the group `grapnel.dev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    pub resource: &'static str,
    pub subresource: Option<&'static str>,
    pub verb: &'static str,
}

/// Where a right is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// In all namespaces.
    Everywhere,
    Namespace(&'a str),
    Object {
        namespace: &'a str,
        name: &'a str,
    },
}
