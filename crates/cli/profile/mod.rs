//! The profile of a run: a table of the time per operation, and a trace for Perfetto.

mod table;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use burn::tensor::DType;
use serde::Serialize;
use simmer_kernels::profile::{Kernel, Recorded, Span};
use simmer_kernels::{Capabilities, Memory, Usage, peak, profile};

use crate::ALLOCATOR;
use crate::failure::{Context, Failure};

/// A recording of a run.
pub(crate) struct Profile {
    began: Instant,
    device: Capabilities,
}

impl Profile {
    /// Starts recording the CPU, and the device's own clock if it has one.
    pub(crate) fn start(device: Capabilities) -> Result<Self, Failure> {
        profile::start(device.is_asynchronous).context("--profile")?;
        Ok(Self {
            began: Instant::now(),
            device,
        })
    }

    /// Stops recording of a run that computed in a dtype, writes the trace and returns the table.
    pub(crate) fn finish(self, trace: &Path, compute: DType) -> Result<String, Failure> {
        let elapsed = self.began.elapsed();
        let recorded = profile::finish().context("--profile")?;
        let written = write_trace(&recorded, trace);
        written.with_context(|| format!("cannot write {}", trace.display()))?;
        let has_clock = self.device.is_asynchronous;
        let table = table::table(&recorded, elapsed, &peak(&self.device, compute), has_clock);
        Ok(format!("{table}\n{}", memory(ALLOCATOR.usage())))
    }
}

/// The peak memory of the process so far, as one line.
fn memory(usage: Usage) -> String {
    let mib = |bytes: usize| bytes >> 20;
    let resident = Memory::Main.peak();
    let resident = resident.map_or(String::new(), |bytes| {
        format!("peak {} MiB resident; ", bytes >> 20)
    });
    format!(
        "memory: {resident}large buffers: peak {} MiB, {} MiB with fragmentation",
        mib(usage.most),
        mib(usage.reached)
    )
}

/// An event in the Trace Event Format, which <https://ui.perfetto.dev> opens.
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
    args: Args<'a>,
}

/// The threads of a trace: the CPU, which launches the kernels, and the GPU.
const HOST: u32 = 1;
const DEVICE: u32 = 2;

#[derive(Serialize)]
#[serde(untagged)]
enum Args<'a> {
    Work { flops: u64, bytes: u64 },
    Thread { name: &'a str },
    None {},
}

impl<'a> Event<'a> {
    fn of_span(span: &'a Span) -> Self {
        let (flops, bytes) = (span.flops, span.bytes);
        Self {
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
            tid: HOST,
            args: Args::Work { flops, bytes },
        }
    }

    fn of_kernel(kernel: &'a Kernel) -> Self {
        Self {
            name: &kernel.name,
            cat: "kernel",
            ph: "X",
            ts: kernel.start.as_secs_f64() * 1e6,
            dur: kernel.length.as_secs_f64() * 1e6,
            pid: 1,
            tid: DEVICE,
            args: Args::None {},
        }
    }

    /// The name of a thread.
    fn of_thread(tid: u32, name: &'a str) -> Self {
        Self {
            name: "thread_name",
            cat: "",
            ph: "M",
            ts: 0.0,
            dur: 0.0,
            pid: 1,
            tid,
            args: Args::Thread { name },
        }
    }
}

fn write_trace(recorded: &Recorded, path: &Path) -> Result<(), Failure> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut events = vec![Event::of_thread(HOST, "simmer")];
    events.extend(recorded.spans.iter().map(Event::of_span));
    if !recorded.kernels.is_empty() {
        events.push(Event::of_thread(DEVICE, "GPU"));
        events.extend(recorded.kernels.iter().map(Event::of_kernel));
    }
    let trace = serde_json::json!({ "traceEvents": events });
    serde_json::to_writer(&mut file, &trace).map_err(Failure::foreign)?;
    Ok(file.flush()?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_trace_has_every_span_and_kernel() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        let recorded = Recorded {
            spans: vec![Span {
                name: "rope".into(),
                is_operation: true,
                start: Duration::ZERO,
                length: Duration::from_millis(3),
                flops: 7,
                bytes: 3,
            }],
            kernels: vec![Kernel {
                name: "elementwise".to_owned(),
                asked: None,
                start: Duration::from_micros(5),
                length: Duration::from_micros(2),
            }],
        };
        write_trace(&recorded, &path).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let trace: serde_json::Value = serde_json::from_str(&text).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&trace).unwrap());
    }
}
