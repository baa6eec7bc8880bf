//! Replays: jobs that deliver many deliveries again, at a rate.
//!
//! What a replay selects and within which bounds is a [`ReplaySpec`], whoever asks for it; its states and their transitions are in [`state`],
//! and how fast it goes in [`pace`]. Everything here is a function of values.

mod spec;
pub mod pace;
pub mod state;

pub use spec::{
    DEFAULT_MAX_DELIVERIES, DEFAULT_RATE, MAX_EVENT_IDS, MAX_RATE, ReplayDocument, ReplayOrder, ReplaySelect,
    ReplaySpec,
};
pub use state::{DesiredState, ReplayState};

/// Returns what precedes a number of deliveries in a sentence: they may not have been counted to the end.
pub fn at_least(is_exact: bool) -> &'static str {
    if is_exact { "" } else { "at least " }
}
