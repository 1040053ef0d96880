//! The texts of a run's progress.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use console::{measure_text_width, truncate_str};
use simmer_train::StepMetrics;

use crate::progress::{frame, to_a_second};

/// A step that takes longer shows that it is being computed.
const LONG: Duration = Duration::from_secs(1);

/// What the live line shows.
#[derive(Debug)]
pub(super) struct View {
    /// Steps of the run.
    pub(super) steps: u64,
    /// Finished steps.
    pub(super) done: u64,
    /// The most recent steps, the newest last.
    pub(super) recent: VecDeque<StepMetrics>,
    pub(super) doing: Doing,
    /// When it began.
    pub(super) since: Instant,
}

/// What the run does now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum Doing {
    /// It computes a step.
    #[default]
    Step,
    /// It measures the validation loss.
    Validation {
        /// How much of it is done.
        percent: f64,
    },
}

impl Default for View {
    fn default() -> Self {
        Self {
            steps: 0,
            done: 0,
            recent: VecDeque::new(),
            doing: Doing::Step,
            since: Instant::now(),
        }
    }
}

impl View {
    /// A step is finished; of the recent ones, `most` are kept.
    pub(super) fn step(&mut self, step: &StepMetrics, most: usize) {
        if self.recent.len() == most {
            self.recent.pop_front();
        }
        self.recent.push_back(step.clone());
        self.done = step.step;
        self.begin();
    }

    /// The next step begins.
    pub(super) fn begin(&mut self) {
        self.doing = Doing::Step;
        self.since = Instant::now();
    }

    /// The line for a terminal of so many columns. `micro_batches` are those of the current step: the finished ones, and
    /// all; `elapsed` is the time since it began.
    pub(super) fn line(
        &self,
        columns: usize,
        micro_batches: (usize, usize),
        elapsed: Duration,
    ) -> String {
        let count = format!("{}/{}", self.done, self.steps);
        let (done, all) = micro_batches;
        let line = match self.doing {
            Doing::Validation { percent } => format!("{count} validating {percent:.0}%"),
            Doing::Step if self.recent.is_empty() => {
                let part = match all {
                    0 | 1 => String::new(),
                    all => format!(", {done} of {all} micro-batches"),
                };
                format!(
                    "{count} {} step {}{part}, {}",
                    frame(elapsed),
                    self.done + 1,
                    to_a_second(elapsed)
                )
            }
            Doing::Step if elapsed < LONG || self.done >= self.steps => {
                live_line(columns, &self.recent, self.steps)
            }
            Doing::Step => {
                let part = match all {
                    0 | 1 => String::new(),
                    all => format!(" {done}/{all}"),
                };
                let end = format!("  {}{part}", frame(elapsed));
                let room = columns.saturating_sub(measure_text_width(&end));
                live_line(room, &self.recent, self.steps) + &end
            }
        };
        truncate_str(&line, columns.saturating_sub(1), "").into_owned()
    }
}

/// About 20 lines per run, and the first steps.
pub(super) fn is_one_of_twenty(step: u64, steps: u64) -> bool {
    step <= 3 || step == steps || step.is_multiple_of((steps / 20).max(1))
}

/// The time for the remaining steps, at the speed of the recent ones.
pub(super) fn left(recent: &VecDeque<StepMetrics>, steps: u64) -> Option<Duration> {
    let last = recent.back()?;
    let seconds: f64 = recent.iter().map(|step| step.seconds).sum();
    let remaining = steps.saturating_sub(last.step) as f64;
    Duration::try_from_secs_f64(remaining * seconds / recent.len() as f64).ok()
}

pub(super) fn log_line(step: &StepMetrics, steps: u64, left: Option<Duration>) -> String {
    let left = left.filter(|_| step.step < steps);
    let left = left.map_or_else(String::new, |left| format!(", {} left", to_a_second(left)));
    let rate = match step.learning_rates {
        None => format!("{:.3e}", step.learning_rate),
        Some([lowest, highest]) => format!("{lowest:.3e} to {highest:.3e}"),
    };
    format!(
        "step {}/{steps}: loss {:.4}, {:.0} tokens/s, lr {rate}{left}",
        step.step, step.loss, step.tokens_per_second
    )
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
    let time = time.map_or_else(String::new, |left| format!("  {} left", to_a_second(left)));
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
pub(super) mod tests {
    use super::*;

    pub(in crate::live) fn steps(count: u64) -> VecDeque<StepMetrics> {
        let step = |step: u64| StepMetrics {
            step,
            epoch: 0.0,
            loss: 2.0 + 2.0 / step as f64,
            learning_rate: 1e-4,
            learning_rates: None,
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
         30|40/1000 █▇▆▅▄▃▂▁▁ loss 2.0500
         40|40/1000 █▇▆▄▃▂▁ loss 2.0500  8 min left
         60|40/1000 ██▇▆▅▄▄▃▂▂▁▁ loss 2.0500  2000 tokens/s  8 min left
         80|40/1000 ██▇▆▆▅▅▄▄▄▃▃▃▃▂▂▂▂▂▂▁▁▁▁▁▁▁▁▁▁ loss 2.0500  2000 tokens/s  8 min left
        120|[>                       ] 40/1000 ██▇▆▆▅▅▄▄▄▃▃▃▃▂▂▂▂▂▂▁▁▁▁▁▁▁▁▁▁ loss 2.0500  2000 tokens/s  8 min left
        200|[>                       ] 40/1000 ██▇▆▆▅▅▄▄▄▃▃▃▃▂▂▂▂▂▂▁▁▁▁▁▁▁▁▁▁ loss 2.0500  2000 tokens/s  8 min left
        ");
    }

    #[test]
    fn a_first_step_and_a_last_one_have_lines() {
        let lines = [live_line(80, &steps(1), 9), live_line(120, &steps(9), 9)];
        insta::assert_snapshot!(lines.join("\n"), @"
        1/9 ▅ loss 4.0000  2000 tokens/s  4 s left
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
        step 40/1000: loss 2.0500, 2000 tokens/s, lr 1.000e-4, 8 min left
        step 40/40: loss 2.0500, 2000 tokens/s, lr 1.000e-4
        ");
    }

    #[test]
    fn a_long_step_shows_that_it_is_computed() {
        let view = |done: u64| View {
            steps: 25,
            done,
            recent: steps(done),
            ..View::default()
        };
        let seconds = Duration::from_millis;
        let of = |columns| {
            [
                view(0).line(columns, (0, 0), seconds(0)),
                view(0).line(columns, (3, 8), seconds(12_300)),
                view(0).line(columns, (0, 1), seconds(3100)),
                view(4).line(columns, (3, 8), seconds(500)),
                view(4).line(columns, (3, 8), seconds(2200)),
                view(25).line(columns, (8, 8), seconds(2200)),
            ]
        };
        for columns in [0, 5, 20, 60, 120] {
            for line in of(columns) {
                assert!(
                    measure_text_width(&line) < columns.max(1),
                    "{columns}: {line}"
                );
            }
        }
        insta::assert_snapshot!(of(60).join("\n"));
    }

    #[test]
    fn a_validation_has_its_share() {
        let mut view = View {
            steps: 9,
            done: 9,
            recent: steps(9),
            doing: Doing::Validation { percent: 63.2 },
            ..View::default()
        };
        assert_eq!(view.line(80, (1, 1), LONG), "9/9 validating 63%");
        view.begin();
        assert!(view.line(80, (1, 1), LONG).contains("9/9 █"));
    }
}
