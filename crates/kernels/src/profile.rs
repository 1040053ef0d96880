//! A profile of a run: spans of operations, with their floating-point operations and bytes.
//!
//! Recording is off until [`start`] is called. It then reads the clock twice per operation. On a
//! GPU, a span is the time in which the host launched an operation; libtorch reports when its kernels
//! ran.

use std::borrow::Cow;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[cfg(feature = "libtorch")]
use crate::libtorch::timeline::{Event, Of, Timeline};
pub use crate::operation::Operation;
use crate::product::Weight;

/// One operation, or one phase of a step, which contains operations.
#[derive(Debug, Clone)]
pub struct Span {
    /// Name of the operation or phase.
    pub name: Cow<'static, str>,
    /// Whether it is an operation, not a phase.
    pub is_operation: bool,
    /// Start, counted from the start of the recording.
    pub start: Duration,
    /// Duration.
    pub length: Duration,
    /// Number of multiplications and additions.
    pub flops: u64,
    /// Bytes of all inputs and results, each counted once.
    pub bytes: u64,
}

/// A kernel or a copy that a GPU ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Name, as the GPU's driver reports it.
    pub name: String,
    /// When the host launched it, counted from the start of the recording; `None` if the launch was
    /// not recorded.
    pub asked: Option<Duration>,
    /// Start, counted from the start of the recording.
    pub start: Duration,
    /// Duration.
    pub length: Duration,
}

/// A finished recording.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// Spans, in the order in which they ended.
    pub spans: Vec<Span>,
    /// Kernels, in the order in which they started; empty if no GPU was recorded.
    pub kernels: Vec<Kernel>,
}

static ON: AtomicBool = AtomicBool::new(false);
static RECORD: Mutex<Option<Record>> = Mutex::new(None);

#[derive(Debug)]
struct Record {
    began: Instant,
    #[cfg(feature = "libtorch")]
    gpu: Option<Timeline>,
    spans: Vec<Span>,
}

/// Starts a recording and discards an earlier one. With `gpu`, kernels of GPUs are recorded too.
///
/// # Errors
/// If `gpu` is set and libtorch is missing from this build, or its profiler does not start.
pub fn start(gpu: bool) -> io::Result<()> {
    #[cfg(not(feature = "libtorch"))]
    if gpu {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let record = Record {
        began: Instant::now(),
        #[cfg(feature = "libtorch")]
        gpu: gpu.then(|| Timeline::start(Of::Gpu)).transpose()?,
        spans: Vec::new(),
    };
    if let Ok(mut recording) = RECORD.lock() {
        *recording = Some(record);
        ON.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Ends the recording. It must be called on the thread that called [`start`].
///
/// # Errors
/// If libtorch's profiler fails.
pub fn finish() -> io::Result<Recorded> {
    ON.store(false, Ordering::Relaxed);
    let Some(record) = RECORD.lock().ok().and_then(|mut record| record.take()) else {
        return Ok(Recorded::default());
    };
    #[cfg(feature = "libtorch")]
    let kernels = match record.gpu {
        None => Vec::new(),
        Some(timeline) => kernels(timeline.finish()?, record.began),
    };
    #[cfg(not(feature = "libtorch"))]
    let kernels = Vec::new();
    Ok(Recorded {
        spans: record.spans,
        kernels,
    })
}

/// The kernels among the events, each with the time of the launch that has the same correlation.
#[cfg(feature = "libtorch")]
fn kernels(events: Vec<Event>, began: Instant) -> Vec<Kernel> {
    let (on_device, calls): (Vec<_>, Vec<_>) =
        events.into_iter().partition(|event| event.on_device);
    let since = |moment: Instant| moment.saturating_duration_since(began);
    let asked: std::collections::HashMap<u64, Instant> = calls
        .iter()
        .map(|call| (call.correlation, call.start))
        .collect();
    let mut kernels: Vec<Kernel> = on_device
        .into_iter()
        .map(|event| Kernel {
            asked: asked.get(&event.correlation).copied().map(since),
            name: event.name,
            start: since(event.start),
            length: event.length,
        })
        .collect();
    kernels.sort_by_key(|kernel| kernel.start);
    kernels
}

/// Records a phase from now until it is dropped.
pub fn phase(name: impl Into<Cow<'static, str>>) -> Recording {
    Recording::new(|| (name.into(), false, 0, 0))
}

/// Records an operation from now until it is dropped.
pub(crate) fn span(operation: Operation, flops: usize, bytes: usize) -> Recording {
    Recording::new(|| (operation.name().into(), true, flops as u64, bytes as u64))
}

/// Records a matrix multiplication of `tokens` rows with a weight.
pub(crate) fn product(tokens: usize, weight: Weight<'_>) -> Recording {
    let [k, n] = weight.inner_outer();
    let bytes = 4 * tokens * (k + n) + weight.bytes();
    span(Operation::Linear, 2 * tokens * k * n, bytes)
}

/// A span that ends when this is dropped.
#[derive(Debug)]
#[must_use = "a span ends when it is dropped"]
pub struct Recording(Option<Open>);

#[derive(Debug)]
struct Open {
    start: Instant,
    name: Cow<'static, str>,
    is_operation: bool,
    flops: u64,
    bytes: u64,
}

impl Recording {
    fn new(of: impl FnOnce() -> (Cow<'static, str>, bool, u64, u64)) -> Self {
        if !ON.load(Ordering::Relaxed) {
            return Self(None);
        }
        let (name, is_operation, flops, bytes) = of();
        Self(Some(Open {
            start: Instant::now(),
            name,
            is_operation,
            flops,
            bytes,
        }))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let Some(open) = self.0.take() else { return };
        let length = open.start.elapsed();
        if let Ok(mut record) = RECORD.lock()
            && let Some(record) = record.as_mut()
        {
            record.spans.push(Span {
                name: open.name,
                is_operation: open.is_operation,
                start: open.start.saturating_duration_since(record.began),
                length,
                flops: open.flops,
                bytes: open.bytes,
            });
        }
    }
}

#[cfg(all(test, feature = "libtorch"))]
mod tests {
    use super::*;

    #[test]
    fn kernels_have_the_time_of_their_launch() {
        let began = Instant::now();
        let event = |name: &str, start, correlation, on_device| Event {
            name: name.to_owned(),
            start: began + Duration::from_nanos(start),
            length: Duration::from_nanos(5),
            correlation,
            on_device,
        };
        let events = vec![
            event("second", 30, 8, true), // its launch was not recorded
            event("first", 20, 7, true),
            event("cudaLaunchKernel", 1, 7, false),
            event("cudaDeviceSynchronize", 5, 9, false),
        ];
        let kernel = |name: &str, asked, start| Kernel {
            name: name.to_owned(),
            asked: Option::map(asked, Duration::from_nanos),
            start: Duration::from_nanos(start),
            length: Duration::from_nanos(5),
        };
        assert_eq!(
            kernels(events, began),
            [kernel("first", Some(1), 20), kernel("second", None, 30)]
        );
    }
}
