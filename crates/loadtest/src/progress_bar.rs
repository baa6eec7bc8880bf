//! The progress bar on standard error. The caller checks that it is a terminal.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::MissedTickBehavior;

use crate::config::Amount;
use crate::decimal::grouped;
use crate::run::Handle;

const TICK: Duration = Duration::from_millis(200);
/// Rates are averages over this many ticks.
const RATE_TICKS: usize = 5;

/// Draws the progress bar until the future is dropped.
pub(crate) async fn show(handle: Handle, amount: Amount) -> anyhow::Result<Infallible> {
    let length = match amount {
        Amount::Events(events) => events,
        Amount::Time(time) => u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
    };
    let bar = Bar(ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr()));
    bar.0.set_style(ProgressStyle::with_template("{bar:10} {wide_msg}")?);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let started = Instant::now();
    let mut history = vec![(started, handle.progress()); RATE_TICKS];
    loop {
        let now = ticks.tick().await.into_std();
        let progress = handle.progress();
        history.rotate_left(1);
        let (then, before) = history[RATE_TICKS - 1];
        history[RATE_TICKS - 1] = (now, progress);
        let seconds = now.saturating_duration_since(then).as_secs_f64().max(TICK.as_secs_f64());
        let rate =
            |count: u64, earlier: u64| grouped((count.saturating_sub(earlier) as f64 / seconds) as u64);
        bar.0.set_position(match amount {
            Amount::Events(_) => progress.sent,
            Amount::Time(_) => u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX).min(length),
        });
        bar.0.set_message(format!(
            "sent {}, accepted {}/s, delivered {}/s, outstanding {}, errors {}",
            grouped(progress.sent),
            rate(progress.accepted, before.accepted),
            rate(progress.delivered, before.delivered),
            grouped(progress.outstanding),
            grouped(progress.errors),
        ));
    }
}

/// A progress bar that clears its line when it is dropped.
struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
