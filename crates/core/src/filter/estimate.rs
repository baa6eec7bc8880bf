//! An upper bound of what an expression takes for a given event: the turns of its loops, the memory of its largest value, and what it
//! compares, copies and searches.
//!
//! The library has no such bound: a short expression of two loops could take hours, and sums of texts in chained loops all the
//! memory that there is. So each part is given the size that its result has at most, from the sizes of the variables. All estimates are
//! convex functions of the size of a loop's variable, which that of a loop relies on: the elements of a list are together no larger than
//! the list, so the results for all of them are no larger than one result for the whole list, and as many results for nothing.

use std::cmp::max;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::environment::MATCHES;
use super::evaluation::EvaluationError;
use super::input::{EVENT, HEADERS, PAYLOAD};

/// The most turns of loops, together.
const MAX_TURNS: u64 = 100_000;

/// The most bytes of a value that an expression makes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The most bytes of values that an expression compares, copies and searches.
const MAX_WORK: u64 = 256 * 1024 * 1024;

/// The memory of a value beside its text, in bytes.
pub(super) const VALUE_BYTES: u64 = 128;

/// The longest text that a number or a time becomes, in bytes.
const NUMBER_BYTES: u64 = 32;

/// How much more than a comparison the search for a pattern takes.
const PATTERN_WORK: u64 = 256;

/// The size of a value. One that is no text, list or map has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) bytes: u64,
    /// The length of the longest list or map in it.
    pub(super) longest: u64,
}

impl Size {
    fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            longest: self.longest.saturating_add(other.longest),
        }
    }

    fn or(self, other: Self) -> Self {
        Self { bytes: max(self.bytes, other.bytes), longest: max(self.longest, other.longest) }
    }
}

/// The sizes of the variables.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sizes {
    pub(super) event: Size,
    pub(super) payload: Size,
    pub(super) headers: Size,
}

/// Fails if the evaluation could take too much.
pub(super) fn check(expression: &IdedExpr, sizes: Sizes) -> Result<(), EvaluationError> {
    let mut estimate = Estimate { sizes, scope: Vec::new(), largest: 0, taken: Taken::default() };
    estimate.size(expression);
    if estimate.taken.turns > MAX_TURNS {
        return Err(EvaluationError::TooManyTurns);
    }
    if estimate.largest > MAX_BYTES {
        return Err(EvaluationError::TooLarge);
    }
    if estimate.taken.work > MAX_WORK {
        return Err(EvaluationError::TooMuchWork);
    }
    Ok(())
}

struct Estimate<'a> {
    sizes: Sizes,
    /// The variables of the loops around a part.
    scope: Vec<(&'a str, Size)>,
    largest: u64,
    taken: Taken,
}

/// What evaluating the parts so far takes.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    turns: u64,
    work: u64,
}

impl<'a> Estimate<'a> {
    fn size(&mut self, part: &'a IdedExpr) -> Size {
        match &part.expr {
            Expr::Unspecified | Expr::Struct(_) => Size::default(),
            Expr::Literal(literal) => Size { bytes: literal_bytes(literal), longest: 0 },
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => {
                let operand = self.size(&select.operand);
                if select.test { Size::default() } else { operand }
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.collection(list.elements.iter(), list.elements.len()),
            Expr::Map(map) => {
                let parts = map.entries.iter().filter_map(|entry| match &entry.expr {
                    EntryExpr::MapEntry(entry) => Some([&entry.key, &entry.value]),
                    EntryExpr::StructField(_) => None,
                });
                self.collection(parts.flatten(), map.entries.len())
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
        }
    }

    fn variable(&self, name: &str) -> Size {
        if let Some((_, size)) = self.scope.iter().rev().find(|(known, _)| *known == name) {
            return *size;
        }
        match name {
            EVENT => self.sizes.event,
            PAYLOAD => self.sizes.payload,
            HEADERS => self.sizes.headers,
            _ => Size::default(),
        }
    }

    fn call(&mut self, call: &'a CallExpr) -> Size {
        let parts = call.target.as_deref().into_iter().chain(&call.args);
        let sizes: Vec<Size> = parts.map(|part| self.size(part)).collect();
        let all = sizes.iter().fold(Size::default(), |all, size| all.plus(*size));
        match call.func_name.as_str() {
            operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT => Size::default(),
            // One of the values or a part of it, and nothing new.
            operators::CONDITIONAL | operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT => {
                sizes.into_iter().fold(Size::default(), Size::or)
            }
            operators::EQUALS | operators::NOT_EQUALS => {
                // A comparison ends with the shorter of the two.
                let literal =
                    call.args.iter().zip(&sizes).find(|(part, _)| matches!(part.expr, Expr::Literal(_)));
                self.work(literal.map_or(all.bytes, |(_, size)| size.bytes));
                Size::default()
            }
            MATCHES => {
                self.work(all.bytes.saturating_mul(PATTERN_WORK));
                Size::default()
            }
            function => {
                self.work(all.bytes);
                if has_small_result(function) {
                    return Size::default();
                }
                self.made(all.plus(Size { bytes: NUMBER_BYTES, longest: 0 }))
            }
        }
    }

    fn collection(&mut self, parts: impl Iterator<Item = &'a IdedExpr>, length: usize) -> Size {
        let mut made = Size { bytes: 0, longest: length as u64 };
        for part in parts {
            let size = self.size(part);
            made.bytes = made.bytes.saturating_add(size.bytes).saturating_add(VALUE_BYTES);
            made.longest = max(made.longest, size.longest);
        }
        self.work(made.bytes);
        self.made(made)
    }

    fn comprehension(&mut self, comprehension: &'a ComprehensionExpr) -> Size {
        let range = self.size(&comprehension.iter_range);
        let first = self.size(&comprehension.accu_init);
        // Each element is copied.
        self.work(range.bytes);
        let turns = range.longest;
        let (nothing, for_nothing) = self.turn(comprehension, Size { bytes: 0, ..range });
        let (whole, for_whole) = self.turn(comprehension, range);
        let together = |nothing: u64, whole: u64| {
            nothing.saturating_mul(turns).saturating_add(whole.saturating_sub(nothing))
        };
        self.taken.turns =
            self.taken.turns.saturating_add(turns.saturating_mul(for_whole.turns.saturating_add(1)));
        self.work(together(for_nothing.work, for_whole.work));
        // A turn adds one element at most.
        self.made(Size {
            bytes: together(nothing.bytes, whole.bytes).saturating_add(first.bytes),
            longest: max(turns, whole.longest),
        })
    }

    /// Returns what one turn adds to the result, for an element of this size, and what it takes.
    fn turn(&mut self, comprehension: &'a ComprehensionExpr, element: Size) -> (Size, Taken) {
        let (outer, before) = (self.scope.len(), std::mem::take(&mut self.taken));
        self.scope.push((&comprehension.accu_var, Size::default()));
        self.scope.push((&comprehension.iter_var, element));
        if let Some(second) = &comprehension.iter_var2 {
            self.scope.push((second, element));
        }
        self.size(&comprehension.loop_cond);
        let step = self.size(&comprehension.loop_step);
        self.scope.truncate(outer);
        (step, std::mem::replace(&mut self.taken, before))
    }

    fn work(&mut self, bytes: u64) {
        self.taken.work = self.taken.work.saturating_add(bytes);
    }

    fn made(&mut self, size: Size) -> Size {
        self.largest = max(self.largest, size.bytes);
        size
    }
}

/// Returns whether the result of a function is true or false, a number, a time or a type.
fn has_small_result(function: &str) -> bool {
    const SMALL: [&str; 23] = [
        operators::DIVIDE,
        operators::GREATER,
        operators::GREATER_EQUALS,
        operators::IN,
        operators::LESS,
        operators::LESS_EQUALS,
        operators::MODULO,
        operators::MULTIPLY,
        operators::NEGATE,
        operators::NOT_STRICTLY_FALSE,
        operators::SUBSTRACT,
        "bool",
        "contains",
        "double",
        "duration",
        "endsWith",
        "hasValue",
        "int",
        "size",
        "startsWith",
        "timestamp",
        "type",
        "uint",
    ];
    SMALL.contains(&function) || function.starts_with("get")
}

fn literal_bytes(literal: &LiteralValue) -> u64 {
    match literal {
        LiteralValue::String(text) => text.inner().len() as u64,
        LiteralValue::Bytes(bytes) => bytes.inner().len() as u64,
        _ => 0,
    }
}
