//! Where the time of a run goes: spans of operations, with their work and their bytes.
//!
//! Recording is off until it is asked for, and then costs two looks at the clock an operation. On a
//! GPU a span is the time in which an operation was asked for; when its kernels ran, libtorch says.

use std::borrow::Cow;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[cfg(feature = "libtorch")]
use crate::libtorch::timeline::{Event, Of, Timeline};
use crate::product::Weight;

/// What a span does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// A product with a weight in its stored precision.
    Linear,
    /// The low-rank path beside a weight.
    LowRank,
    /// Attention.
    Attention,
    /// Output head and loss.
    LinearCrossEntropy,
    /// Root mean square normalisation.
    RmsNorm,
    /// Rotary positions.
    Rope,
    /// The gated activation.
    SwiGlu,
    /// Dropout masks.
    Dropout,
}

impl Operation {
    /// The name of its file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::LowRank => "low_rank",
            Self::Attention => "attention",
            Self::LinearCrossEntropy => "linear_cross_entropy",
            Self::RmsNorm => "rms_norm",
            Self::Rope => "rope",
            Self::SwiGlu => "swiglu",
            Self::Dropout => "dropout",
        }
    }
}

/// One operation, or one phase of a step around operations.
#[derive(Debug, Clone)]
pub struct Span {
    /// The operation's or the phase's name.
    pub name: Cow<'static, str>,
    /// Whether it is an operation; phases contain them.
    pub is_operation: bool,
    /// Since the recording began.
    pub start: Duration,
    /// How long it took.
    pub length: Duration,
    /// Multiplications and additions.
    pub flops: u64,
    /// Bytes read and written, each once.
    pub bytes: u64,
}

/// What a GPU ran: a kernel, or a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// As the GPU's driver calls it.
    pub name: String,
    /// When the host asked for it, since the recording began; `None` where that was not seen.
    pub asked: Option<Duration>,
    /// When it began, since the recording began.
    pub start: Duration,
    /// How long it took.
    pub length: Duration,
}

/// A recording.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// In the order in which they ended.
    pub spans: Vec<Span>,
    /// In the order in which they began; none where no GPU was looked at.
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

/// Begins to record, forgetting what was recorded before; with `gpu`, what GPUs run too.
///
/// # Errors
/// Where libtorch cannot look at a GPU, or is not there.
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

/// Ends recording, on the thread that began it.
///
/// # Errors
/// Where libtorch cannot say what it saw.
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

/// The kernels among events, each with the moment of the call that has its number.
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

/// Records a product of so many tokens with a weight.
pub(crate) fn product(tokens: usize, weight: Weight<'_>) -> Recording {
    let [k, n] = weight.inner_outer();
    let bytes = 4 * tokens * (k + n) + weight.values.width() * k * n;
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
    fn kernels_know_when_they_were_asked_for() {
        let began = Instant::now();
        let event = |name: &str, start, correlation, on_device| Event {
            name: name.to_owned(),
            start: began + Duration::from_nanos(start),
            length: Duration::from_nanos(5),
            correlation,
            on_device,
        };
        let events = vec![
            event("second", 30, 8, true), // its call was not seen
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
