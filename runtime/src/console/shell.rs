//! What surrounds every page: its address, the navigation, and who looks.

use super::assets::{AssetNames, NAMES};
use super::visitor::Visitor;

/// The parts of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Overview,
    Events,
    Deliveries,
    Replays,
    Rejections,
    Audit,
    Tools,
    /// Of a page that is in none.
    None,
}

/// An item of the navigation.
pub(super) struct NavItem {
    pub(super) title: &'static str,
    /// Below the root.
    pub(super) path: &'static str,
    pub(super) is_current: bool,
}

/// The surroundings of a page, as `layout.html` shows them.
pub(super) struct Shell {
    /// What links begin with.
    pub(super) root: String,
    /// The page's own path and query, below the root.
    pub(super) here: String,
    pub(super) nav: Vec<NavItem>,
    /// Who looks.
    pub(super) name: String,
    /// Whether there is a session that can be ended.
    pub(super) can_log_out: bool,
    /// For the forms of the page.
    pub(super) csrf: String,
    pub(super) assets: &'static AssetNames,
}

impl Shell {
    pub(super) fn new(visitor: &Visitor, section: Section) -> Self {
        let rights = visitor.rights;
        let offered = [
            (Section::Overview, "Overview", "/", rights.integrations),
            (Section::Events, "Events", "/events", rights.events),
            (Section::Deliveries, "Deliveries", "/deliveries", rights.deliveries),
            (Section::Replays, "Replays", "/replays", rights.replays),
            (Section::Rejections, "Rejections", "/rejections", rights.events && rights.integrations),
            (Section::Audit, "Audit", "/audit", rights.audit),
            (Section::Tools, "Tools", "/tools", rights.events),
        ];
        let offered = offered.into_iter().filter(|(.., is_offered)| *is_offered);
        let item = |(known, title, path, _)| NavItem { title, path, is_current: known == section };
        Self {
            root: visitor.root().to_owned(),
            here: visitor.view.here.to_string(),
            nav: offered.map(item).collect(),
            name: visitor.name(),
            can_log_out: visitor.session.is_some(),
            csrf: visitor.csrf_token(),
            assets: &NAMES,
        }
    }
}
