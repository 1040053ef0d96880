//! Counters in the text format of Prometheus.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the server has done so far.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) requests: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) cached_tokens: AtomicU64,
    pub(crate) generated_tokens: AtomicU64,
    /// Texts that are continued or wait.
    pub(crate) texts: AtomicU64,
}

impl Metrics {
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// As Prometheus reads it.
    pub(crate) fn text(&self) -> String {
        let lines = [
            (
                "requests_total",
                "counter",
                "Requests for completions",
                &self.requests,
            ),
            (
                "requests_failed_total",
                "counter",
                "Requests that were answered with an error",
                &self.failed,
            ),
            (
                "prompt_tokens_total",
                "counter",
                "Tokens of prompts",
                &self.prompt_tokens,
            ),
            (
                "cached_tokens_total",
                "counter",
                "Tokens of prompts whose keys and values were in the cache",
                &self.cached_tokens,
            ),
            (
                "generated_tokens_total",
                "counter",
                "New tokens",
                &self.generated_tokens,
            ),
            (
                "texts",
                "gauge",
                "Texts that are continued or wait",
                &self.texts,
            ),
        ];
        let mut text = String::new();
        for (name, kind, help, value) in lines {
            let value = value.load(Ordering::Relaxed);
            let _ = writeln!(text, "# HELP simmer_{name} {help}.");
            let _ = writeln!(text, "# TYPE simmer_{name} {kind}");
            let _ = writeln!(text, "simmer_{name} {value}");
        }
        text
    }
}

/// A text that is continued or waits, until this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<Metrics>);

impl Ticket {
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Self {
        Metrics::add(&metrics.texts, 1);
        Self(Arc::clone(metrics))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.texts.fetch_sub(1, Ordering::Relaxed);
    }
}
