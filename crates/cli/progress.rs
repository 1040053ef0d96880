//! Progress bars on standard error, on the live line; hidden if it is not a terminal.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use console::{measure_text_width, truncate_str};
use simmer_files::size::{duration, readable};

use crate::live_line::LiveLine;

/// A bar, shown until it is dropped.
#[derive(Debug)]
pub(crate) struct Bar {
    view: Arc<Mutex<View>>,
    line: Mutex<Option<LiveLine>>,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Bytes,
    Questions,
    /// Nothing: how long the work takes is not known.
    None,
}

/// What a bar shows.
#[derive(Debug)]
struct View {
    unit: Unit,
    message: String,
    done: u64,
    total: u64,
    start: Instant,
    /// The first count and its time: what was done before does not count for the rate.
    first: Option<(u64, Instant)>,
}

/// A bar that counts bytes, with rate and time left.
pub(crate) fn bytes(total: u64, message: &str) -> Bar {
    Bar::new(Unit::Bytes, total, message)
}

/// A bar that counts questions.
pub(crate) fn steps(total: u64) -> Bar {
    Bar::new(Unit::Questions, total, "")
}

/// A spinner for work of unknown length.
pub(crate) fn spinner(message: &str) -> Bar {
    Bar::new(Unit::None, 0, message)
}

/// A character that changes ten times per second.
pub(crate) fn frame(elapsed: Duration) -> char {
    const FRAMES: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
    FRAMES[(elapsed.as_millis() / 100 % 10) as usize]
}

impl Bar {
    fn new(unit: Unit, total: u64, message: &str) -> Self {
        let view = Arc::new(Mutex::new(View {
            unit,
            message: message.to_owned(),
            done: 0,
            total,
            start: Instant::now(),
            first: None,
        }));
        let shown = Arc::clone(&view);
        let line = LiveLine::show(move |columns| lock(&shown).line(columns, Instant::now()));
        Self {
            view,
            line: Mutex::new(Some(line)),
        }
    }

    /// Counts more.
    pub(crate) fn inc(&self, more: u64) {
        let mut view = lock(&self.view);
        let done = view.done + more;
        view.set(done, Instant::now());
    }

    pub(crate) fn set_position(&self, done: u64) {
        lock(&self.view).set(done, Instant::now());
    }

    pub(crate) fn set_length(&self, total: u64) {
        lock(&self.view).total = total;
    }

    pub(crate) fn set_message(&self, message: impl Into<String>) {
        lock(&self.view).message = message.into();
    }

    /// Removes the bar from the screen.
    pub(crate) fn finish_and_clear(&self) {
        drop(lock(&self.line).take());
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl View {
    fn set(&mut self, done: u64, now: Instant) {
        // the next file begins anew
        if self.first.is_none_or(|(first, _)| done < first) {
            self.first = Some((done, now));
        }
        self.done = done;
    }

    /// The line for a terminal of so many columns: without the bar, or cut off, if there is no room.
    fn line(&self, columns: usize, now: Instant) -> String {
        let room = columns.saturating_sub(1);
        let elapsed = now.saturating_duration_since(self.start);
        let with = |width: usize| {
            let bar = self.bar(width);
            let (message, left) = (&self.message, self.left(now));
            match self.unit {
                Unit::None => {
                    format!("{} {message} {}", frame(elapsed), to_a_second(elapsed))
                }
                Unit::Questions => format!("{bar}{}/{} {message}{left}", self.done, self.total),
                Unit::Bytes => {
                    let [done, total] = [self.done, self.total].map(readable);
                    format!("{message} {bar}{done}/{total}{}{left}", self.rate(now))
                }
            }
        };
        let widths = [30, 16, 0].into_iter().map(with);
        let mut lines = widths.skip_while(|line| measure_text_width(line) > room);
        let line = lines.next().unwrap_or_else(|| with(0));
        truncate_str(&line, room, "").into_owned()
    }

    fn bar(&self, width: usize) -> String {
        if width == 0 {
            return String::new();
        }
        let part = self.done.min(self.total) as f64 / self.total.max(1) as f64;
        let done = (part * width as f64) as usize;
        let arrow = if done < width { ">" } else { "" };
        format!("{:<width$} ", format!("{}{arrow}", "=".repeat(done)))
    }

    /// What is done per second, once it can be measured.
    fn per_second(&self, now: Instant) -> Option<f64> {
        let (first, since) = self.first?;
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        let done = self.done.saturating_sub(first) as f64;
        (done > 0.0 && seconds > 0.0).then(|| done / seconds)
    }

    fn rate(&self, now: Instant) -> String {
        let rate = self.per_second(now);
        rate.map_or_else(String::new, |rate| format!(" {}/s", readable(rate as u64)))
    }

    fn left(&self, now: Instant) -> String {
        let Some(rate) = self.per_second(now) else {
            return String::new();
        };
        let seconds = self.total.saturating_sub(self.done) as f64 / rate;
        match Duration::try_from_secs_f64(seconds) {
            Ok(left) if left.as_secs() > 0 => format!(" {} left", to_a_second(left)),
            _ => String::new(),
        }
    }
}

/// A time, rounded to a second, which a moving line shows.
pub(crate) fn to_a_second(time: Duration) -> String {
    duration(time.as_secs_f64().round())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(unit: Unit, total: u64) -> View {
        View {
            unit,
            message: "data/tiny-base: piqa".into(),
            done: 0,
            total,
            start: Instant::now(),
            first: None,
        }
    }

    #[test]
    fn a_bar_fits_into_its_terminal() {
        let mut view = view(Unit::Questions, 60);
        let at = |seconds| view.start + Duration::from_secs(seconds);
        let times = [at(1), at(11)];
        view.set(10, times[0]);
        view.set(30, times[1]);
        let lines = [120, 66, 40, 12].map(|columns| {
            let line = view.line(columns, times[1]);
            assert!(measure_text_width(&line) < columns, "{columns}: {line}");
            line
        });
        insta::assert_snapshot!(lines.join("\n"), @"
        ===============>               30/60 data/tiny-base: piqa 15 s left
        ========>        30/60 data/tiny-base: piqa 15 s left
        30/60 data/tiny-base: piqa 15 s left
        30/60 data/
        ");
    }

    #[test]
    fn nothing_is_left_before_it_can_be_measured() {
        let mut view = view(Unit::Bytes, 100);
        let now = view.start + Duration::from_secs(9);
        assert_eq!(view.left(now), "");
        // the first 60 were there before
        view.set(60, view.start);
        assert_eq!(view.left(now), "");
        view.set(70, now);
        assert_eq!(view.left(now), " 27 s left");
        view.set(5, now);
        assert_eq!(view.left(now), "");
    }
}
