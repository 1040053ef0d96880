//! The values of a line of metrics under the names that trackers show.

use serde_json::{Value, json};

use crate::metrics::{History, Metrics, now};

/// The tags and values of a line, with the tags of Hugging Face's Trainer for losses.
pub(super) fn scalars(line: &Metrics) -> Vec<(&'static str, f64)> {
    match line {
        Metrics::Step(step) => {
            let memory = step
                .peak_memory
                .map(|bytes| ("train/peak_memory", bytes as f64));
            let always = [
                ("train/loss", step.loss),
                ("train/learning_rate", step.learning_rate),
                ("train/grad_norm", step.grad_norm),
                ("train/epoch", step.epoch),
                ("train/tokens_per_second", step.tokens_per_second),
            ];
            always.into_iter().chain(memory).collect()
        }
        Metrics::Skip(skip) => vec![("train/epoch", skip.epoch)],
        Metrics::Validation(validation) => vec![("eval/loss", validation.validation_loss)],
    }
}

/// A number in JSON, which has no NaN and no infinity: the names that protocol buffers and W&B read.
pub(super) fn number(value: f64) -> Value {
    match value {
        value if value.is_finite() => json!(value),
        value if value.is_nan() => json!("NaN"),
        value if value > 0.0 => json!("Infinity"),
        _ => json!("-Infinity"),
    }
}

/// When a line was written, in seconds since 1970, and the steps finished by then.
pub(super) fn time_and_step(line: &Metrics) -> (f64, u64) {
    match line {
        Metrics::Step(step) => (step.time, step.step),
        Metrics::Skip(skip) => (skip.time, skip.step),
        Metrics::Validation(validation) => (validation.time, validation.step),
    }
}

/// When a run with these metrics began, in seconds since 1970.
pub(super) fn begun(history: &History) -> f64 {
    match history.lines.first() {
        Some(Metrics::Step(step)) if step.time > 0.0 => step.time - step.seconds,
        Some(line) if time_and_step(line).0 > 0.0 => time_and_step(line).0,
        _ => now(),
    }
}
