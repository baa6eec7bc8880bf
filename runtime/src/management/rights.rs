//! The rights of operators, as they are granted in a cluster: verbs on `integrations` of the group `grapnel.dev`, and on parts of
//! it that no API serves and roles may name all the same.
//!
//! docs/access.md has the table, and the chart adds them to the cluster's roles view, edit and admin.

use grapnel_access::Right;

/// What a route is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Integrations,
    Events,
    Deliveries,
    Audit,
    /// Bodies and headers, of requests and of receivers' answers: what is in them may be personal.
    Payloads,
    Replays,
}

impl Resource {
    fn subresource(self) -> Option<&'static str> {
        match self {
            Self::Integrations => None,
            Self::Events => Some("events"),
            Self::Deliveries => Some("deliveries"),
            Self::Audit => Some("audit"),
            Self::Payloads => Some("payloads"),
            Self::Replays => Some("replays"),
        }
    }

    /// Returns the name by which a role grants it.
    pub(super) fn name(self) -> String {
        match self.subresource() {
            None => "integrations".to_owned(),
            Some(part) => format!("integrations/{part}"),
        }
    }

    /// Returns the right to do this with it.
    pub(super) fn right(self, verb: Verb) -> Right {
        Right { resource: "integrations", subresource: self.subresource(), verb: verb.name() }
    }
}

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    List,
    Create,
    Update,
    Delete,
}

impl Verb {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}
