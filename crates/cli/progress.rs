//! Progress bars on standard error; hidden if it is not a terminal.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use simmer_files::size::duration;

use crate::output::is_terminal;

/// A bar that counts bytes, with rate and time left.
pub(crate) fn bytes(total: u64, message: &str) -> ProgressBar {
    styled(
        ProgressBar::new(total),
        "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}{left}",
        message,
    )
}

/// A bar that counts questions.
pub(crate) fn steps(total: u64) -> ProgressBar {
    styled(
        ProgressBar::new(total),
        "{bar:24} {pos}/{len} {wide_msg}{left}",
        "",
    )
}

/// A spinner for work of unknown length.
pub(crate) fn spinner(message: &str) -> ProgressBar {
    let bar = styled(
        ProgressBar::new_spinner(),
        "{spinner} {msg} {passed}",
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
        let style = style.with_key("left", |state: &ProgressState, text: &mut dyn Write| {
            let _ = text.write_str(&left(state.pos(), state.eta()));
        });
        let style = style.with_key("passed", |state: &ProgressState, text: &mut dyn Write| {
            let _ = text.write_str(&to_a_second(state.elapsed()));
        });
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(message.to_owned());
    bar
}

/// The time left, once something is done; before that nobody knows it.
fn left(done: u64, left: Duration) -> String {
    if done == 0 || left.is_zero() {
        String::new()
    } else {
        format!(" {} left", to_a_second(left))
    }
}

/// A time, rounded to a second, which a moving line shows.
pub(crate) fn to_a_second(time: Duration) -> String {
    duration(time.as_secs_f64().round())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_before_the_first_is_done() {
        assert_eq!(left(0, Duration::ZERO), "");
        assert_eq!(left(0, Duration::from_secs(9)), "");
        assert_eq!(left(3, Duration::from_secs(45)), " 45 s left");
        assert_eq!(left(60, Duration::ZERO), "");
    }
}
