//! The lines that a run prints, on standard error as those of the scripts.

use std::io::IsTerminal;
use std::time::Duration;

/// The line of a case that has passed.
pub(crate) fn passed(case: &str, elapsed: Duration, remark: &str) {
    let [_, green, _, reset] = colors();
    let line = format!("{green}✓{reset} {case:<10} {:>8}  {remark}", seconds(elapsed));
    eprintln!("{}", line.trim_end());
}

/// The line of a case that has failed. The panic's message is printed before it.
pub(crate) fn failed(case: &str, elapsed: Duration) {
    let [red, _, _, reset] = colors();
    eprintln!("{red}✗ {case:<10} {:>8}{reset}", seconds(elapsed));
}

/// A step of a long case.
pub(crate) fn note(text: &str) {
    let [_, _, dim, reset] = colors();
    eprintln!("{dim}  {text}{reset}");
}

/// 1234 ms → `1.2 s`
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Red, green, dim and reset; all empty in a file, in a pipe, or when `NO_COLOR` is set.
fn colors() -> [&'static str; 4] {
    let wanted = std::env::var("NO_COLOR").unwrap_or_default().is_empty();
    if wanted && std::io::stderr().is_terminal() {
        ["\x1b[31m", "\x1b[32m", "\x1b[2m", "\x1b[0m"]
    } else {
        [""; 4]
    }
}
