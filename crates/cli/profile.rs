//! Where a run's time went: a table, and a trace that Perfetto opens.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;
use simmer_kernels::profile::Span;
use simmer_kernels::{Usage, peak_rate, profile};

use crate::ALLOCATOR;

/// A recording of a run.
pub(crate) struct Profile {
    began: Instant,
}

/// All spans of one operation together.
#[derive(Default)]
struct Total {
    calls: u64,
    time: Duration,
    flops: u64,
    bytes: u64,
}

impl Profile {
    /// Begins to record.
    pub(crate) fn start() -> Self {
        profile::start();
        Self {
            began: Instant::now(),
        }
    }

    /// Ends recording, writes the trace and returns the table.
    pub(crate) fn finish(self, trace: &Path) -> anyhow::Result<String> {
        let elapsed = self.began.elapsed();
        let spans = profile::finish();
        write_trace(&spans, trace).with_context(|| format!("cannot write {}", trace.display()))?;
        let table = table(&spans, elapsed, peak_rate());
        Ok(format!("{table}\n{}", memory(ALLOCATOR.usage())))
    }
}

/// The most memory of the process so far, in a line.
fn memory(usage: Usage) -> String {
    let mib = |bytes: usize| bytes >> 20;
    let resident = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = resident.lines().find_map(|line| {
        let kib = line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?;
        kib.parse::<usize>().ok()
    });
    let resident = resident.map_or(String::new(), |kib| {
        format!("{} MiB resident at most; ", kib >> 10)
    });
    format!(
        "memory: {resident}big buffers {} MiB at once, {} MiB with the gaps between them",
        mib(usage.most),
        mib(usage.reached)
    )
}

/// One line an operation, the longest first, and what the operations do not cover.
fn table(spans: &[Span], elapsed: Duration, peak: f64) -> String {
    let mut totals: BTreeMap<&str, Total> = BTreeMap::new();
    for span in spans.iter().filter(|span| span.is_operation) {
        let total = totals.entry(span.name.as_ref()).or_default();
        total.calls += 1;
        total.time += span.length;
        total.flops += span.flops;
        total.bytes += span.bytes;
    }
    let steps: Vec<&Span> = spans.iter().filter(|span| span.name == "step").collect();
    let inside: Duration = steps.iter().map(|span| span.length).sum();
    let mut rows: Vec<(&str, Total)> = totals.into_iter().collect();
    rows.sort_by_key(|(_, total)| std::cmp::Reverse(total.time));
    let mut lines = vec![
        format!(
            "{} steps took {:.2} s of {:.2} s",
            steps.len(),
            inside.as_secs_f64(),
            elapsed.as_secs_f64(),
        ),
        format!(
            "{:<22}{:>8}{:>10}{:>8}{:>11}{:>9}{:>11}",
            "operation", "calls", "ms", "share", "GFLOP/s", "of peak", "GB/s",
        ),
    ];
    let mut known = Duration::ZERO;
    for (name, total) in rows {
        let seconds = total.time.as_secs_f64();
        let rate = total.flops as f64 / seconds / 1e9;
        known += total.time;
        lines.push(format!(
            "{name:<22}{:>8}{:>10.1}{:>7.1}%{rate:>11.1}{:>8.1}%{:>11.1}",
            total.calls,
            1e3 * seconds,
            100.0 * seconds / inside.as_secs_f64(),
            100.0 * rate / peak,
            total.bytes as f64 / seconds / 1e9,
        ));
    }
    let rest = inside.saturating_sub(known).as_secs_f64();
    let share = 100.0 * rest / inside.as_secs_f64();
    lines.push(format!(
        "{:<22}{:>8}{:>10.1}{share:>7.1}%",
        "everything else",
        "",
        1e3 * rest
    ));
    lines.push(format!(
        "peak: {peak:.0} GFLOP/s, f32 multiply-add on all cores, measured just now"
    ));
    lines.join("\n")
}

/// An event in the Trace Event Format: <https://ui.perfetto.dev> opens a list of them.
#[derive(Serialize)]
struct Event<'a> {
    name: &'a str,
    cat: &'static str,
    ph: &'static str,
    /// Microseconds.
    ts: f64,
    /// Microseconds.
    dur: f64,
    pid: u32,
    tid: u32,
    args: Work,
}

#[derive(Serialize)]
struct Work {
    flops: u64,
    bytes: u64,
}

fn write_trace(spans: &[Span], path: &Path) -> anyhow::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let events: Vec<Event<'_>> = spans
        .iter()
        .map(|span| Event {
            name: &span.name,
            cat: if span.is_operation {
                "operation"
            } else {
                "phase"
            },
            ph: "X",
            ts: span.start.as_secs_f64() * 1e6,
            dur: span.length.as_secs_f64() * 1e6,
            pid: 1,
            tid: 1,
            args: Work {
                flops: span.flops,
                bytes: span.bytes,
            },
        })
        .collect();
    serde_json::to_writer(&mut file, &serde_json::json!({ "traceEvents": events }))?;
    Ok(file.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(name: &'static str, is_operation: bool, milliseconds: u64, flops: u64) -> Span {
        Span {
            name: name.into(),
            is_operation,
            start: Duration::ZERO,
            length: Duration::from_millis(milliseconds),
            flops,
            bytes: flops / 2,
        }
    }

    #[test]
    fn the_table_says_where_the_time_went() {
        let spans = [
            span("linear", true, 40, 8_000_000_000),
            span("linear", true, 20, 4_000_000_000),
            span("rope", true, 10, 1_000_000),
            span("step", false, 100, 0),
        ];
        let text = table(&spans, Duration::from_millis(250), 400.0);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_trace_has_every_span() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        write_trace(&[span("rope", true, 3, 7)], &path).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let trace: serde_json::Value = serde_json::from_str(&text).unwrap();
        let event = &trace["traceEvents"][0];
        assert_eq!(
            (&event["name"], &event["ph"]),
            (&"rope".into(), &"X".into())
        );
        assert_eq!(event["dur"].as_f64(), Some(3000.0));
        assert_eq!(event["args"]["flops"], 7);
    }
}
