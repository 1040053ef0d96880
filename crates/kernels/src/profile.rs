//! Where the time of a run goes: spans of operations, with their work and their bytes.
//!
//! Recording is off until it is asked for, and then costs two looks at the clock an operation.

use std::borrow::Cow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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

static ON: AtomicBool = AtomicBool::new(false);
static RECORD: Mutex<Option<Record>> = Mutex::new(None);

#[derive(Debug)]
struct Record {
    began: Instant,
    spans: Vec<Span>,
}

/// Begins to record, forgetting what was recorded before.
pub fn start() {
    if let Ok(mut record) = RECORD.lock() {
        *record = Some(Record {
            began: Instant::now(),
            spans: Vec::new(),
        });
        ON.store(true, Ordering::Relaxed);
    }
}

/// Ends recording and returns the spans in the order in which they ended.
pub fn finish() -> Vec<Span> {
    ON.store(false, Ordering::Relaxed);
    let record = RECORD.lock().ok().and_then(|mut record| record.take());
    record.map(|record| record.spans).unwrap_or_default()
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
