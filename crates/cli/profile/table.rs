//! A table of the time of each operation in the steps of a run.
//!
//! On a CPU, the time of an operation is that of its span. A GPU runs kernels after the CPU has launched them:
//! there it is the time of the kernels that were launched within the span.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use simmer_files::size::counted;
use simmer_kernels::Peak;
use simmer_kernels::profile::{Kernel, Recorded, Span};

/// The sums over all spans of an operation.
#[derive(Default)]
struct Total {
    calls: u64,
    time: Duration,
    flops: u64,
    bytes: u64,
}

/// The operations within steps, sorted by their starts, and the operation that each is nested in.
struct Operations<'a> {
    spans: Vec<&'a Span>,
    outer: Vec<Option<usize>>,
}

impl<'a> Operations<'a> {
    fn of(spans: &'a [Span], steps: &[&Span]) -> Self {
        let within = |span: &Span| {
            let step = steps.partition_point(|step| step.start <= span.start);
            step > 0 && span.start < end(steps[step - 1])
        };
        let mut spans: Vec<&Span> = spans
            .iter()
            .filter(|span| span.is_operation && within(span))
            .collect();
        spans.sort_by_key(|span| (span.start, Reverse(span.length)));
        let mut outer = Vec::with_capacity(spans.len());
        let mut open: Vec<usize> = Vec::new();
        for (place, span) in spans.iter().enumerate() {
            while open
                .last()
                .is_some_and(|last| end(spans[*last]) <= span.start)
            {
                open.pop();
            }
            outer.push(open.last().copied());
            open.push(place);
        }
        Self { spans, outer }
    }

    /// The CPU time of each, without the operations nested in it.
    fn times(&self) -> Vec<Duration> {
        let mut times: Vec<Duration> = self.spans.iter().map(|span| span.length).collect();
        for (span, outer) in self.spans.iter().zip(&self.outer) {
            if let Some(outer) = outer {
                times[*outer] = times[*outer].saturating_sub(span.length);
            }
        }
        times
    }

    /// The GPU time of each.
    fn times_of(&self, kernels: &[Kernel]) -> Vec<Duration> {
        let mut times = vec![Duration::ZERO; self.spans.len()];
        for kernel in kernels {
            if let Some(place) = kernel.asked.and_then(|asked| self.at(asked)) {
                times[place] += kernel.length;
            }
        }
        times
    }

    /// The innermost operation at a time.
    fn at(&self, moment: Duration) -> Option<usize> {
        let before = self.spans.partition_point(|span| span.start <= moment);
        let mut place = before.checked_sub(1);
        while let Some(at) = place
            && end(self.spans[at]) < moment
        {
            place = self.outer[at];
        }
        place
    }

    /// The sums by name, the longest first.
    fn totals(&self, times: &[Duration]) -> Vec<(&'a str, Total)> {
        let mut totals: BTreeMap<&str, Total> = BTreeMap::new();
        for (span, time) in self.spans.iter().zip(times) {
            let total = totals.entry(span.name.as_ref()).or_default();
            total.calls += 1;
            total.time += *time;
            total.flops += span.flops;
            total.bytes += span.bytes;
        }
        let mut rows: Vec<(&str, Total)> = totals.into_iter().collect();
        rows.sort_by_key(|(_, total)| Reverse(total.time));
        rows
    }
}

fn end(span: &Span) -> Duration {
    span.start + span.length
}

/// The time from the GPU's first kernel of a step to its last.
struct OnDevice {
    whole: Duration,
    /// The part of it in which a kernel ran, of a step or not.
    busy: Duration,
}

impl OnDevice {
    /// `None` if no kernel belongs to a step.
    fn of(kernels: &[Kernel], steps: &[&Span]) -> Option<Self> {
        let first = steps.first()?.start;
        let last = end(steps.last()?);
        let of_steps = |kernel: &&Kernel| {
            let asked = kernel.asked.unwrap_or(kernel.start);
            first <= asked && asked <= last
        };
        let begin = kernels.iter().find(of_steps)?.start;
        let of_steps = kernels.iter().filter(of_steps);
        let finish = of_steps.map(|kernel| kernel.start + kernel.length).max()?;
        let mut busy = Duration::ZERO;
        let mut until = begin;
        for kernel in kernels {
            let done = (kernel.start + kernel.length).min(finish);
            busy += done.saturating_sub(kernel.start.max(until));
            until = until.max(done);
        }
        Some(Self {
            whole: finish.saturating_sub(begin),
            busy,
        })
    }
}

/// One line per operation, the longest first, and a line for the rest of the time.
pub(super) fn table(recorded: &Recorded, elapsed: Duration, peak: &Peak, on_gpu: bool) -> String {
    let Recorded { spans, kernels } = recorded;
    let mut steps: Vec<&Span> = spans.iter().filter(|span| span.name == "step").collect();
    steps.sort_by_key(|step| step.start);
    let inside: Duration = steps.iter().map(|span| span.length).sum();
    let operations = Operations::of(spans, &steps);
    let device = OnDevice::of(kernels, &steps);
    let (times, whole, busy) = match &device {
        None => (operations.times(), inside, inside),
        Some(of) => (operations.times_of(kernels), of.whole, of.busy),
    };
    let mut lines = vec![
        format!(
            "{} took {:.2} s of {:.2} s",
            counted(steps.len(), "step"),
            inside.as_secs_f64(),
            elapsed.as_secs_f64(),
        ),
        format!(
            "{:<22}{:>8}{:>10}{:>8}{:>11}{:>9}{:>11}",
            "operation", "calls", "ms", "share", "GFLOP/s", "of peak", "GB/s",
        ),
    ];
    let rows = operations.totals(&times);
    lines.extend(
        rows.iter()
            .map(|(name, total)| line(name, total, whole, peak)),
    );
    let known: Duration = times.iter().sum();
    lines.push(rest("everything else", busy.saturating_sub(known), whole));
    if let Some(device) = &device {
        lines.push(rest("GPU idle", whole.saturating_sub(busy), whole));
        lines.push(format!(
            "times are GPU times; the steps took {:.2} s from the first kernel to the last",
            device.whole.as_secs_f64()
        ));
    } else if on_gpu {
        lines.push(
            "times are CPU times: libtorch's profiler recorded no GPU kernel; the driver or the container may not \
             permit CUPTI to profile"
                .to_owned(),
        );
    }
    lines.push(format!(
        "peak: {:.0} GFLOP/s ({}), just measured",
        peak.rate, peak.of
    ));
    lines.join("\n")
}

fn line(name: &str, total: &Total, whole: Duration, peak: &Peak) -> String {
    let seconds = total.time.as_secs_f64();
    let per_second = |of: u64| match seconds {
        0.0 => 0.0,
        _ => of as f64 / seconds / 1e9,
    };
    let rate = per_second(total.flops);
    format!(
        "{name:<22}{:>8}{:>10.1}{:>7.1}%{rate:>11.1}{:>8.1}%{:>11.1}",
        total.calls,
        1e3 * seconds,
        share(total.time, whole),
        100.0 * rate / peak.rate,
        per_second(total.bytes),
    )
}

fn rest(name: &str, time: Duration, whole: Duration) -> String {
    let share = share(time, whole);
    let milliseconds = 1e3 * time.as_secs_f64();
    format!("{name:<22}{:>8}{milliseconds:>10.1}{share:>7.1}%", "")
}

/// The share in percent; 0 if the whole is 0.
fn share(time: Duration, whole: Duration) -> f64 {
    match whole.as_secs_f64() {
        0.0 => 0.0,
        whole => 100.0 * time.as_secs_f64() / whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEAK: Peak = Peak {
        rate: 400.0,
        of: "f32 multiply-add on all cores",
    };

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn span(name: &'static str, is_operation: bool, [start, length]: [u64; 2], flops: u64) -> Span {
        Span {
            name: name.into(),
            is_operation,
            start: ms(start),
            length: ms(length),
            flops,
            bytes: flops / 2,
        }
    }

    fn kernel(asked: Option<u64>, [start, length]: [u64; 2]) -> Kernel {
        Kernel {
            name: "gemm".to_owned(),
            asked: asked.map(ms),
            start: ms(start),
            length: ms(length),
        }
    }

    #[test]
    fn the_table_says_where_the_time_went() {
        let spans = vec![
            span("linear", true, [10, 40], 8_000_000_000),
            span("linear", true, [50, 20], 4_000_000_000),
            span("dropout", true, [75, 2], 1_000_000),
            span("low_rank", true, [72, 10], 1_000_000), // contains dropout
            span("step", false, [5, 100], 0),
            span("linear", true, [120, 40], 1), // of a validation
        ];
        let recorded = Recorded {
            spans,
            kernels: Vec::new(),
        };
        insta::assert_snapshot!(table(&recorded, ms(250), &PEAK, false));
        let text = table(&recorded, ms(250), &PEAK, true);
        assert!(text.contains("recorded no GPU kernel"), "{text}");
    }

    /// Two steps, launched within 40 ms; the GPU takes 185 ms and is idle for 15 ms of them.
    #[test]
    fn on_a_gpu_kernels_count() {
        let spans = vec![
            span("linear", true, [11, 4], 8_000_000_000),
            span("dropout", true, [17, 1], 1_000_000),
            span("low_rank", true, [16, 6], 1_000_000_000),
            span("step", false, [10, 15], 0),
            span("linear", true, [31, 4], 8_000_000_000),
            span("step", false, [30, 20], 0),
        ];
        let kernels = vec![
            kernel(Some(2), [3, 4]),      // before the steps
            kernel(Some(12), [15, 60]),   // linear
            kernel(Some(17), [75, 10]),   // dropout
            kernel(Some(20), [85, 15]),   // low_rank
            kernel(Some(24), [100, 10]),  // in no operation
            kernel(Some(33), [120, 60]),  // linear, after 10 ms idle
            kernel(None, [185, 5]),       // after 5 ms idle; launched at an unknown time
            kernel(Some(40), [190, 10]),  // in no operation
            kernel(Some(300), [300, 50]), // after the steps
        ];
        insta::assert_snapshot!(table(&Recorded { spans, kernels }, ms(400), &PEAK, true));
    }

    #[test]
    fn kernels_side_by_side_are_busy_once() {
        let step = span("step", false, [0, 10], 0);
        let kernels = [
            kernel(Some(1), [10, 10]),
            kernel(Some(2), [12, 3]),
            kernel(Some(3), [18, 10]),
        ];
        let found = OnDevice::of(&kernels, &[&step]).unwrap();
        assert_eq!([found.whole, found.busy], [ms(18), ms(18)]);
    }
}
