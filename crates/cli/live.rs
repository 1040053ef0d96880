//! The progress of a run: a live line on a terminal, log lines elsewhere.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use console::{Term, measure_text_width};
use indicatif::{HumanDuration, ProgressBar};
use simmer_files::size::readable;
use simmer_model::base::Base;
use simmer_train::estimate::Estimate;
use simmer_train::{Observer, Start, StepMetrics, ValidationMetrics};

use crate::loaded::read_ahead;
use crate::output::{self, note};
use crate::progress;

/// The number of recent steps that the live line shows.
const RECENT: usize = 50;
/// Without a terminal, a line is logged at least this often.
const SILENCE: Duration = Duration::from_mins(1);

/// Shows the progress of a run on standard error.
pub(crate) struct Live {
    bar: Option<ProgressBar>,
    /// Steps between two log lines, if the user set it; otherwise about 20 lines per run.
    log_every: Option<u64>,
    last_line: Instant,
    steps: u64,
    /// The most recent steps, the newest last.
    recent: VecDeque<StepMetrics>,
    /// Whether the run is between its first and its last step.
    is_training: Arc<AtomicBool>,
}

impl Live {
    pub(crate) fn new(log_every: Option<u64>) -> Self {
        Self {
            bar: None,
            log_every,
            last_line: Instant::now(),
            steps: 0,
            recent: VecDeque::new(),
            is_training: Arc::default(),
        }
    }

    /// True between the first and the last step.
    pub(crate) fn is_training(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_training)
    }

    pub(crate) fn finish(&self) {
        self.is_training.store(false, Ordering::SeqCst);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Prints a line above the live line.
    fn print(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }

    fn is_line_due(&self, step: u64) -> bool {
        match self.log_every {
            Some(every) => step.is_multiple_of(every) || step == self.steps,
            None => {
                self.bar.is_none()
                    && (is_one_of_twenty(step, self.steps) || self.last_line.elapsed() >= SILENCE)
            }
        }
    }

    fn left(&self) -> Option<Duration> {
        left(&self.recent, self.steps)
    }
}

impl Observer for Live {
    fn on_load(&mut self, base: &Base) {
        read_ahead(base);
    }

    fn on_notice(&mut self, text: &str) {
        self.print(text);
    }

    fn on_estimate(&mut self, estimate: &Estimate) {
        self.print(&format!(
            "estimated peak memory: {} (details: `simmer estimate`)",
            readable(estimate.peak)
        ));
    }

    fn on_start(&mut self, start: &Start<'_>) {
        self.print(&start.data.to_string());
        if start.lint.warnings().next().is_some() {
            self.print(&start.lint.to_string());
        }
        let examples = match start.examples {
            None => format!("a stream: {} steps", start.steps),
            Some(examples) => format!(
                "{examples} examples: {} steps, {} per epoch",
                start.steps, start.steps_per_epoch
            ),
        };
        self.print(&format!(
            "{}\ntraining on {examples}",
            start.trainable_parameters()
        ));
        if let Some(step) = start.resumed_at {
            self.print(&format!("resuming after step {step}"));
        }
        self.steps = start.steps;
        self.is_training.store(true, Ordering::SeqCst);
        self.last_line = Instant::now();
        if output::is_terminal() {
            let done = start.resumed_at.unwrap_or(0);
            self.bar = Some(progress::line(&format!("{done}/{}", start.steps)));
        }
    }

    fn on_step(&mut self, step: &StepMetrics) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(step.clone());
        if self.is_line_due(step.step) {
            self.last_line = Instant::now();
            self.print(&log_line(step, self.steps, self.left()));
        }
        if let Some(bar) = &self.bar {
            bar.set_message(live_line(columns(), &self.recent, self.steps));
        }
    }

    fn on_validation_progress(&mut self, done: usize, all: usize) {
        if let (Some(bar), Some(last)) = (&self.bar, self.recent.back()) {
            let percent = 100.0 * done as f64 / all.max(1) as f64;
            bar.set_message(format!(
                "{}/{} validating {percent:.0}%",
                last.step, self.steps
            ));
        }
    }

    fn on_validation(&mut self, validation: &ValidationMetrics) {
        let best = if validation.best { " (best)" } else { "" };
        self.print(&format!(
            "step {}: validation loss {:.4}{best}",
            validation.step, validation.validation_loss
        ));
    }
}

/// About 20 lines per run, and the first steps.
fn is_one_of_twenty(step: u64, steps: u64) -> bool {
    step <= 3 || step == steps || step.is_multiple_of((steps / 20).max(1))
}

/// The time for the remaining steps, at the speed of the recent ones.
fn left(recent: &VecDeque<StepMetrics>, steps: u64) -> Option<Duration> {
    let last = recent.back()?;
    let seconds: f64 = recent.iter().map(|step| step.seconds).sum();
    let remaining = steps.saturating_sub(last.step) as f64;
    Duration::try_from_secs_f64(remaining * seconds / recent.len() as f64).ok()
}

fn log_line(step: &StepMetrics, steps: u64, left: Option<Duration>) -> String {
    let left = left.filter(|_| step.step < steps);
    let left = left.map_or_else(String::new, |left| format!(", {} left", short(left)));
    format!(
        "step {}/{steps}: loss {:.4}, {:.0} tokens/s, lr {:.3e}{left}",
        step.step, step.loss, step.tokens_per_second, step.learning_rate
    )
}

fn short(duration: Duration) -> String {
    format!("{:#}", HumanDuration(duration))
}

fn columns() -> usize {
    let (_, columns) = Term::stderr().size();
    usize::from(columns)
}

/// The live line for a terminal of so many columns. The most important parts get space first.
fn live_line(columns: usize, recent: &VecDeque<StepMetrics>, steps: u64) -> String {
    const NARROWEST: usize = 6;
    const LONGER: usize = 10;
    const WIDEST: usize = 30;
    const BAR: usize = 24;
    let Some(last) = recent.back() else {
        return String::new();
    };
    // The last column stays free: some terminals start a new line there.
    let mut room = columns.saturating_sub(1);
    let mut fits = |width: usize| {
        let is_room = room >= width;
        room -= if is_room { width } else { 0 };
        is_room
    };
    let count = format!("{}/{steps}", last.step);
    let loss = format!(" loss {:.4}", last.loss);
    let rate = format!("  {:.0} tokens/s", last.tokens_per_second);
    let time = left(recent, steps).filter(|left| !left.is_zero());
    let time = time.map_or_else(String::new, |left| format!("  {} left", short(left)));
    fits(count.len());
    let mut shown = |part: String| {
        if fits(measure_text_width(&part)) {
            part
        } else {
            String::new()
        }
    };
    let loss = shown(loss);
    let time = shown(time);
    let has_curve = fits(NARROWEST + 1);
    let mut shown = |part: String| {
        if fits(measure_text_width(&part)) {
            part
        } else {
            String::new()
        }
    };
    let rate = shown(rate);
    let has_longer_curve = has_curve && fits(LONGER);
    let has_bar = fits(BAR + 3);
    let longer = if has_longer_curve { LONGER } else { 0 };
    let wider = (NARROWEST + longer..WIDEST)
        .take_while(|_| has_curve && fits(1))
        .count();
    let losses: Vec<f64> = recent.iter().map(|step| step.loss).collect();
    let curve = if has_curve {
        format!(" {}", curve(&losses, NARROWEST + longer + wider))
    } else {
        String::new()
    };
    let bar = if has_bar {
        let done = (BAR as u64 * last.step / steps.max(1)) as usize;
        let arrow = if done < BAR { ">" } else { "" };
        format!("[{:<BAR$}] ", format!("{}{arrow}", "=".repeat(done)))
    } else {
        String::new()
    };
    format!("{bar}{count}{curve}{loss}{rate}{time}")
}

/// The last values as block characters, scaled from the lowest to the highest of them.
fn curve(values: &[f64], most: usize) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let values = &values[values.len().saturating_sub(most)..];
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let range = values.iter().copied().fold(f64::NEG_INFINITY, f64::max) - least;
    let block = |value: &f64| {
        let part = if range > 0.0 {
            (value - least) / range
        } else {
            0.5
        };
        BLOCKS[((part * 8.0) as usize).min(7)]
    };
    values.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(count: u64) -> VecDeque<StepMetrics> {
        let step = |step: u64| StepMetrics {
            step,
            epoch: 0.0,
            loss: 2.0 + 2.0 / step as f64,
            learning_rate: 1e-4,
            grad_norm: 1.0,
            tokens: 1000,
            targets: 300,
            seconds: 0.5,
            tokens_per_second: 2000.0,
            peak_memory: None,
            time: 0.0,
        };
        (1..=count).map(step).collect()
    }

    #[test]
    fn the_line_fits_into_its_terminal() {
        let recent = steps(40);
        let lines = [20, 30, 40, 60, 80, 120, 200].map(|columns| {
            let line = live_line(columns, &recent, 1000);
            assert!(measure_text_width(&line) < columns, "{columns}: {line}");
            format!("{columns:3}|{line}")
        });
        insta::assert_snapshot!(lines.join("\n"), @"
         20|40/1000 loss 2.0500
         30|40/1000 loss 2.0500  8m left
         40|40/1000 █▇▆▅▄▄▃▂▁▁ loss 2.0500  8m left
         60|40/1000 ██▇▆▅▅▄▄▃▃▂▂▁▁▁ loss 2.0500  2000 tokens/s  8m left
         80|40/1000 ██▇▆▆▅▅▄▄▄▃▃▃▃▂▂▂▂▂▂▁▁▁▁▁▁▁▁▁▁ loss 2.0500  2000 tokens/s  8m left
        120|[>                       ] 40/1000 ██▇▆▆▅▅▄▄▄▃▃▃▃▂▂▂▂▂▂▁▁▁▁▁▁▁▁▁▁ loss 2.0500  2000 tokens/s  8m left
        200|[>                       ] 40/1000 ██▇▆▆▅▅▄▄▄▃▃▃▃▂▂▂▂▂▂▁▁▁▁▁▁▁▁▁▁ loss 2.0500  2000 tokens/s  8m left
        ");
    }

    #[test]
    fn a_first_step_and_a_last_one_have_lines() {
        let lines = [live_line(80, &steps(1), 9), live_line(120, &steps(9), 9)];
        insta::assert_snapshot!(lines.join("\n"), @"
        1/9 ▅ loss 4.0000  2000 tokens/s  4s left
        [========================] 9/9 █▄▂▂▁▁▁▁▁ loss 2.2222  2000 tokens/s
        ");
        assert_eq!(live_line(80, &VecDeque::new(), 9), "");
        assert_eq!(live_line(0, &steps(3), 9), "3/9");
    }

    #[test]
    fn a_curve_is_of_the_last_values() {
        assert_eq!(curve(&[9.0, 1.0, 2.0, 8.0, 4.5], 4), "▁▂█▅");
        assert_eq!(curve(&[3.0, 3.0], 9), "▅▅");
        assert_eq!(curve(&[], 9), "");
    }

    #[test]
    fn a_log_line_says_what_is_left() {
        let recent = steps(40);
        let lines = [
            log_line(&recent[39], 1000, left(&recent, 1000)),
            log_line(&recent[39], 40, left(&recent, 40)),
        ];
        insta::assert_snapshot!(lines.join("\n"), @"
        step 40/1000: loss 2.0500, 2000 tokens/s, lr 1.000e-4, 8m left
        step 40/40: loss 2.0500, 2000 tokens/s, lr 1.000e-4
        ");
    }

    #[test]
    fn lines_come_when_they_are_due() {
        let due = |log_every, steps| -> Vec<u64> {
            let live = Live {
                steps,
                ..Live::new(log_every)
            };
            (1..=steps).filter(|step| live.is_line_due(*step)).collect()
        };
        assert_eq!(due(Some(4), 10), [4, 8, 10]);
        assert_eq!(due(None, 4), [1, 2, 3, 4]);
        assert_eq!(due(None, 4000).len(), 23);
    }
}
