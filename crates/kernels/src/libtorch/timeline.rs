//! What torch's own profiler, Kineto, sees of a device: `timeline.cpp` calls it.
//!
//! A GPU runs its kernels after the calls that asked for them have returned, so clocks of the host
//! say nothing of them.

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::time::{Duration, Instant, SystemTime};

use super::said;

/// Room for what a call says when it fails.
const SAID: usize = 4096;

/// Whose work is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// Operations of ATen on the processor.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "machines without a GPU test with it")
    )]
    Processor,
    /// Kernels of GPUs, and the calls that ask for them.
    Gpu,
}

/// Something that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) start: Instant,
    pub(crate) length: Duration,
    /// The same for a kernel and for the call that asked for it.
    pub(crate) correlation: u64,
    /// Whether it ran on a GPU, not on the processor.
    pub(crate) on_device: bool,
}

/// A look at what runs, on the thread that calls and on all GPUs.
#[derive(Debug)]
pub(crate) struct Timeline {
    began: Instant,
    /// The same moment since 1970, as Kineto counts.
    since_1970: Duration,
}

/// As timeline.cpp has it.
#[repr(C)]
struct RawEvent {
    name: *const u8,
    name_length: usize,
    start: u64,
    length: u64,
    correlation: u64,
    on_device: bool,
}

#[expect(unsafe_code, reason = "functions of timeline.cpp")]
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
    /// Begins to look.
    ///
    /// # Errors
    /// Where the profiler does not start: another one is at work.
    pub(crate) fn start(of: Of) -> io::Result<Self> {
        // SAFETY: room for what it says.
        #[expect(unsafe_code, reason = "a function of timeline.cpp")]
        call(|said, room| unsafe { simmer_timeline_start(of == Of::Gpu, said, room) })?;
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Ok(Self {
            began: Instant::now(),
            since_1970: since_1970.map_err(io::Error::other)?,
        })
    }

    /// Ends looking, on the thread that began: what was seen since, in no order.
    ///
    /// # Errors
    /// Where the profiler cannot say it.
    pub(crate) fn finish(self) -> io::Result<Vec<Event>> {
        let mut seen = Seen {
            timeline: self,
            events: Vec::new(),
        };
        let to = (&raw mut seen).cast();
        // SAFETY: `see` takes what it is given here.
        #[expect(unsafe_code, reason = "a function of timeline.cpp")]
        call(|said, room| unsafe { simmer_timeline_finish(see, to, said, room) })?;
        Ok(seen.events)
    }
}

struct Seen {
    timeline: Timeline,
    events: Vec<Event>,
}

extern "C" fn see(to: *mut c_void, event: *const RawEvent) {
    // SAFETY: what `finish` has, which nobody else touches meanwhile, and an event that lives as long as
    // this call, with as many bytes of a name as it says.
    #[expect(unsafe_code, reason = "what timeline.cpp gives")]
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
    fn its_clock_is_ours() {
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
            panic!("one product: {events:?}")
        };
        assert!(!product.on_device);
        // Kineto counts cycles, and the two clocks are read one after the other
        let slack = Duration::from_millis(1);
        assert!(before <= product.start + slack, "{before:?} {product:?}");
        assert!(
            product.start + product.length <= after + slack,
            "{after:?} {product:?}"
        );
        assert!(product.length > Duration::ZERO);
    }
}
