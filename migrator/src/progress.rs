//! Shows a person how a move goes.

use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use store_api::transfer::PullProgress;

use crate::perform::Watch;
use crate::step::Step;

/// A bar on a terminal; elsewhere one line a step on standard error.
pub(crate) struct Shown {
    bar: ProgressBar,
    started: Instant,
    last: PullProgress,
}

impl Shown {
    pub(crate) fn new() -> Self {
        let style = ProgressStyle::with_template(
            "{spinner} {msg:<22} {bytes}/{total_bytes} [{wide_bar}] {bytes_per_sec}, {eta} left",
        );
        let bar =
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self {
            bar,
            started: Instant::now(),
            last: PullProgress::default(),
        }
    }

    /// What was moved, for the last line.
    pub(crate) fn summary(&self) -> String {
        self.bar.finish_and_clear();
        format!(
            "{} messages, {} ({} copied, the rest was there already) in {:.1} s",
            self.last.messages,
            HumanBytes(self.last.octets),
            HumanBytes(self.last.copied_octets),
            self.started.elapsed().as_secs_f32(),
        )
    }
}

impl Watch for Shown {
    fn step(&mut self, step: Step) {
        let text = match step {
            Step::Offer => "beginning",
            Step::Copy => "copying",
            Step::Verify => "frozen, comparing",
            Step::Switch => "switching the home",
            Step::Release => "releasing the source",
            Step::Undo => "undoing",
            Step::Done => "done",
        };
        self.bar.set_message(text);
        if self.bar.is_hidden() && step != Step::Done {
            eprintln!("{text}");
        }
    }

    fn copied(&mut self, progress: &PullProgress) {
        self.last = *progress;
        self.bar.set_length(progress.octets_total);
        self.bar.set_position(progress.octets);
        self.bar.set_message(format!(
            "copying {}/{} messages",
            progress.messages, progress.messages_total
        ));
    }
}
