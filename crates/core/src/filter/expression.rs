//! A compiled expression.

use std::fmt;
use std::thread;

use cel::common::ast::IdedExpr;
use cel::{ParseErrors, Program};

use super::environment::environment;
use super::input::Uses;
use super::limits::{self, ExpressionError};

/// The most characters of an expression.
pub const MAX_CHARS: usize = 2_048;

/// The stack on which expressions are parsed. The parser calls itself for each level of nesting before anybody can count them, and
/// 2,048 characters make a thousand. What is not optimized takes several times as much.
const STACK_BYTES: usize = if cfg!(debug_assertions) { 64 } else { 16 } * 1024 * 1024;

/// An expression that is within its bounds and uses only what there is.
pub struct Expression {
    program: Program,
    source: String,
    pub(super) uses: Uses,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

impl Expression {
    /// Parses and checks an expression, on a thread of its own for its stack.
    pub fn compile(source: &str) -> Result<Self, ExpressionError> {
        if source.chars().count() > MAX_CHARS {
            return Err(ExpressionError::TooLong);
        }
        thread::scope(|scope| {
            let compile = || compile_here(source);
            let compiling = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, compile);
            compiling.map_or(Err(ExpressionError::NotChecked), |compiling| {
                compiling.join().unwrap_or(Err(ExpressionError::NotChecked))
            })
        })
    }

    /// The text that was compiled.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns whether the payload is needed for it.
    pub fn uses_payload(&self) -> bool {
        self.uses.payload
    }

    /// Returns whether the headers are needed for it.
    pub fn uses_headers(&self) -> bool {
        self.uses.headers
    }

    pub(super) fn root(&self) -> &IdedExpr {
        self.program.expression()
    }
}

fn compile_here(source: &str) -> Result<Expression, ExpressionError> {
    let program = environment().compile(source).map_err(|errors| syntax_error(&errors))?;
    let uses = limits::check(program.expression())?;
    Ok(Expression { program, source: source.to_owned(), uses })
}

/// Returns the first problem, in one line.
fn syntax_error(errors: &ParseErrors) -> ExpressionError {
    let Some(first) = errors.errors.first() else { return ExpressionError::NotChecked };
    let (line, column) = first.pos;
    let message: String = first.msg.lines().next().unwrap_or_default().chars().take(200).collect();
    ExpressionError::Syntax { line, column, message }
}
