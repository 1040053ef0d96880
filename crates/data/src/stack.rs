//! A deep stack for what untrusted files may nest.

use std::panic::resume_unwind;
use std::thread;

/// Bytes of address space; memory is taken as far down as the stack goes.
const DEEP: usize = 1 << 30;

/// Runs `work` where it may call itself some hundreds of thousands of times; `None` where the system has no such stack.
pub(crate) fn deep<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let deep = thread::Builder::new().stack_size(DEEP);
        let done = deep.spawn_scoped(scope, work).ok()?.join();
        Some(done.unwrap_or_else(|panic| resume_unwind(panic)))
    })
}
