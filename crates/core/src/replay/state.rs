//! The states of a replay.
//!
//! ```text
//! Pending ──▶ Running ──▶ Completed | Failed
//!    │  ▲        │ ▲
//!    ▼  │        ▼ │
//!    Paused ◀──▶ (resumed)
//! Pending | Running | Paused ──▶ Cancelling ──▶ Cancelled
//! ```
//!
//! A replay is *cancelling* while deliveries that it has fed are under way. It pauses itself too, for a reason that its row has.

use serde::{Deserialize, Serialize};

/// The state of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReplayState {
    /// Nothing was fed yet.
    Pending,
    Running,
    /// Nothing is fed until it is resumed. What was fed goes on.
    Paused,
    /// Nothing more is fed; some of what was fed is under way.
    Cancelling,
    Cancelled,
    /// Everything was fed or skipped, and has ended.
    Completed,
    /// It could not go on.
    Failed,
}

impl ReplayState {
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Running,
        Self::Paused,
        Self::Cancelling,
        Self::Cancelled,
        Self::Completed,
        Self::Failed,
    ];

    /// Returns the stored form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Paused => "Paused",
            Self::Cancelling => "Cancelling",
            Self::Cancelled => "Cancelled",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
        }
    }

    /// Reads the stored form.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Returns whether it never changes again.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Cancelled | Self::Completed | Self::Failed)
    }

    /// Returns whether deliveries are fed.
    pub const fn is_feeding(self) -> bool {
        matches!(self, Self::Pending | Self::Running)
    }

    /// Returns the state that a request leads to; `None` when it can no longer be met. One that is met already changes nothing.
    pub const fn after(self, desired: DesiredState) -> Option<Self> {
        match (self, desired) {
            (Self::Pending | Self::Running, DesiredState::Running) => Some(self),
            (Self::Paused, DesiredState::Running) => Some(Self::Running),
            (Self::Pending | Self::Running | Self::Paused, DesiredState::Paused) => Some(Self::Paused),
            (Self::Pending | Self::Running | Self::Paused, DesiredState::Cancelled) => Some(Self::Cancelling),
            (Self::Cancelling | Self::Cancelled, DesiredState::Cancelled) => Some(self),
            (
                Self::Cancelling | Self::Cancelled | Self::Completed | Self::Failed,
                DesiredState::Running | DesiredState::Paused | DesiredState::Cancelled,
            ) => None,
        }
    }
}

/// What is asked of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DesiredState {
    Running,
    Paused,
    Cancelled,
}

impl DesiredState {
    pub const ALL: [Self; 3] = [Self::Running, Self::Paused, Self::Cancelled];

    /// Returns the stored form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Paused => "Paused",
            Self::Cancelled => "Cancelled",
        }
    }

    /// Reads the stored form.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_a_final_state_and_no_cancelled_replay_goes_on() {
        for state in ReplayState::ALL {
            assert_eq!(ReplayState::parse(state.as_str()), Some(state));
            for desired in DesiredState::ALL {
                let next = state.after(desired);
                if state.is_final() || state == ReplayState::Cancelling {
                    assert!(next.is_none_or(|next| next == state), "{state:?} {desired:?}");
                } else {
                    assert!(next.is_some(), "{state:?} {desired:?}");
                }
            }
        }
        assert_eq!(ReplayState::Paused.after(DesiredState::Running), Some(ReplayState::Running));
        assert_eq!(ReplayState::Pending.after(DesiredState::Running), Some(ReplayState::Pending));
    }
}
