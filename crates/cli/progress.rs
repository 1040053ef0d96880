//! Progress bars on standard error; hidden if it is not a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::is_terminal;

/// A bar that counts bytes, with rate and time left.
pub(crate) fn bytes(total: u64, message: &str) -> ProgressBar {
    styled(
        ProgressBar::new(total),
        "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left",
        message,
    )
}

/// A bar that counts questions.
pub(crate) fn steps(total: u64) -> ProgressBar {
    styled(
        ProgressBar::new(total),
        "{bar:24} {pos}/{len} {msg} {eta} left",
        "",
    )
}

/// A line whose text is set from outside, cut to the width of the terminal.
pub(crate) fn line(message: &str) -> ProgressBar {
    styled(ProgressBar::new_spinner(), "{wide_msg}", message)
}

/// A spinner for work of unknown length.
pub(crate) fn spinner(message: &str) -> ProgressBar {
    let bar = styled(
        ProgressBar::new_spinner(),
        "{spinner} {msg} {elapsed}",
        message,
    );
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn styled(bar: ProgressBar, template: &str, message: &str) -> ProgressBar {
    if !is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(message.to_owned());
    bar
}
