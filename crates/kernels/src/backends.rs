//! The backends: their devices, how a recipe names them, and what they can do.
//!
//! Nothing else knows the kinds of devices. To add a backend, add it to `backends!`, write its empty
//! `impl`s of the `Forms` traits (every operation then runs by its reference implementation), and
//! describe it in [`Kind`]. Fused forms can follow one by one.

use burn::backend::{DispatchDevice, Flex};
use burn::tensor::{DType, Device};

use crate::capabilities::{Capabilities, Overhead};
use crate::memory::Memory;
use crate::operation::{Operation, Operations};
use crate::product::{ProductUnit, half_unit};
use crate::reference;
use crate::{
    AttentionForms, GatedForms, LinearCrossEntropyForms, LinearForms, LoraLinearForms,
    RmsNormForms, RopeForms,
};

/// Routes the calls of a trait's functions to the backend of their tensors.
macro_rules! backends {
    ($($extension:tt)*) => {
        #[burn::backend::backend_extension(Flex, LibTorch: cfg(feature = "libtorch"), Autodiff)]
        $($extension)*
    };
}

/// Why a name opens no device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// It is not the name of a device.
    Unknown,
    /// This build has no libtorch.
    NotBuilt,
    /// The libtorch of this build has no CUDA.
    NoCuda,
    /// libtorch finds no GPU.
    NoGpu,
    /// The machine has fewer GPUs.
    NoSuchGpu {
        /// Index of the last one.
        last: usize,
    },
}

/// The kinds of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The processor, with the kernels of this crate.
    Cpu,
    /// The processor, with libtorch's kernels.
    LibTorch,
    /// An NVIDIA GPU, with libtorch's kernels.
    Cuda(usize),
}

impl Kind {
    /// The device with a name, of any build and any machine; `auto` is the best of this one.
    fn named(name: &str) -> Result<Self, Unavailable> {
        let gpu = name.strip_prefix("libtorch-cuda:");
        match (name, gpu.and_then(|index| index.parse::<u8>().ok())) {
            ("auto", _) => Ok(Self::best()),
            ("cpu", _) => Ok(Self::Cpu),
            ("libtorch", _) => Ok(Self::LibTorch),
            (_, Some(index)) => Ok(Self::Cuda(index.into())),
            _ => Err(Unavailable::Unknown),
        }
    }

    fn best() -> Self {
        match Self::Cuda(0).open() {
            Ok(_) => Self::Cuda(0),
            Err(_) => Self::Cpu,
        }
    }

    #[cfg(not(feature = "libtorch"))]
    fn open(self) -> Result<Device, Unavailable> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            Self::LibTorch | Self::Cuda(_) => Err(Unavailable::NotBuilt),
        }
    }

    #[cfg(feature = "libtorch")]
    fn open(self) -> Result<Device, Unavailable> {
        use crate::libtorch::{cpu, gpu, gpus};

        match self {
            Self::Cpu => Ok(Device::flex()),
            Self::LibTorch => Ok(cpu()),
            Self::Cuda(index) => match gpus() {
                None => Err(Unavailable::NoCuda),
                Some(0) => Err(Unavailable::NoGpu),
                Some(count) if index >= count => {
                    let last = count - 1;
                    Err(Unavailable::NoSuchGpu { last })
                }
                Some(_) => Ok(gpu(index)),
            },
        }
    }

    fn of(device: &DispatchDevice) -> Self {
        match device {
            DispatchDevice::Flex(_) => Self::Cpu,
            #[cfg(feature = "libtorch")]
            DispatchDevice::LibTorch(burn::backend::libtorch::LibTorchDevice::Cuda(index)) => {
                Self::Cuda(*index)
            }
            #[cfg(feature = "libtorch")]
            DispatchDevice::LibTorch(_) => Self::LibTorch,
            DispatchDevice::Autodiff(device) => Self::of(device),
        }
    }

    fn capabilities(self) -> Capabilities {
        /// The program with the tables and threads of its libraries. A build with libtorch loads it in
        /// any case; if libtorch computes, its own threads are added.
        const PROGRAM: u64 = if cfg!(feature = "libtorch") {
            140 << 20
        } else {
            36 << 20
        };
        const THREADS_OF_LIBTORCH: u64 = 60 << 20;
        /// A CUDA context and its libraries.
        const CONTEXT: u64 = 600 << 20;
        #[cfg(feature = "libtorch")]
        const LIBTORCH: Operations = fused::<burn::backend::LibTorch>();
        #[cfg(not(feature = "libtorch"))]
        const LIBTORCH: Operations = Operations::ALL;
        const FLOATS: &[DType] = &[DType::F32, DType::BF16, DType::F16];

        let cpu = Capabilities {
            kind: "cpu",
            index: None,
            fused: const { fused::<Flex>() }.without(reference::chosen()),
            stores: FLOATS,
            computes: &[DType::F32, DType::BF16],
            fastest: match half_unit() {
                ProductUnit::Amx | ProductUnit::Bf16 => DType::BF16,
                ProductUnit::Vector => DType::F32,
            },
            fp8: false,
            memory: Memory::Main,
            is_asynchronous: false,
            reads_in_place: true,
            updates_in_place: false,
            shares_from: 0.0,
            keeps_low: false,
            overhead: Overhead {
                program: PROGRAM,
                fragmentation: 0.05,
                logits: 32 << 20,
            },
            read_rate: 10e9,
        };
        let libtorch = Capabilities {
            kind: "libtorch",
            fused: LIBTORCH.without(reference::chosen()),
            fastest: DType::F32,
            fp8: true,
            reads_in_place: false,
            updates_in_place: true,
            keeps_low: true,
            overhead: Overhead {
                program: PROGRAM + THREADS_OF_LIBTORCH,
                fragmentation: 0.4, // its operations also make copies
                ..cpu.overhead
            },
            ..cpu
        };
        match self {
            Self::Cpu => cpu,
            Self::LibTorch => libtorch,
            Self::Cuda(index) => Capabilities {
                kind: "libtorch-cuda",
                index: Some(index),
                fastest: DType::BF16,
                memory: Memory::Nvidia(index),
                is_asynchronous: true,
                overhead: Overhead {
                    program: CONTEXT,
                    fragmentation: 0.15, // not measured: what torch's allocator usually reserves
                    logits: 3 << 30,
                },
                // attention of rows of 4,096 tokens is a fifth of a step on an H200, and takes half the time by cuDNN
                shares_from: 0.1,
                read_rate: 1e12,
                ..libtorch
            },
        }
    }
}

/// The device as tch names it, if libtorch computes on it.
#[cfg(feature = "libtorch")]
pub(crate) fn torch_device(device: &Device) -> Option<tch::Device> {
    match Kind::of(device.as_dispatch()) {
        Kind::Cpu => None,
        Kind::LibTorch => Some(tch::Device::Cpu),
        Kind::Cuda(index) => Some(tch::Device::Cuda(index)),
    }
}

/// The operations that a backend has a fused form of.
const fn fused<B>() -> Operations
where
    B: LinearForms
        + LoraLinearForms
        + AttentionForms
        + LinearCrossEntropyForms
        + RmsNormForms
        + RopeForms
        + GatedForms,
{
    let all = [
        (Operation::Linear, <B as LinearForms>::FUSED),
        (Operation::LowRank, <B as LoraLinearForms>::FUSED),
        (Operation::Attention, <B as AttentionForms>::FUSED),
        (
            Operation::LinearCrossEntropy,
            <B as LinearCrossEntropyForms>::FUSED,
        ),
        (Operation::RmsNorm, <B as RmsNormForms>::FUSED),
        (Operation::Rope, <B as RopeForms>::FUSED),
        (Operation::Gated, <B as GatedForms>::FUSED),
    ];
    let mut found = Operations::NONE;
    let mut place = 0;
    while place < all.len() {
        let (operation, fused) = all[place];
        if fused {
            found = found.with(operation);
        }
        place += 1;
    }
    found
}

impl Capabilities {
    /// What a device can do.
    pub fn of(device: &Device) -> Self {
        Kind::of(device.as_dispatch()).capabilities()
    }

    /// What the device with a name can do, whether or not this build and this machine have it. `auto` is
    /// the best device of this machine.
    ///
    /// # Errors
    /// If it is not the name of a device.
    pub fn named(name: &str) -> Result<Self, Unavailable> {
        Kind::named(name).map(Kind::capabilities)
    }
}

/// The device with a name.
///
/// # Errors
/// If it is not the name of a device, or if this build or this machine does not have it.
pub fn open(name: &str) -> Result<Device, Unavailable> {
    Kind::named(name)?.open()
}

/// The features of this build that add backends.
pub fn features() -> Vec<&'static str> {
    let all = [("libtorch", cfg!(feature = "libtorch"))];
    let on = all.into_iter().filter(|(_, on)| *on);
    on.map(|(name, _)| name).collect()
}

/// Whether this build's libtorch is built with CUDA.
pub fn has_cuda() -> bool {
    #[cfg(feature = "libtorch")]
    return crate::libtorch::HAS_CUDA;
    #[cfg(not(feature = "libtorch"))]
    false
}

/// Number of NVIDIA GPUs that this build can use on this machine.
pub fn gpus() -> usize {
    #[cfg(feature = "libtorch")]
    return crate::libtorch::gpus().unwrap_or(0);
    #[cfg(not(feature = "libtorch"))]
    0
}

/// Why the kernels of this crate for NVIDIA GPUs cannot be compiled here; `None` if they can. libtorch's functions compute
/// instead of them, in more time.
pub fn not_compiled() -> Option<String> {
    #[cfg(feature = "libtorch")]
    return crate::libtorch::cuda::unavailable();
    #[cfg(not(feature = "libtorch"))]
    Some("this build has no libtorch".to_owned())
}

/// The line of a panic's message that tells that a device is out of memory. Backends report it so.
pub fn out_of_memory(message: &str) -> Option<&str> {
    let known = ["out of memory", "allocate memory", "not enough memory"];
    let mut lines = message.lines();
    lines
        .find(|line| known.iter().any(|words| line.contains(words)))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, kind) in [
            ("cpu", Kind::Cpu),
            ("libtorch", Kind::LibTorch),
            ("libtorch-cuda:0", Kind::Cuda(0)),
            ("libtorch-cuda:12", Kind::Cuda(12)),
        ] {
            assert_eq!(Kind::named(name), Ok(kind));
            assert_eq!(kind.capabilities().name(), name);
        }
        for name in [
            "",
            "cuda:0",
            "libtorch-cuda",
            "libtorch-cuda:",
            "libtorch-cuda:-1",
            "CPU",
        ] {
            assert_eq!(Kind::named(name), Err(Unavailable::Unknown));
        }
    }

    #[test]
    fn a_device_is_that_of_its_name() {
        for device in crate::devices::all() {
            let found = Capabilities::of(&device);
            assert_eq!(open(&found.name()), Ok(device.clone()));
            assert_eq!(Capabilities::named(&found.name()), Ok(found));
            assert_eq!(Capabilities::of(&device.autodiff()), found);
            assert_eq!(found.without_fused_form(), Operations::NONE);
        }
    }

    #[test]
    fn what_is_left_out_has_no_fused_form() {
        let rope = Operations::NONE.with(Operation::Rope);
        let found = reference::with_reference(rope, || Capabilities::of(&Device::flex()));
        assert_eq!(found.without_fused_form(), rope);
    }

    #[test]
    fn a_device_without_memory_is_recognised() {
        let gpu = "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried to allocate 2.00 GiB\")";
        assert_eq!(out_of_memory(gpu), Some(gpu));
        let processor = "Internal torch error: [enforce fail]\nDefaultCPUAllocator: can't allocate memory: you tried";
        let line = "DefaultCPUAllocator: can't allocate memory: you tried";
        assert_eq!(out_of_memory(processor), Some(line));
        assert_eq!(out_of_memory("index out of bounds"), None);
    }
}
