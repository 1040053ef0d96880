//! A deep stack for recursive parsers: untrusted files may nest deeply.

use std::panic::resume_unwind;
use std::thread;

use crate::guarded::{carry, is_guarded};

/// Runs `work` on a stack of `bytes` bytes of address space; only the part that is used takes memory. `None` if the
/// system cannot provide such a stack.
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
