//! Sums and copies between GPUs through NCCL. `nccl.cpp` calls it.
//!
//! NCCL adds in an order of its own, which depends on the number of ranks and on how GPUs are connected.
//!
//! Axes: N elements.

use std::cell::RefCell;
use std::ffi::{CString, OsStr, c_char, c_int};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use burn::backend::libtorch::TchTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, LibTorch, backend_extension};
use burn::tensor::Tensor;
use torch_sys::C_tensor;

use super::aten::Input;
use super::group::{call, made};
use crate::{Capabilities, Memory};

/// Bytes of an id.
const ID: usize = 128;
/// The library, as torch's wheels have it.
const LIBRARY: &str = "libnccl.so.2";
/// The oldest version with all functions that are called: 2.4.
const OLDEST: i32 = 2400;

/// NCCL, loaded.
#[derive(Debug, Clone, Copy)]
pub struct Nccl {
    raw: NonNull<RawNccl>,
    version: i32,
}

/// The ranks of a run whose GPUs are connected.
pub struct Communicator {
    raw: NonNull<RawCommunicator>,
    /// Why its last operation could not begin.
    failed: RefCell<Option<io::Error>>,
}

/// `Nccl` in nccl.cpp.
#[repr(C)]
struct RawNccl {
    hidden: [u8; 0],
    /// One thread at a time calls NCCL.
    stays: PhantomData<*mut u8>,
}

/// `Communicator` in nccl.cpp.
#[repr(C)]
struct RawCommunicator {
    hidden: [u8; 0],
    stays: PhantomData<*mut u8>,
}

/// A function of nccl.cpp that begins an operation.
type Begin = unsafe extern "C" fn(*mut RawCommunicator, Input, *mut c_char, usize) -> c_int;

#[expect(unsafe_code, reason = "the functions of nccl.cpp are C++")]
unsafe extern "C" {
    fn simmer_nccl_load(
        path: *const c_char,
        out: *mut *mut RawNccl,
        version: *mut i32,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_nccl_id(nccl: *const RawNccl, out: *mut u8, said: *mut c_char, room: usize) -> c_int;
    fn simmer_nccl_join(
        nccl: *const RawNccl,
        id: *const u8,
        rank: i32,
        size: i32,
        gpu: i64,
        out: *mut *mut RawCommunicator,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_nccl_sum(
        communicator: *mut RawCommunicator,
        tensor: *const C_tensor,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_nccl_copy(
        communicator: *mut RawCommunicator,
        tensor: *const C_tensor,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_nccl_is_done(
        communicator: *mut RawCommunicator,
        done: *mut bool,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_nccl_free(communicator: *mut RawCommunicator);
}

impl Nccl {
    /// Loads the library that torch's CUDA wheel brings, or the one at a path.
    ///
    /// # Errors
    /// If there is none, if it is not NCCL, or too old.
    pub fn load(path: Option<&OsStr>) -> io::Result<Self> {
        let path = path.unwrap_or(OsStr::new(LIBRARY));
        let text = CString::new(path.as_encoded_bytes())?;
        let (mut raw, mut version) = (ptr::null_mut(), 0);
        #[expect(
            unsafe_code,
            reason = "loads a library, and calls a function of nccl.cpp with raw pointers"
        )]
        // SAFETY: `text` lives until the function returns, which writes a pointer, a number, and at most `room` bytes to `said`,
        // a buffer of that size. The library's functions are called by their declarations in nccl.h, of which nccl.cpp has those
        // that every version since 2.4 has; a file without one of their names is refused before any is called.
        call(|said, room| unsafe {
            simmer_nccl_load(text.as_ptr(), &raw mut raw, &raw mut version, said, room)
        })?;
        let nccl = Self {
            raw: made(raw)?,
            version,
        };
        if version < OLDEST {
            let text = format!(
                "{}: expected NCCL 2.4 or later, found {}",
                path.display(),
                nccl.version()
            );
            return Err(io::Error::other(text));
        }
        Ok(nccl)
    }

    /// Its version, such as 2.27.5.
    pub fn version(&self) -> String {
        let code = self.version;
        // 2.9 and later have five digits
        let (unit, step) = if code < 10_000 {
            (1000, 100)
        } else {
            (10_000, 100)
        };
        format!("{}.{}.{}", code / unit, code % unit / step, code % step)
    }

    /// The id by which the ranks of a run find each other. One of them makes it, and tells it to the others.
    ///
    /// # Errors
    /// If no network interface can be used.
    pub fn new_id(&self) -> io::Result<Vec<u8>> {
        let mut id = vec![0; ID];
        #[expect(unsafe_code, reason = "calls a function of nccl.cpp with raw pointers")]
        // SAFETY: `load` made `raw`, which is never freed. The function writes 128 bytes to `id`, which has as many.
        call(|said, room| unsafe {
            simmer_nccl_id(self.raw.as_ptr(), id.as_mut_ptr(), said, room)
        })?;
        Ok(id)
    }

    /// Connects this rank, which computes on a GPU, with the others, and waits for them. Each rank has a GPU of its own.
    ///
    /// # Errors
    /// If they cannot be connected.
    pub fn join(
        &self,
        id: &[u8],
        rank: usize,
        size: usize,
        gpu: usize,
    ) -> io::Result<Communicator> {
        if id.len() != ID {
            let text = format!("expected an id of {ID} bytes, found {}", id.len());
            return Err(io::Error::other(text));
        }
        let mut raw = ptr::null_mut();
        #[expect(unsafe_code, reason = "calls a function of nccl.cpp with raw pointers")]
        // SAFETY: `load` made `raw`, which is never freed. The function reads 128 bytes of `id`, whose length is checked, and writes
        // a pointer to `raw`.
        call(|said, room| unsafe {
            simmer_nccl_join(
                self.raw.as_ptr(),
                id.as_ptr(),
                rank as i32,
                size as i32,
                gpu as i64,
                &raw mut raw,
                said,
                room,
            )
        })?;
        Ok(Communicator {
            raw: made(raw)?,
            failed: RefCell::default(),
        })
    }
}

impl Communicator {
    /// Adds up a tensor of each rank. The first rank gets the sum; those of the others are used up. All ranks call this with tensors of
    /// one shape, in f32 on their GPUs.
    ///
    /// # Shapes
    /// `values` and result: `[N]`.
    ///
    /// # Errors
    /// If NCCL fails, or takes longer than `at_most`. The communicator cannot be used any more then.
    pub fn sum(self: &Rc<Self>, values: Tensor<1>, at_most: Duration) -> io::Result<Tensor<1>> {
        check(&values)?;
        let summed = Dispatch::summed(values.into_dispatch(), Rc::clone(self));
        self.finish(at_most)?;
        Ok(Tensor::from_dispatch(summed))
    }

    /// The tensor of the first rank on all of them. All ranks call this as [`Communicator::sum`].
    ///
    /// # Shapes
    /// `values` and result: `[N]`.
    ///
    /// # Errors
    /// As [`Communicator::sum`].
    pub fn copy_of_first(
        self: &Rc<Self>,
        values: Tensor<1>,
        at_most: Duration,
    ) -> io::Result<Tensor<1>> {
        check(&values)?;
        let copied = Dispatch::copied(values.into_dispatch(), Rc::clone(self));
        self.finish(at_most)?;
        Ok(Tensor::from_dispatch(copied))
    }

    fn begin(&self, function: Begin, tensor: &tch::Tensor) {
        #[expect(unsafe_code, reason = "calls a function of nccl.cpp with raw pointers")]
        // SAFETY: the communicator is freed by `drop` alone. The tensor outlives the call; the caller keeps it until the operation has
        // finished, since it waits for that, or is aborted in `drop`.
        let begun =
            call(|said, room| unsafe { function(self.raw.as_ptr(), tensor.as_ptr(), said, room) });
        self.failed.replace(begun.err());
    }

    /// Waits for the end of the last operation.
    fn finish(&self, at_most: Duration) -> io::Result<()> {
        const BUSY: Duration = Duration::from_millis(5);
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let start = Instant::now();
        loop {
            let mut done = false;
            #[expect(unsafe_code, reason = "calls a function of nccl.cpp with raw pointers")]
            // SAFETY: the communicator is freed by `drop` alone, and the function writes a bool to `done`.
            call(|said, room| unsafe {
                simmer_nccl_is_done(self.raw.as_ptr(), &raw mut done, said, room)
            })?;
            let waited = start.elapsed();
            if done {
                return Ok(());
            }
            if waited > at_most {
                let text = format!("NCCL has not finished after {} s", waited.as_secs());
                return Err(io::Error::other(text));
            }
            if waited > BUSY {
                thread::sleep(Duration::from_micros(50));
            }
        }
    }
}

/// Refuses a tensor that is on no GPU.
fn check(values: &Tensor<1>) -> io::Result<()> {
    let device = Capabilities::of(&values.device());
    match device.memory {
        Memory::Nvidia(_) => Ok(()),
        Memory::Main => Err(io::Error::other(format!(
            "NCCL connects GPUs, and the tensor is on {}",
            device.name()
        ))),
    }
}

impl fmt::Debug for Communicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a communicator of NCCL")
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "frees what nccl.cpp has made")]
        // SAFETY: `join` made it, and nothing uses it after this. An operation that is still running is aborted first.
        unsafe {
            simmer_nccl_free(self.raw.as_ptr());
        }
    }
}

/// The operations on a backend, in the memory of their tensor.
#[backend_extension(LibTorch)]
pub(crate) trait NcclBackend: Backend {
    fn summed(x: FloatTensor<Self>, communicator: Rc<Communicator>) -> FloatTensor<Self>;
    fn copied(x: FloatTensor<Self>, communicator: Rc<Communicator>) -> FloatTensor<Self>;
}

impl NcclBackend for LibTorch {
    fn summed(x: TchTensor, communicator: Rc<Communicator>) -> TchTensor {
        // other tensors may share its memory
        let own = super::fresh(x.tensor.copy());
        communicator.begin(simmer_nccl_sum, &own.tensor);
        own
    }

    fn copied(x: TchTensor, communicator: Rc<Communicator>) -> TchTensor {
        let own = super::fresh(x.tensor.copy());
        communicator.begin(simmer_nccl_copy, &own.tensor);
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_missing_or_another_is_refused() {
        let error = |path: &str| Nccl::load(Some(OsStr::new(path))).unwrap_err().to_string();
        let missing = error("/nothing/libnccl.so.2");
        assert!(missing.contains("/nothing/libnccl.so.2"), "{missing}");
        #[cfg(target_os = "linux")]
        assert_eq!(
            error("libm.so.6"),
            "libm.so.6 has no function ncclGetVersion"
        );
    }

    #[test]
    fn versions_are_read() {
        let of = |version| {
            let raw = NonNull::dangling();
            Nccl { raw, version }.version()
        };
        assert_eq!(of(2304), "2.3.4");
        assert_eq!(of(2708), "2.7.8");
        assert_eq!(of(22_705), "2.27.5");
    }

    /// The library of the wheel nvidia-nccl-cu12 (`SIMMER_NCCL`) makes ids without a GPU, and no communicator. On a GPU, sums and
    /// copies of one rank are the tensors themselves.
    #[test]
    fn ids_sums_and_copies_of_one_rank() {
        let path = std::env::var_os("SIMMER_NCCL");
        let nccl = match Nccl::load(path.as_deref()) {
            Ok(nccl) => nccl,
            Err(error) => {
                let path = path.unwrap_or_else(|| LIBRARY.into());
                let error = error.to_string();
                assert!(error.contains(&*path.to_string_lossy()), "{error}");
                // torch with CUDA brings it
                assert_eq!(crate::gpus(), 0, "{error}");
                return;
            }
        };
        assert!(nccl.version().starts_with("2."), "{}", nccl.version());
        let ids = [nccl.new_id().unwrap(), nccl.new_id().unwrap()];
        assert_ne!(ids[0], ids[1]);
        let error = nccl.join(&ids[0][1..], 0, 1, 0).unwrap_err().to_string();
        assert_eq!(error, "expected an id of 128 bytes, found 127");
        let joined = nccl.join(&ids[0], 0, 1, 0);
        if crate::gpus() == 0 {
            assert!(joined.is_err());
            return;
        }
        let communicator = Rc::new(joined.unwrap());
        let at_most = Duration::from_secs(30);
        let device = super::super::gpu(0);
        let values = [1.5_f32, -2.0, 0.0, 1e30];
        let tensor = || Tensor::<1>::from_data(values, &device);
        let summed = communicator.sum(tensor(), at_most).unwrap();
        assert_eq!(summed.into_data().iter::<f32>().collect::<Vec<_>>(), values);
        let copied = communicator.copy_of_first(tensor(), at_most).unwrap();
        assert_eq!(copied.into_data().iter::<f32>().collect::<Vec<_>>(), values);
    }
}
