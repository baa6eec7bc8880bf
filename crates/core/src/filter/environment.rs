//! The functions of expressions: those of the standard library, with `matches` of our own.
//!
//! The library would compile a pattern again for each call and without a bound of its size, so it is built without it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::common::ast::operators;
use cel::common::types::{CelBool, CelString, STRING_TYPE};
use cel::common::value::CowVal;
use cel::{Env, ExecutionError};
use regex::{Regex, RegexBuilder};

/// The name of the function that tests a text against a pattern.
pub(super) const MATCHES: &str = "matches";

/// The names by which functions can be called.
const FUNCTIONS: [&str; 29] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "hasValue",
    "int",
    MATCHES,
    "or",
    "orValue",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
    "value",
];

/// What the operators, and the loops of macros, call.
const OPERATORS: [&str; 21] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::OPT_INDEX,
    operators::OPT_SELECT,
    operators::NOT_STRICTLY_FALSE,
    operators::IN,
];

/// The names of types, which `type` returns.
const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// The memory that a compiled pattern, and what it keeps to match faster, may take, in bytes.
const PATTERN_BYTES: usize = 128 * 1024;

/// The compiled patterns that a thread keeps.
const KEPT_PATTERNS: usize = 64;

thread_local! {
    static PATTERNS: RefCell<HashMap<String, Regex>> = RefCell::new(HashMap::new());
}

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    let texts = || vec![STRING_TYPE, STRING_TYPE];
    environment.add_overload(MATCHES, "matches", texts(), matches).expect("the library has no matches");
    environment
        .add_member_overload(MATCHES, "matches_string", STRING_TYPE, vec![STRING_TYPE], matches)
        .expect("the library has no matches");
    Arc::new(environment)
});

/// Returns whether there is a function, or an operator, with this name. What there is not is refused when an expression is compiled.
pub(super) fn has_function(name: &str) -> bool {
    FUNCTIONS.contains(&name) || OPERATORS.contains(&name)
}

/// Returns whether the name is that of a type, such as `type` returns.
pub(super) fn has_type(name: &str) -> bool {
    TYPES.contains(&name)
}

/// Returns the environment in which expressions are compiled and evaluated. It is built once.
pub(super) fn environment() -> Arc<Env> {
    Arc::clone(&ENVIRONMENT)
}

/// Compiles a pattern within its bounds.
pub(super) fn pattern(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).build()
}

fn matches<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = |index: usize| arguments.get(index).and_then(|value| value.downcast_ref::<CelString<'_>>());
    let (Some(text), Some(expected)) = (text(0), text(1)) else {
        return Err(ExecutionError::MissingArgumentOrTarget);
    };
    PATTERNS.with_borrow_mut(|patterns| {
        if let Some(pattern) = patterns.get(expected.inner()) {
            return Ok(CowVal::owned(CelBool::from(pattern.is_match(text.inner()))));
        }
        let pattern = pattern(expected.inner())
            .map_err(|_| ExecutionError::function_error(MATCHES, "the pattern is not valid"))?;
        let is_match = pattern.is_match(text.inner());
        if patterns.len() >= KEPT_PATTERNS {
            patterns.clear();
        }
        patterns.insert(expected.inner().to_owned(), pattern);
        Ok(CowVal::owned(CelBool::from(is_match)))
    })
}
