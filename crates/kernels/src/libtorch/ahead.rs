//! Copies from main memory to a GPU beside its work, and the memory that they are made from.
//!
//! The copies are queued on a stream of their own. It starts with them when the GPU has finished what it was given before, so
//! that they may be written to memory which was freed until then; the stream that computes waits for them when they are
//! first used.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tch::{Device, Tensor};

use super::aten;
use super::copy::copy_queued;
use super::event::Event;

#[expect(unsafe_code, reason = "the functions of aten.cpp are C++")]
unsafe extern "C" {
    fn simmer_copy_stream(gpu: i64, out: *mut *mut c_void, said: *mut c_char, room: usize)
    -> c_int;
    fn simmer_copies_begin(
        beside: *const c_void,
        before: *mut *mut c_void,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_copies_end(
        before: *mut c_void,
        done: *mut *mut c_void,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
}

/// When copies have arrived on their device.
pub(crate) struct Arrival {
    /// `None` if the host has waited for them.
    event: Option<Event>,
    is_ordered: AtomicBool,
}

impl Arrival {
    /// Lets the work that the device is given from now on wait for the copies.
    pub(crate) fn wait(&self) {
        let Some(event) = &self.event else { return };
        if !self.is_ordered.load(Ordering::Acquire) {
            event.block();
            self.is_ordered.store(true, Ordering::Release);
        }
    }
}

/// Queues the copies that `f` makes with [`queued_copy`] beside the work of a device. On a processor they are made at once.
pub(crate) fn copies_ahead<T>(device: Device, f: impl FnOnce() -> T) -> (T, Arrival) {
    let Device::Cuda(gpu) = device else {
        let arrival = Arrival {
            event: None,
            is_ordered: AtomicBool::new(true),
        };
        return (f(), arrival);
    };
    let copies = Copies::begin(gpu);
    let made = f();
    let arrival = Arrival {
        event: Some(copies.end()),
        is_ordered: AtomicBool::new(false),
    };
    (made, arrival)
}

/// A copy of a tensor in main memory on another device, which the host does not wait for if that is a GPU and the memory is
/// pinned.
pub(crate) fn queued_copy(here: &Tensor, device: Device) -> Tensor {
    let there = Tensor::empty(here.size(), (here.kind(), device));
    copy_queued(&there, here);
    there
}

/// A time in which the work that this thread gives a GPU is queued beside the rest.
struct Copies {
    /// The stream that computes; null after [`Self::end`].
    before: *mut c_void,
}

impl Copies {
    fn begin(gpu: usize) -> Self {
        let mut before = std::ptr::null_mut();
        let beside = stream_beside(gpu);
        // SAFETY: the function reads one stream, which is never freed, and writes one pointer.
        #[expect(unsafe_code, reason = "calls a function of aten.cpp with raw pointers")]
        let [] = aten::call(|_, said, room| unsafe {
            simmer_copies_begin(beside.0, &raw mut before, said, room)
        });
        Self { before }
    }

    /// The moment at which the GPU has done the work since.
    fn end(mut self) -> Event {
        let mut done = std::ptr::null_mut();
        self.finish(&mut done);
        Event::of_raw(done)
    }

    fn finish(&mut self, done: &mut *mut c_void) {
        let before = std::mem::replace(&mut self.before, std::ptr::null_mut());
        // SAFETY: `before` was created by `begin`, and is freed once, because it is null from here on. The function writes one pointer.
        #[expect(unsafe_code, reason = "calls a function of aten.cpp with raw pointers")]
        let [] = aten::call(|_, said, room| unsafe {
            simmer_copies_end(before, &raw mut *done, said, room)
        });
    }
}

impl Drop for Copies {
    /// After a failure, the thread computes on its stream again.
    fn drop(&mut self) {
        if !self.before.is_null() {
            let mut done = std::ptr::null_mut();
            self.finish(&mut done);
            drop(Event::of_raw(done));
        }
    }
}

/// A stream of a GPU.
#[derive(Clone, Copy)]
struct Stream(*const c_void);

// SAFETY: a stream of CUDA can be used on any thread.
#[expect(unsafe_code, reason = "a stream of CUDA belongs to no thread")]
unsafe impl Send for Stream {}

/// The stream for the copies of a GPU. It lives as long as the process.
fn stream_beside(gpu: usize) -> Stream {
    static STREAMS: Mutex<BTreeMap<usize, Stream>> = Mutex::new(BTreeMap::new());
    let mut streams = STREAMS.lock().unwrap_or_else(PoisonError::into_inner);
    *streams.entry(gpu).or_insert_with(|| {
        let mut stream = std::ptr::null_mut();
        // SAFETY: the function writes one pointer.
        #[expect(unsafe_code, reason = "calls a function of aten.cpp with raw pointers")]
        let [] = aten::call(|_, said, room| unsafe {
            simmer_copy_stream(gpu as i64, &raw mut stream, said, room)
        });
        Stream(stream)
    })
}
