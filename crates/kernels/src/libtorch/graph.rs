//! Operations of a GPU that are recorded once and then run again by one call: a CUDA graph. `graph.cpp` calls torch's
//! `CUDAGraph`.
//!
//! The host launches an operation in many microseconds, and a small model on a GPU waits for it. It launches a graph in
//! the time of one operation. A graph has the addresses and host arguments of the recording, so that what changes
//! between runs must be in tensors that stay where they are.

use std::any::Any;
use std::cell::Cell;
use std::ffi::{c_char, c_int};
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};

use super::group::{call, made};

/// Recorded operations.
#[derive(Debug)]
pub(crate) struct Graph {
    raw: NonNull<RawGraph>,
}

/// Torch's current stream is one that can be recorded, as long as this lives.
struct Recording {
    raw: NonNull<RawRecording>,
}

/// `Graph` in graph.cpp.
#[repr(C)]
struct RawGraph {
    hidden: [u8; 0],
    /// Torch's current stream is that of a thread.
    stays: PhantomData<*mut u8>,
}

/// `Recording` in graph.cpp.
#[repr(C)]
struct RawRecording {
    hidden: [u8; 0],
    stays: PhantomData<*mut u8>,
}

#[expect(unsafe_code, reason = "the functions of graph.cpp are C++")]
unsafe extern "C" {
    fn simmer_graph_enter(
        gpu: i64,
        out: *mut *mut RawRecording,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_graph_begin(recording: *mut RawRecording, said: *mut c_char, room: usize) -> c_int;
    fn simmer_graph_end(
        recording: *mut RawRecording,
        out: *mut *mut RawGraph,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_graph_leave(recording: *mut RawRecording);
    fn simmer_graph_replay(graph: *mut RawGraph, said: *mut c_char, room: usize) -> c_int;
    fn simmer_graph_free(graph: *mut RawGraph);
}

thread_local! {
    static RECORDS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread records operations instead of computing them. Then nothing may be copied from the host's memory,
/// unless it stays there with what the graph reads.
pub(crate) fn is_recording() -> bool {
    RECORDS.get()
}

impl Graph {
    /// Computes `f` once, and then records it. It must use the same tensors and operations each time; all tensors that
    /// it reads and does not make must live as long as the graph.
    ///
    /// # Errors
    /// If an operation cannot be recorded, such as one whose result the host reads, or if this libtorch has no CUDA.
    /// Everything is as after the first call of `f` then, if it was called.
    pub(crate) fn record(gpu: usize, mut f: impl FnMut()) -> io::Result<Self> {
        let recording = Recording::enter(gpu)?;
        f();
        recording.begin()?;
        RECORDS.set(true);
        let recorded = catch_unwind(AssertUnwindSafe(f));
        RECORDS.set(false);
        let graph = recording.end();
        match recorded {
            Ok(()) => graph,
            Err(panic) => Err(io::Error::other(text_of(&*panic))),
        }
    }

    /// Runs what was recorded, in the order of torch's current stream. The host does not wait for it.
    ///
    /// # Errors
    /// If the GPU refuses.
    pub(crate) fn replay(&self) -> io::Result<()> {
        // SAFETY: `record` made `raw`, and `drop` alone frees it. What the graph reads lives: see `record`.
        #[expect(
            unsafe_code,
            reason = "calls a function of graph.cpp with raw pointers"
        )]
        call(|said, room| unsafe { simmer_graph_replay(self.raw.as_ptr(), said, room) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: `record` made it, and nothing uses it after this. Torch waits for work that still runs before it frees memory.
        #[expect(unsafe_code, reason = "frees what graph.cpp has made")]
        unsafe {
            simmer_graph_free(self.raw.as_ptr());
        }
    }
}

impl Recording {
    fn enter(gpu: usize) -> io::Result<Self> {
        let mut raw = ptr::null_mut();
        // SAFETY: the function writes one pointer, and at most `room` bytes to `said`.
        #[expect(
            unsafe_code,
            reason = "calls a function of graph.cpp with raw pointers"
        )]
        call(|said, room| unsafe { simmer_graph_enter(gpu as i64, &raw mut raw, said, room) })?;
        Ok(Self { raw: made(raw)? })
    }

    fn begin(&self) -> io::Result<()> {
        // SAFETY: `enter` made `raw`, and `drop` alone frees it.
        #[expect(
            unsafe_code,
            reason = "calls a function of graph.cpp with raw pointers"
        )]
        call(|said, room| unsafe { simmer_graph_begin(self.raw.as_ptr(), said, room) })
    }

    fn end(&self) -> io::Result<Graph> {
        let mut raw = ptr::null_mut();
        // SAFETY: `enter` made `raw`, and `drop` alone frees it. The function writes one pointer.
        #[expect(
            unsafe_code,
            reason = "calls a function of graph.cpp with raw pointers"
        )]
        call(|said, room| unsafe {
            simmer_graph_end(self.raw.as_ptr(), &raw mut raw, said, room)
        })?;
        Ok(Graph { raw: made(raw)? })
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // SAFETY: `enter` made it, and nothing uses it after this.
        #[expect(unsafe_code, reason = "frees what graph.cpp has made")]
        unsafe {
            simmer_graph_leave(self.raw.as_ptr());
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("an operation panicked").to_owned()
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    /// All elements have this value.
    fn assert_equal(found: &Tensor, expected: f64) {
        let expected = found.full_like(expected);
        assert!(found.equal(&expected), "{found}");
    }

    /// On a GPU: what is read in place changes between runs. Without one, the error says why.
    #[test]
    fn a_graph_runs_again_with_what_its_tensors_hold() {
        let f = |x: &Tensor, y: &Tensor| {
            // a result in the memory of the graph, which a second recording takes over
            let product = x.matmul(x) + 1.0;
            y.shallow_clone().copy_(&product);
        };
        if crate::gpus() == 0 {
            let error = Graph::record(0, || {}).unwrap_err().to_string();
            let expected = if super::super::HAS_CUDA {
                "CUDA"
            } else {
                "this libtorch is built without CUDA"
            };
            assert!(error.contains(expected), "{error}");
            return;
        }
        let device = Device::Cuda(0);
        let [x, y] = [2.0, 0.0].map(|value| Tensor::full([4, 4], value, (Kind::Float, device)));
        for _ in 0..3 {
            let _ = x.shallow_clone().fill_(2.0);
            let graph = Graph::record(0, || f(&x, &y)).unwrap();
            assert!(!is_recording());
            assert_equal(&y, 17.0); // the first call computes
            for value in [3.0, 0.5] {
                let _ = x.shallow_clone().fill_(value);
                graph.replay().unwrap();
                assert_equal(&y, 4.0 * value * value + 1.0);
            }
        }
    }

    /// The host cannot read a result while it records, and goes on as before.
    #[test]
    fn what_cannot_be_recorded_is_refused() {
        if crate::gpus() == 0 {
            return;
        }
        let x = Tensor::ones([3], (Kind::Float, Device::Cuda(0)));
        let read = || assert!(x.double_value(&[1]) > 0.0);
        let error = Graph::record(0, read).unwrap_err().to_string();
        assert!(error.contains("captur"), "{error}");
        assert!(!is_recording());
        let graph = Graph::record(0, || {
            let _ = x.shallow_clone().g_add_scalar_(1.0);
        });
        graph.unwrap().replay().unwrap();
        assert_equal(&x, 3.0);
    }
}
