//! The evaluation of the expressions of an Integration for one event, with one set of variables.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::common::types::CelBool;
use cel::{Context, ExecutionError, Value};
use thiserror::Error;

use super::environment::environment;
use super::estimate::{self, Sizes};
use super::expression::Expression;
use super::input::{EVENT, FilterInput, HEADERS, MAX_PAYLOAD_BYTES, PAYLOAD, Uses};

/// Why an expression has no result for an event. No message has a value of the event.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EvaluationError {
    #[error("the payload is longer than {} KiB", MAX_PAYLOAD_BYTES / 1024)]
    PayloadTooLong,
    #[error("the payload is not JSON that can be read")]
    PayloadUnreadable,
    #[error("the lists of the event are too long for the loops of the expression")]
    TooManyTurns,
    #[error("the expression could make a value that is too large")]
    TooLarge,
    #[error("the result is of the type {0}, not bool")]
    NotBool(String),
    #[error("the expression could compare or copy too much of the event")]
    TooMuchWork,
    #[error("{0}")]
    Failed(String),
    #[error("the evaluation took too long")]
    TimedOut,
    #[error("the expression before it took too long")]
    NotReached,
    #[error(
        "the expression is switched off until the Integration is changed, because its evaluation took too long three times"
    )]
    SwitchedOff,
    #[error("too many filters wait to be evaluated")]
    Busy,
}

/// The variables of an event, for several expressions.
pub struct FilterContext {
    variables: Context<'static, 'static>,
    sizes: Sizes,
    /// Why there is no payload.
    payload: Result<(), EvaluationError>,
}

impl FilterContext {
    /// Reads what the expressions use of an event.
    pub fn new<'a>(input: &FilterInput, expressions: impl IntoIterator<Item = &'a Expression>) -> Self {
        let uses = expressions.into_iter().fold(Uses::default(), |uses, expression| uses.or(expression.uses));
        let mut context =
            Self { variables: Context::with_env(environment()), sizes: Sizes::default(), payload: Ok(()) };
        if uses.event {
            let (event, size) = input.event();
            context.variables.add_variable_as_val(EVENT, event);
            context.sizes.event = size;
        }
        if uses.headers {
            let (headers, size) = input.headers();
            context.variables.add_variable_as_val(HEADERS, headers);
            context.sizes.headers = size;
        }
        if uses.payload {
            context.payload = context.read_payload(input);
        }
        context
    }

    fn read_payload(&mut self, input: &FilterInput) -> Result<(), EvaluationError> {
        if input.payload.len() > MAX_PAYLOAD_BYTES {
            return Err(EvaluationError::PayloadTooLong);
        }
        let (payload, size) = input.payload().ok_or(EvaluationError::PayloadUnreadable)?;
        self.variables.add_variable_as_val(PAYLOAD, payload);
        self.sizes.payload = size;
        Ok(())
    }

    /// Evaluates an expression, one of those that the variables were read for.
    pub fn evaluate(&self, expression: &Expression) -> Result<bool, EvaluationError> {
        if expression.uses.payload {
            self.payload.clone()?;
        }
        estimate::check(expression.root(), self.sizes)?;
        let evaluate = || {
            let result =
                Value::resolve_val(expression.root(), &self.variables).map_err(|error| describe(&error))?;
            match result.downcast_ref::<CelBool>() {
                Some(is_true) => Ok(*is_true.inner()),
                None => Err(EvaluationError::NotBool(result.get_type().name().to_owned())),
            }
        };
        // A mistake in the library is the end of this evaluation only.
        catch_unwind(AssertUnwindSafe(evaluate))
            .unwrap_or_else(|_| Err(EvaluationError::Failed("the evaluation ended unexpectedly".to_owned())))
    }
}

/// Says what went wrong without the values of the event, which some messages of the library have.
fn describe(error: &ExecutionError) -> EvaluationError {
    EvaluationError::Failed(match error {
        ExecutionError::NoSuchKey(_) => {
            "a field is absent; test for it with has(), or write .?name and .orValue()".to_owned()
        }
        ExecutionError::NoSuchOverload(overload) => overload.to_string(),
        ExecutionError::UnexpectedType { got, want } => format!("a value is of the type {got}, not {want}"),
        ExecutionError::UnsupportedBinaryOperator(operator, _, _) => {
            format!("the operator {operator} has no meaning for values of these types")
        }
        ExecutionError::ValuesNotComparable(_, _) => "values of these types cannot be compared".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "an index is out of bounds".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "a division by zero".to_owned()
        }
        ExecutionError::Overflow(_, _, _) => "a number is too large".to_owned(),
        ExecutionError::UndeclaredReference(name) => format!("{name} is not defined for this value"),
        ExecutionError::FunctionError { function, .. } => format!("the function {function} failed"),
        _ => "the expression has no result".to_owned(),
    })
}
