//! Messages between processes, through c10d, PyTorch's library for distributed training. `group.cpp` calls it.
//!
//! A process group of the backend gloo connects each process with each other one. Only messages of bytes between two
//! processes are used, no collective: whoever adds up something chooses the order.

use std::ffi::{CString, c_char, c_int};
use std::io;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::time::Duration;

use super::said;

/// Size of the buffer for a call's error message, in bytes.
const SAID: usize = 4096;

/// Where processes meet: at a store of keys and values, a `TCPStore`, which one of them serves, or a launcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendezvous {
    /// The machine with the store, by name or address.
    pub host: String,
    /// The store's port.
    pub port: u16,
    /// Whether this process serves the store.
    pub serves: bool,
    /// Which of the processes this is, counted from 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// How long the others are waited for.
    pub wait: Duration,
    /// What the keys in the store begin with.
    pub prefix: String,
}

/// Processes that are connected.
#[derive(Debug)]
pub struct ProcessGroup {
    raw: NonNull<RawGroup>,
}

/// Bytes on their way to another process, or from it.
#[derive(Debug)]
pub struct Transfer {
    raw: NonNull<RawTransfer>,
    /// What is sent, or the place for what is received. Nothing reads or changes it while `raw` exists.
    bytes: Vec<u8>,
}

/// `Group` in group.cpp.
#[repr(C)]
struct RawGroup {
    hidden: [u8; 0],
    /// One thread at a time calls c10d.
    stays: PhantomData<*mut u8>,
}

/// `Transfer` in group.cpp.
#[repr(C)]
struct RawTransfer {
    hidden: [u8; 0],
    stays: PhantomData<*mut u8>,
}

/// `Rendezvous` in group.cpp.
#[repr(C)]
struct RawRendezvous {
    host: *const c_char,
    prefix: *const c_char,
    wait: i64,
    rank: i32,
    size: i32,
    port: u16,
    serves: bool,
}

/// A function of group.cpp that begins a transfer.
type Begin = unsafe extern "C" fn(
    *mut RawGroup,
    i32,
    *mut u8,
    i64,
    *mut *mut RawTransfer,
    *mut c_char,
    usize,
) -> c_int;

#[expect(unsafe_code, reason = "the functions of group.cpp are C++")]
unsafe extern "C" {
    fn simmer_group_join(
        at: *const RawRendezvous,
        out: *mut *mut RawGroup,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_group_free(group: *mut RawGroup);
    fn simmer_group_probe(group: *mut RawGroup, to: i32, said: *mut c_char, room: usize) -> c_int;
    fn simmer_group_send(
        group: *mut RawGroup,
        to: i32,
        data: *mut u8,
        length: i64,
        out: *mut *mut RawTransfer,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_group_receive(
        group: *mut RawGroup,
        from: i32,
        data: *mut u8,
        length: i64,
        out: *mut *mut RawTransfer,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_transfer_wait(
        transfer: *mut RawTransfer,
        wait: i64,
        done: *mut bool,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_transfer_stop(transfer: *mut RawTransfer, said: *mut c_char, room: usize) -> c_int;
    fn simmer_transfer_free(transfer: *mut RawTransfer);
}

/// The first line of an exception's message; a trace of C++ functions follows it.
pub(super) fn call(f: impl FnOnce(*mut c_char, usize) -> c_int) -> io::Result<()> {
    let mut room = [0 as c_char; SAID];
    if f(room.as_mut_ptr(), SAID) == 0 {
        return Ok(());
    }
    let text = said(&room);
    let line = text.lines().next().unwrap_or_default();
    Err(io::Error::other(line.to_owned()))
}

pub(super) fn made<T>(raw: *mut T) -> io::Result<NonNull<T>> {
    NonNull::new(raw).ok_or_else(|| io::Error::other("libtorch returned nothing"))
}

fn milliseconds(wait: Duration) -> i64 {
    // 0 means no limit to c10d
    i64::try_from(wait.as_millis()).unwrap_or(i64::MAX).max(1)
}

impl ProcessGroup {
    /// Meets the other processes, and connects with each of them.
    ///
    /// # Errors
    /// If the store cannot be reached or served, or a process does not come in time.
    pub fn join(at: &Rendezvous) -> io::Result<Self> {
        let (host, prefix) = (CString::new(&*at.host)?, CString::new(&*at.prefix)?);
        let raw = RawRendezvous {
            host: host.as_ptr(),
            prefix: prefix.as_ptr(),
            wait: milliseconds(at.wait),
            rank: at.rank as i32,
            size: at.size as i32,
            port: at.port,
            serves: at.serves,
        };
        let mut group = ptr::null_mut();
        #[expect(
            unsafe_code,
            reason = "calls a function of group.cpp with raw pointers"
        )]
        // SAFETY: `raw` and its two texts live until the function returns, which copies them. It writes a pointer to `group`,
        // and at most `room` bytes to `said`, a buffer of that size.
        call(|said, room| unsafe {
            simmer_group_join(&raw const raw, &raw mut group, said, room)
        })?;
        Ok(Self { raw: made(group)? })
    }

    /// Begins to send bytes to another process. They arrive in the order in which they were sent.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn send(&self, to: usize, bytes: Vec<u8>) -> io::Result<Transfer> {
        self.begin(simmer_group_send, to, bytes)
    }

    /// Begins to receive so many bytes, as many as the other process sends.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn receive(&self, from: usize, length: usize) -> io::Result<Transfer> {
        self.begin(simmer_group_receive, from, vec![0; length])
    }

    /// Tries the connection to another process, by a message that is never received.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn probe(&self, other: usize) -> io::Result<()> {
        #[expect(
            unsafe_code,
            reason = "calls a function of group.cpp with raw pointers"
        )]
        // SAFETY: the group is freed by `drop` alone. The function writes at most `room` bytes to `said`.
        call(|said, room| unsafe {
            simmer_group_probe(self.raw.as_ptr(), other as i32, said, room)
        })
    }

    /// Begins a transfer of `bytes`, in the direction of the function.
    fn begin(&self, function: Begin, other: usize, mut bytes: Vec<u8>) -> io::Result<Transfer> {
        let (data, length) = (bytes.as_mut_ptr(), bytes.len() as i64);
        let mut raw = ptr::null_mut();
        #[expect(
            unsafe_code,
            reason = "calls a function of group.cpp with raw pointers"
        )]
        // SAFETY: the group is freed by `drop` alone. `data` are `length` bytes on the heap, which stay where they are while
        // `bytes` is moved into the transfer, and which nothing here reads, changes or frees before the transfer is freed; gloo's
        // thread reads or writes them until then. `said` as above.
        call(|said, room| unsafe {
            function(
                self.raw.as_ptr(),
                other as i32,
                data,
                length,
                &raw mut raw,
                said,
                room,
            )
        })?;
        Ok(Transfer {
            raw: made(raw)?,
            bytes,
        })
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "frees what group.cpp has made")]
        // SAFETY: `join` made it, and nothing uses it after this. A transfer that is still there keeps what it needs of it.
        unsafe {
            simmer_group_free(self.raw.as_ptr());
        }
    }
}

#[expect(unsafe_code, reason = "a thread stops what another one waits for")]
// SAFETY: a shared transfer allows `wait` and `stop`. Both only call gloo's buffer, which locks its mutex in them, and `wait`
// sets the work's result under another mutex. `wait` on two threads is as safe: each returns or throws.
unsafe impl Sync for Transfer {}

impl Transfer {
    /// Waits until all bytes have been sent or received; false if [`Transfer::stop`] ended the waiting.
    ///
    /// # Errors
    /// If the other process has ended; if it takes too long, and then no connection of the group is used any more.
    pub fn wait(&self, at_most: Duration) -> io::Result<bool> {
        let mut done = false;
        #[expect(
            unsafe_code,
            reason = "calls a function of group.cpp with raw pointers"
        )]
        // SAFETY: the transfer is freed by `drop` alone. The function writes a bool to `done`, and at most `room` bytes to `said`.
        call(|said, room| unsafe {
            let wait = milliseconds(at_most);
            simmer_transfer_wait(self.raw.as_ptr(), wait, &raw mut done, said, room)
        })?;
        Ok(done)
    }

    /// Ends the waiting of another thread, or the next one. The transfer itself goes on.
    pub fn stop(&self) {
        #[expect(
            unsafe_code,
            reason = "calls a function of group.cpp with raw pointers"
        )]
        // SAFETY: the transfer is freed by `drop` alone, and `said` is a buffer of `room` bytes.
        let stopped =
            call(|said, room| unsafe { simmer_transfer_stop(self.raw.as_ptr(), said, room) });
        // gloo's transfers can be stopped
        drop(stopped);
    }

    /// The bytes, once they have been received.
    pub fn into_bytes(mut self) -> Vec<u8> {
        let bytes = std::mem::take(&mut self.bytes);
        // frees it, so that nothing writes to the bytes any more
        drop(self);
        bytes
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "frees what group.cpp has made")]
        // SAFETY: `send` or `receive` made it, and nothing uses it after this. gloo's buffer waits in its destructor for the
        // thread that reads or writes its bytes, which are freed later.
        unsafe {
            simmer_transfer_free(self.raw.as_ptr());
        }
    }
}
