//! Values of lists, which templates have by reference.

use crate::console::show;

/// A size in bytes.
pub(super) fn bytes(size: &usize) -> String {
    show::bytes(*size)
}

/// A duration in milliseconds.
pub(super) fn took(milliseconds: &i32) -> String {
    show::milliseconds(f64::from(*milliseconds))
}
