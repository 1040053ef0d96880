//! Events that torch's profiler, Kineto, records on a device. `timeline.cpp` calls it.
//!
//! A GPU runs a kernel after the call that launched it has returned, so the host's clock cannot
//! measure it.

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::time::{Duration, Instant, SystemTime};

use super::said;

/// Size of the buffer for a call's error message, in bytes.
const SAID: usize = 4096;

/// What a timeline records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// Operations of ATen on the processor.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "only tests use it, on machines without a GPU")
    )]
    Processor,
    /// Kernels of GPUs, and the calls that launch them.
    Gpu,
}

/// An operation, a kernel, a copy, or a call that launched one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) start: Instant,
    pub(crate) length: Duration,
    /// The same number for a kernel and for the call that launched it.
    pub(crate) correlation: u64,
    /// Whether it ran on a GPU, not on the processor.
    pub(crate) on_device: bool,
}

/// A running recording of the calling thread and all GPUs.
#[derive(Debug)]
pub(crate) struct Timeline {
    began: Instant,
    /// The time of `began` since 1970, as Kineto counts.
    since_1970: Duration,
}

/// `Event` in timeline.cpp.
#[repr(C)]
struct RawEvent {
    name: *const u8,
    name_length: usize,
    start: u64,
    length: u64,
    correlation: u64,
    on_device: bool,
}

#[expect(unsafe_code, reason = "the functions of timeline.cpp are C++")]
unsafe extern "C" {
    fn simmer_timeline_start(gpu: bool, said: *mut c_char, room: usize) -> c_int;
    fn simmer_timeline_finish(
        each: extern "C" fn(*mut c_void, *const RawEvent),
        to: *mut c_void,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
}

fn call(f: impl FnOnce(*mut c_char, usize) -> c_int) -> io::Result<()> {
    let mut room = [0 as c_char; SAID];
    match f(room.as_mut_ptr(), SAID) {
        0 => Ok(()),
        _ => Err(io::Error::other(format!("libtorch: {}", said(&room)))),
    }
}

impl Timeline {
    /// Starts to record.
    ///
    /// # Errors
    /// If the profiler does not start, for example because another one is running.
    pub(crate) fn start(of: Of) -> io::Result<Self> {
        // SAFETY: the function writes at most `room` bytes to `said`, a buffer of that size.
        #[expect(
            unsafe_code,
            reason = "calls a function of timeline.cpp with raw pointers"
        )]
        call(|said, room| unsafe { simmer_timeline_start(of == Of::Gpu, said, room) })?;
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Ok(Self {
            began: Instant::now(),
            since_1970: since_1970.map_err(io::Error::other)?,
        })
    }

    /// Stops recording and returns the events, in no particular order. It must be called on the
    /// thread that called [`Self::start`].
    ///
    /// # Errors
    /// If the profiler fails.
    pub(crate) fn finish(self) -> io::Result<Vec<Event>> {
        let mut seen = Seen {
            timeline: self,
            events: Vec::new(),
        };
        let to = (&raw mut seen).cast();
        // SAFETY: `see` gets `to`, which points to `seen`, and is called only before this returns.
        #[expect(
            unsafe_code,
            reason = "calls a function of timeline.cpp with raw pointers"
        )]
        call(|said, room| unsafe { simmer_timeline_finish(see, to, said, room) })?;
        Ok(seen.events)
    }
}

struct Seen {
    timeline: Timeline,
    events: Vec<Event>,
}

extern "C" fn see(to: *mut c_void, event: *const RawEvent) {
    // SAFETY: `to` points to the `Seen` of `finish`, which nothing else accesses during the call. The
    // event lives as long as this call, and its name has `name_length` bytes.
    #[expect(unsafe_code, reason = "reads what timeline.cpp passes by raw pointers")]
    let (seen, event, name) = unsafe {
        let event = &*event;
        let name = std::slice::from_raw_parts(event.name, event.name_length);
        (&mut *to.cast::<Seen>(), event, name)
    };
    let start = Duration::from_nanos(event.start).checked_sub(seen.timeline.since_1970);
    let Some(start) = start else { return };
    seen.events.push(Event {
        name: String::from_utf8_lossy(name).into_owned(),
        start: seen.timeline.began + start,
        length: Duration::from_nanos(event.length),
        correlation: event.correlation,
        on_device: event.on_device,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_host_clock() {
        let x = tch::Tensor::ones([64, 64], (tch::Kind::Float, tch::Device::Cpu));
        let _ = x.mm(&x);
        let timeline = Timeline::start(Of::Processor).unwrap();
        let before = Instant::now();
        let y = x.mm(&x);
        let after = Instant::now();
        let events = timeline.finish().unwrap();
        assert_eq!(y.int64_value(&[0, 0]), 64);
        let products: Vec<&Event> = events.iter().filter(|of| of.name == "aten::mm").collect();
        let [product] = products[..] else {
            panic!("expected one matrix multiplication, found {events:?}")
        };
        assert!(!product.on_device);
        // Kineto counts processor cycles, and the two clocks are read one after the other
        let slack = Duration::from_millis(1);
        assert!(before <= product.start + slack, "{before:?} {product:?}");
        assert!(
            product.start + product.length <= after + slack,
            "{after:?} {product:?}"
        );
        assert!(product.length > Duration::ZERO);
    }
}
