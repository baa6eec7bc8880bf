//! The bounds of an expression, and the names that it may use.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue};
use thiserror::Error;

use super::environment::{self, MATCHES};
use super::input::{EVENT, EVENT_FIELDS, HEADERS, PAYLOAD, Uses};

/// The most parts that an expression may have: each name, literal, operator, selection and call is one, and a macro a few more.
pub const MAX_NODES: usize = 256;

/// The deepest nesting of the parts.
pub const MAX_DEPTH: usize = 32;

/// The most macros that loop (`all`, `exists`, `exists_one`, `filter`, `map`) inside each other.
pub const MAX_LOOP_DEPTH: usize = 2;

/// Why an expression cannot be used. The message is the problem and its remedy, without the field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExpressionError {
    #[error("must be no more than {} characters", super::MAX_CHARS)]
    TooLong,
    #[error("does not parse at line {line}, column {column}: {message}")]
    Syntax { line: isize, column: isize, message: String },
    #[error("has more than {MAX_NODES} parts; write a shorter expression")]
    TooManyNodes,
    #[error(
        "is nested more than {MAX_DEPTH} levels deep; put parentheses around parts of long sums, or write a shorter expression"
    )]
    TooDeep,
    #[error("has more than {MAX_LOOP_DEPTH} macros that loop inside each other")]
    TooManyLoops,
    #[error("unknown variable {0}; there are event, payload and headers")]
    UnknownVariable(String),
    #[error("unknown field event.{0}; there are {fields}", fields = EVENT_FIELDS.join(", "))]
    UnknownField(String),
    #[error("unknown function {0}")]
    UnknownFunction(String),
    #[error("messages such as {0}{{}} are not supported")]
    Message(String),
    #[error("the pattern of matches must be a text in the expression")]
    PatternNotLiteral,
    #[error("the pattern of matches is not valid: {0}")]
    Pattern(String),
    #[error("the result is never true or false")]
    NeverBool,
    #[error("the expression could not be checked")]
    NotChecked,
}

/// Checks an expression and returns the variables that it uses.
pub(super) fn check(expression: &IdedExpr) -> Result<Uses, ExpressionError> {
    let mut walk = Walk::default();
    walk.visit(expression, 1, 0)?;
    match &expression.expr {
        Expr::Literal(literal) if !matches!(literal, LiteralValue::Boolean(_)) => {
            Err(ExpressionError::NeverBool)
        }
        Expr::List(_) | Expr::Map(_) => Err(ExpressionError::NeverBool),
        _ => Ok(walk.uses),
    }
}

#[derive(Default)]
struct Walk<'a> {
    nodes: usize,
    /// The variables of the loops around a part.
    scope: Vec<&'a str>,
    uses: Uses,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, part: &'a IdedExpr, depth: usize, loops: usize) -> Result<(), ExpressionError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(ExpressionError::TooManyNodes);
        }
        if depth > MAX_DEPTH {
            return Err(ExpressionError::TooDeep);
        }
        let depth = depth + 1;
        match &part.expr {
            Expr::Unspecified => Err(ExpressionError::NotChecked),
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => {
                if let Expr::Ident(name) = &select.operand.expr
                    && name == EVENT
                    && !self.scope.contains(&EVENT)
                    && !EVENT_FIELDS.contains(&select.field.as_str())
                {
                    return Err(ExpressionError::UnknownField(select.field.clone()));
                }
                self.visit(&select.operand, depth, loops)
            }
            Expr::Call(call) => self.call(call, depth, loops),
            Expr::List(list) => {
                list.elements.iter().try_for_each(|element| self.visit(element, depth, loops))
            }
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.visit(&entry.key, depth, loops)?;
                    self.visit(&entry.value, depth, loops)
                }
                EntryExpr::StructField(_) => Err(ExpressionError::NotChecked),
            }),
            Expr::Struct(message) => Err(ExpressionError::Message(message.type_name.clone())),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, depth, loops),
        }
    }

    fn variable(&mut self, name: &'a str) -> Result<(), ExpressionError> {
        match name {
            _ if self.scope.contains(&name) || environment::has_type(name) => {}
            EVENT => self.uses.event = true,
            PAYLOAD => self.uses.payload = true,
            HEADERS => self.uses.headers = true,
            _ => return Err(ExpressionError::UnknownVariable(name.to_owned())),
        }
        Ok(())
    }

    fn call(&mut self, call: &'a CallExpr, depth: usize, loops: usize) -> Result<(), ExpressionError> {
        if !environment::has_function(&call.func_name) {
            return Err(ExpressionError::UnknownFunction(call.func_name.clone()));
        }
        if call.func_name == MATCHES {
            check_pattern(call)?;
        }
        if let Some(target) = &call.target {
            self.visit(target, depth, loops)?;
        }
        call.args.iter().try_for_each(|argument| self.visit(argument, depth, loops))
    }

    fn comprehension(
        &mut self,
        comprehension: &'a ComprehensionExpr,
        depth: usize,
        loops: usize,
    ) -> Result<(), ExpressionError> {
        self.visit(&comprehension.iter_range, depth, loops)?;
        self.visit(&comprehension.accu_init, depth, loops)?;
        let loops = loops + 1;
        if loops > MAX_LOOP_DEPTH {
            return Err(ExpressionError::TooManyLoops);
        }
        let outer = self.scope.len();
        self.scope.push(&comprehension.accu_var);
        self.scope.push(&comprehension.iter_var);
        self.scope.extend(comprehension.iter_var2.as_deref());
        for part in [&comprehension.loop_cond, &comprehension.loop_step, &comprehension.result] {
            self.visit(part, depth, loops)?;
        }
        self.scope.truncate(outer);
        Ok(())
    }
}

/// Checks the pattern where the expression is compiled. One from a payload would be anybody's, and a new one for each event.
fn check_pattern(call: &CallExpr) -> Result<(), ExpressionError> {
    let pattern = call.args.get(usize::from(call.target.is_none()));
    let Some(Expr::Literal(LiteralValue::String(pattern))) = pattern.map(|pattern| &pattern.expr) else {
        return Err(ExpressionError::PatternNotLiteral);
    };
    let problem = |error: regex::Error| {
        let text = error.to_string();
        ExpressionError::Pattern(text.lines().last().unwrap_or_default().trim().to_owned())
    };
    environment::pattern(pattern.inner()).map(|_| ()).map_err(problem)
}
