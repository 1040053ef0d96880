//! A deep stack for what untrusted files may nest.

use std::panic::resume_unwind;
use std::thread;

use crate::guarded::{carry, is_guarded};

/// Runs `work` on a stack of so many bytes of address space; memory is taken as far down as it goes. `None` where the
/// system has no such stack.
pub(crate) fn deep<T: Send>(bytes: usize, work: impl FnOnce() -> T + Send) -> Option<T> {
    let guarded = is_guarded();
    let work = || {
        carry(guarded);
        work()
    };
    thread::scope(|scope| {
        let deep = thread::Builder::new().stack_size(bytes);
        let done = deep.spawn_scoped(scope, work).ok()?.join();
        Some(done.unwrap_or_else(|panic| resume_unwind(panic)))
    })
}
