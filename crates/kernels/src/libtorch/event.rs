//! Moments in the work of a GPU.

use std::ffi::{c_char, c_int, c_void};

use super::aten;

#[expect(unsafe_code, reason = "the functions of aten.cpp are C++")]
unsafe extern "C" {
    fn simmer_event(gpu: i64, out: *mut *mut c_void, said: *mut c_char, room: usize) -> c_int;
    fn simmer_event_wait(event: *const c_void, said: *mut c_char, room: usize) -> c_int;
    fn simmer_event_block(event: *const c_void, said: *mut c_char, room: usize) -> c_int;
    fn simmer_event_free(event: *mut c_void);
}

/// A moment in the work of a GPU.
pub(super) struct Event(*mut c_void);

// SAFETY: an event of CUDA can be waited for on any thread.
#[expect(unsafe_code, reason = "an event of CUDA belongs to no thread")]
unsafe impl Send for Event {}
// SAFETY: waiting for an event changes nothing of it.
#[expect(unsafe_code, reason = "an event of CUDA belongs to no thread")]
unsafe impl Sync for Event {}

impl Event {
    /// The end of the work that the GPU was given so far.
    pub(super) fn of_now(gpu: usize) -> Self {
        let mut event = std::ptr::null_mut();
        // SAFETY: the function writes one pointer.
        #[expect(unsafe_code, reason = "calls a function of aten.cpp with raw pointers")]
        let [] = aten::call(|_, said, room| unsafe {
            simmer_event(gpu as i64, &raw mut event, said, room)
        });
        Self(event)
    }

    /// An event that a function of aten.cpp created, and keeps no pointer to.
    pub(super) fn of_raw(event: *mut c_void) -> Self {
        Self(event)
    }

    /// Waits for it on the host.
    pub(super) fn wait(&self) {
        // SAFETY: the event was created by aten.cpp, and lives until it is dropped.
        #[expect(unsafe_code, reason = "calls a function of aten.cpp with raw pointers")]
        let [] = aten::call(|_, said, room| unsafe { simmer_event_wait(self.0, said, room) });
    }

    /// Lets the work that the GPU is given from now on wait for it.
    pub(super) fn block(&self) {
        // SAFETY: as in `wait`.
        #[expect(unsafe_code, reason = "calls a function of aten.cpp with raw pointers")]
        let [] = aten::call(|_, said, room| unsafe { simmer_event_block(self.0, said, room) });
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event was created by aten.cpp, and is freed once, here.
        #[expect(unsafe_code, reason = "calls a function of aten.cpp with raw pointers")]
        unsafe {
            simmer_event_free(self.0);
        }
    }
}
