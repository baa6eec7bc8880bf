//! Which events a destination gets: by their types, and by an expression in CEL, the Common Expression Language.
//!
//! Expressions are those of tenants, and payloads those of anybody who may post, so both are bounded. A compiled [`Expression`]
//! is short and shallow; before it is evaluated, its steps and its memory are estimated for the very payload; and nothing in it
//! can wait. What cannot be evaluated is an [`EvaluationError`], never a panic and never the end of the process. The time is bounded by
//! those who evaluate, since nothing here reads a clock.

mod event_types;
mod environment;
mod limits;
mod expression;
mod estimate;
mod json_value;
mod input;
mod evaluation;
mod integration_filters;

pub use evaluation::{EvaluationError, FilterContext};
pub use event_types::EventTypes;
pub use expression::{Expression, MAX_CHARS};
pub use input::{FilterInput, MAX_PAYLOAD_BYTES};
pub use integration_filters::{DestinationFilter, DestinationSet, IntegrationFilters, errors};
pub use limits::{ExpressionError, MAX_DEPTH, MAX_LOOP_DEPTH, MAX_NODES};

#[cfg(test)]
mod tests;
