//! Kernels of this crate for NVIDIA GPUs: the sources in `src/cuda`, which are compiled when they are first needed.
//!
//! Without NVRTC, the compiler that CUDA brings, and without a driver there are none of them, and ATen's functions
//! compute instead. `cuda.cpp` calls both.

mod compiler;

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::ptr::{self, NonNull};
use std::sync::{LazyLock, Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

use self::compiler::{Compiler, compiled};
use super::aten;
use super::group::{call, made};
use crate::OptionalKernel;

/// Threads of a block, for kernels that compute one place after another.
const THREADS: usize = 256;

/// The most parameters of a kernel. A step launches hundreds of kernels, so that a list of them is on the stack.
const MOST_ARGUMENTS: usize = 24;

/// A file of `src/cuda`.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its name, without `.cu`.
    pub(crate) name: &'static str,
    /// Its text, after that of `numbers.cuh`.
    pub(crate) text: &'static str,
}

/// The [`Source`] with a name.
macro_rules! source {
    ($name:literal) => {
        Source {
            name: $name,
            text: concat!(
                include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cuda/numbers.cuh")),
                include_str!(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/src/cuda/",
                    $name,
                    ".cu"
                ))
            ),
        }
    };
}

pub(crate) static ROPE: Source = source!("rope");
pub(crate) static GATED: Source = source!("gated");
pub(crate) static RMS_NORM: Source = source!("rms_norm");
pub(crate) static CROSS_ENTROPY: Source = source!("cross_entropy");
pub(crate) static SUM_ROWS: Source = source!("sum_rows");
pub(crate) static DECODE_ATTENTION: Source = source!("decode_attention");

pub(crate) static QUANTISE_ROWS: Source = source!("quantise_rows");

/// All of them.
#[cfg(test)]
static SOURCES: [&Source; 7] = [
    &ROPE,
    &GATED,
    &RMS_NORM,
    &CROSS_ENTROPY,
    &SUM_ROWS,
    &DECODE_ATTENTION,
    &QUANTISE_ROWS,
];

/// A compiled kernel on a GPU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernel {
    function: NonNull<c_void>,
    gpu: i32,
}

// SAFETY: it names code that is loaded until the process ends, and the driver may be called on any thread.
#[expect(unsafe_code, reason = "a kernel of CUDA belongs to no thread")]
unsafe impl Send for Kernel {}

/// A parameter of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Argument<'a> {
    /// The address of the first element.
    Tensor(&'a Tensor),
    /// An `int`.
    Int(i64),
    /// A `long long`.
    Long(i64),
    /// A `float`.
    Float(f64),
}

/// `Driver` in cuda.cpp.
#[repr(C)]
struct RawDriver {
    hidden: [u8; 0],
}

#[expect(unsafe_code, reason = "the functions of cuda.cpp are C++")]
unsafe extern "C" {
    fn simmer_cuda_load(out: *mut *mut RawDriver, said: *mut c_char, room: usize) -> c_int;
    fn simmer_cuda_capability(
        driver: *const RawDriver,
        gpu: i32,
        out: *mut i32,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_cuda_module(
        driver: *const RawDriver,
        gpu: i32,
        image: *const c_char,
        out: *mut *mut c_void,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_cuda_function(
        driver: *const RawDriver,
        module: *mut c_void,
        name: *const c_char,
        out: *mut *mut c_void,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_cuda_launch(
        driver: *const RawDriver,
        gpu: i32,
        function: *mut c_void,
        blocks: *const u32,
        threads: *const u32,
        shared: u32,
        arguments: *mut *mut c_void,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
}

/// CUDA's driver.
struct Driver(NonNull<RawDriver>);

// SAFETY: it is a table of functions that is never changed, and the driver may be called on any thread.
#[expect(unsafe_code, reason = "the driver belongs to no thread")]
unsafe impl Send for Driver {}
// SAFETY: as for `Send`.
#[expect(unsafe_code, reason = "the driver belongs to no thread")]
unsafe impl Sync for Driver {}

/// The driver, or why there is none.
static DRIVER: LazyLock<Result<Driver, String>> = LazyLock::new(|| {
    let mut raw = ptr::null_mut();
    // SAFETY: the function writes a pointer, and at most `room` bytes to `said`, a buffer of that size. The driver's
    // functions are called by their declarations in cuda.h.
    #[expect(
        unsafe_code,
        reason = "loads a library, and calls a function of cuda.cpp with raw pointers"
    )]
    call(|said, room| unsafe { simmer_cuda_load(&raw mut raw, said, room) })
        .and_then(|()| made(raw))
        .map(Driver)
        .map_err(|error| error.to_string())
});

/// Why no source can be compiled and run on this machine.
pub(crate) fn unavailable() -> Option<String> {
    let compiler = Compiler::get().err().map(|error| error.to_string());
    compiler.or_else(|| DRIVER.as_ref().err().cloned())
}

/// The compute capability of a GPU, 90 for 9.0, if the driver is there and tells it.
pub(crate) fn capability(gpu: usize) -> Option<i32> {
    DRIVER.as_ref().ok()?.capability(gpu as i32).ok()
}

impl Source {
    /// A kernel of this source on the GPU of a tensor, if it is switched on and can be compiled.
    pub(crate) fn kernel(
        &'static self,
        switch: OptionalKernel,
        name: &'static str,
        on: &Tensor,
    ) -> Option<Kernel> {
        let Device::Cuda(gpu) = on.device() else {
            return None;
        };
        if !switch.is_on() {
            return None;
        }
        self.loaded(name, gpu).ok()
    }

    /// The kernel, or why it is missing. Both are remembered.
    pub(crate) fn loaded(&'static self, name: &'static str, gpu: usize) -> Result<Kernel, String> {
        type Known = HashMap<(&'static str, usize), Result<Kernel, String>>;
        static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .entry((name, gpu))
            .or_insert_with(|| self.load(name, gpu as i32))
            .clone()
    }

    fn load(&self, name: &str, gpu: i32) -> Result<Kernel, String> {
        let driver = DRIVER.as_ref().map_err(Clone::clone)?;
        self.load_by(driver, name, gpu)
            .map_err(|error| format!("{}.cu: {error}", self.name))
    }

    fn load_by(&self, driver: &Driver, name: &str, gpu: i32) -> io::Result<Kernel> {
        let capability = driver.capability(gpu)?;
        let module = match driver.module(gpu, &compiled(self, capability, true)?) {
            Ok(module) => module,
            // what was kept from an earlier run may be damaged
            Err(_) => driver.module(gpu, &compiled(self, capability, false)?)?,
        };
        let function = driver.function(module, name)?;
        Ok(Kernel { function, gpu })
    }
}

impl Driver {
    fn capability(&self, gpu: i32) -> io::Result<i32> {
        let mut capability = 0;
        // SAFETY: the driver is loaded, and the function writes a number.
        #[expect(unsafe_code, reason = "calls a function of cuda.cpp with raw pointers")]
        call(|said, room| unsafe {
            simmer_cuda_capability(self.0.as_ptr(), gpu, &raw mut capability, said, room)
        })?;
        Ok(capability)
    }

    fn module(&self, gpu: i32, image: &[u8]) -> io::Result<NonNull<c_void>> {
        let mut module = ptr::null_mut();
        // SAFETY: the driver is loaded, reads an image in a format that has its own size, and writes a pointer.
        #[expect(unsafe_code, reason = "calls a function of cuda.cpp with raw pointers")]
        call(|said, room| unsafe {
            let image = image.as_ptr().cast();
            simmer_cuda_module(self.0.as_ptr(), gpu, image, &raw mut module, said, room)
        })?;
        made(module)
    }

    fn function(&self, module: NonNull<c_void>, name: &str) -> io::Result<NonNull<c_void>> {
        let name = CString::new(name)?;
        let mut function = ptr::null_mut();
        // SAFETY: the driver is loaded, so is the module, the name outlives the call, and the function writes a pointer.
        #[expect(unsafe_code, reason = "calls a function of cuda.cpp with raw pointers")]
        call(|said, room| unsafe {
            let (module, name) = (module.as_ptr(), name.as_ptr());
            simmer_cuda_function(self.0.as_ptr(), module, name, &raw mut function, said, room)
        })?;
        made(function)
    }
}

impl Kernel {
    /// Runs the kernel on `count` threads or a few more, behind the work that torch gave to the GPU.
    pub(crate) fn on_threads(self, count: usize, arguments: &[Argument<'_>]) {
        self.on_blocks([count.div_ceil(THREADS), 1, 1], THREADS, 0, arguments);
    }

    /// Runs the kernel on blocks of so many threads, which share so many bytes.
    ///
    /// # Panics
    /// If the driver refuses it, as functions of tch do.
    pub(crate) fn on_blocks(
        self,
        blocks: [usize; 3],
        threads: usize,
        shared: usize,
        arguments: &[Argument<'_>],
    ) {
        if blocks.contains(&0) {
            return;
        }
        let Ok(driver) = DRIVER.as_ref() else {
            unreachable!("a kernel was loaded by the driver")
        };
        let mut values = [0_u64; MOST_ARGUMENTS];
        let mut addresses = [ptr::null_mut::<c_void>(); MOST_ARGUMENTS];
        assert!(arguments.len() <= MOST_ARGUMENTS, "too many parameters");
        for ((value, address), of) in values.iter_mut().zip(&mut addresses).zip(arguments) {
            *value = of.bits();
            *address = ptr::from_mut(value).cast();
        }
        let blocks = blocks.map(|of| of as u32);
        let threads = [threads as u32, 1, 1];
        // SAFETY: the driver copies the parameters before it returns: as many as the kernel has, of at most 8 bytes each,
        // whose first bytes hold smaller ones. The kernel reads and writes within its tensors, on whose stream it is
        // launched, so that their memory is not given to another kernel before.
        #[expect(unsafe_code, reason = "calls a function of cuda.cpp with raw pointers")]
        let [] = aten::call(|_, said, room| unsafe {
            simmer_cuda_launch(
                driver.0.as_ptr(),
                self.gpu,
                self.function.as_ptr(),
                blocks.as_ptr(),
                threads.as_ptr(),
                shared as u32,
                addresses.as_mut_ptr(),
                said,
                room,
            )
        });
    }
}

impl Argument<'_> {
    fn bits(self) -> u64 {
        match self {
            Self::Tensor(tensor) => tensor.data_ptr().addr() as u64,
            Self::Int(number) => u64::from(number as i32 as u32),
            Self::Long(number) => number as u64,
            Self::Float(number) => u64::from((number as f32).to_bits()),
        }
    }
}

/// A kernel's name, and the number of elements that it loads at a time, for contiguous tensors of one dtype whose lists of
/// elements have these lengths. Only f32 and bf16 have kernels.
pub(crate) fn variant(
    tensors: &[&Tensor],
    lengths: &[i64],
    names: [[&'static str; 2]; 2],
) -> Option<(&'static str, i64)> {
    let kind = tensors.first()?.kind();
    if tensors.iter().any(|of| of.kind() != kind) {
        return None;
    }
    let names = names_of(kind, names)?;
    let width = together(kind, tensors, lengths, PACK)?;
    Some((names[usize::from(width == 1)], width))
}

/// The bytes that a thread loads at a time.
pub(crate) const PACK: usize = 16;

/// What is for a dtype, of a pair for f32 and bf16.
pub(crate) fn names_of<T>(kind: Kind, [f32, bf16]: [T; 2]) -> Option<T> {
    match kind {
        Kind::Float => Some(f32),
        Kind::BFloat16 => Some(bf16),
        _ => None,
    }
}

/// The number of elements of a dtype that a thread loads at a time from tensors whose lists of elements have these lengths:
/// 16 bytes if all of them allow it, else one. Memory begins at multiples of `alignment` bytes if it does.
pub(crate) fn together(
    kind: Kind,
    tensors: &[&Tensor],
    lengths: &[i64],
    alignment: usize,
) -> Option<i64> {
    let width = names_of(kind, [4, 8])?;
    let is_aligned = tensors
        .iter()
        .all(|of| of.data_ptr().addr() % alignment == 0);
    let are_whole = lengths.iter().all(|length| length % width == 0);
    Some(if is_aligned && are_whole { width } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_passed_in_their_first_bytes() {
        assert_eq!(Argument::Int(-1).bits(), 0xffff_ffff);
        assert_eq!(Argument::Long(-1).bits(), u64::MAX);
        assert_eq!(Argument::Float(1.0).bits(), 0x3f80_0000);
    }

    #[test]
    fn names_depend_on_dtype_and_length() {
        let names = [["f32", "f32 single"], ["bf16", "bf16 single"]];
        let of = |kind, lengths: &[i64]| {
            variant(&[&Tensor::empty([64], (kind, Device::Cpu))], lengths, names)
        };
        assert_eq!(of(Kind::Float, &[8, 12]), Some(("f32", 4)));
        assert_eq!(of(Kind::Float, &[8, 13]), Some(("f32 single", 1)));
        assert_eq!(of(Kind::BFloat16, &[8]), Some(("bf16", 8)));
        assert_eq!(of(Kind::BFloat16, &[12]), Some(("bf16 single", 1)));
        assert_eq!(of(Kind::Half, &[8]), None);
        let whole = Tensor::empty([64], (Kind::Float, Device::Cpu));
        let shifted = whole.narrow(0, 1, 8);
        assert_eq!(variant(&[&shifted], &[8], names), Some(("f32 single", 1)));
    }
}
