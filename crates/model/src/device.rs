//! The device that a model computes on.
//!
//! | name | device | requires |
//! |---|---|---|
//! | `cpu` | the CPU, with simmer's own kernels | nothing |
//! | `libtorch` | the CPU, with libtorch's kernels | a build with the feature `libtorch` |
//! | `libtorch-cuda:N` | the Nth NVIDIA GPU, counted from 0 | the same, and an NVIDIA driver |
//! | `auto` | `libtorch-cuda:0` if the build and the machine have it, else `cpu` | nothing |
//!
//! [`Devices`] are one of them, or several GPUs that share the layers of a model.

mod devices;

use burn::tensor::Device;
use simmer_hint::Hint;
use simmer_kernels::{
    Capabilities, Operations, OptionalKernel, Unavailable, from_environment, optional_kernels,
};

pub use devices::Devices;

/// An unavailable device, or devices that cannot share a model.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DeviceError {
    /// Not the name of a device.
    #[error("unknown device `{found}`: expected auto, cpu, libtorch or libtorch-cuda:N (N from 0)")]
    Unknown {
        /// As given.
        found: String,
    },
    /// This build has no libtorch.
    #[error("device {found}: this build of simmer has no libtorch")]
    NotBuilt {
        /// As given.
        found: String,
    },
    /// The libtorch of this build has no CUDA.
    #[error("device {found}: simmer was built with a libtorch without CUDA")]
    NoCuda {
        /// As given.
        found: String,
    },
    /// libtorch finds no GPU.
    #[error("device {found}: libtorch finds no NVIDIA GPU on this machine")]
    NoGpu {
        /// As given.
        found: String,
    },
    /// The machine has fewer GPUs.
    #[error("device {found}: the last GPU of this machine is libtorch-cuda:{last}")]
    NoSuchGpu {
        /// As given.
        found: String,
        /// Index of the last one.
        last: usize,
    },
    /// A list without a device.
    #[error("expected a device or a list of devices, found an empty list")]
    None,
    /// `auto` in a list.
    #[error("device auto: expected the names of devices in a list, found auto")]
    AutoOfSeveral,
    /// Devices of different kinds.
    #[error("devices {first} and {other}: expected devices of one kind to share a model")]
    Kinds {
        /// The first one.
        first: String,
        /// One of another kind.
        other: String,
    },
    /// A GPU twice.
    #[error("device {found}: named twice in a list of devices that share a model")]
    Twice {
        /// As given.
        found: String,
    },
    /// `SIMMER_REFERENCE` names an unknown operation.
    #[error("SIMMER_REFERENCE: unknown operation `{found}`: expected all, or a list of {}", Operations::ALL.names())]
    Reference {
        /// The name.
        found: String,
    },
    /// `SIMMER_KERNELS` names an unknown kernel.
    #[error(
        "SIMMER_KERNELS: unknown kernel `{found}`: expected all, or a list of {}; - before a name switches a kernel off",
        OptionalKernel::names()
    )]
    Kernels {
        /// The name.
        found: String,
    },
}

impl Hint for DeviceError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unknown { found } => return meant(found),
            Self::None => "name one, such as device = \"auto\"",
            Self::AutoOfSeveral => {
                "name each GPU, such as [\"libtorch-cuda:0\", \"libtorch-cuda:1\"]"
            }
            Self::Kinds { .. } => {
                "name GPUs alone, such as [\"libtorch-cuda:0\", \"libtorch-cuda:1\"], or one device"
            }
            Self::Twice { .. } => "name each GPU once",
            Self::NotBuilt { .. } => {
                "set up libtorch with tools/libtorch, then build with --features libtorch \
                 (docs/guide/gpu.md), or use the device `cpu`"
            }
            Self::NoCuda { .. } => {
                "set up libtorch with tools/libtorch without --cpu, and build again \
                 (docs/guide/gpu.md)"
            }
            Self::NoGpu { .. } => {
                "run `nvidia-smi` to see whether the driver works and is new enough for this libtorch's \
                 CUDA; check that CUDA_VISIBLE_DEVICES does not hide the GPU"
            }
            Self::Reference { .. } => {
                "unset the environment variable SIMMER_REFERENCE: it replaces fast kernels to find a fault in \
                 them"
            }
            Self::Kernels { .. } => {
                "unset the environment variable SIMMER_KERNELS: it switches kernels for NVIDIA GPUs on and off"
            }
            Self::NoSuchGpu { .. } => {
                "run `nvidia-smi` to list the GPUs; CUDA_VISIBLE_DEVICES hides and renumbers them"
            }
        };
        Some(hint.to_owned())
    }
}

/// What another program's name of a device, or a misspelt one, means here.
fn meant(found: &str) -> Option<String> {
    let plain = found.trim().to_lowercase();
    if let Some((first, rest)) = plain.split_once(',') {
        let names = std::iter::once(first).chain(rest.split(','));
        let names: Vec<String> = names.map(|name| format!("\"{}\"", name.trim())).collect();
        return Some(format!(
            "several devices are a list: [{}]",
            names.join(", ")
        ));
    }
    let (kind, index) = plain.split_once(':').unwrap_or((&plain, "0"));
    let gpus = [
        "cuda",
        "gpu",
        "nvidia",
        "torch-cuda",
        "libtorch-cuda",
        "libtorch_cuda",
    ];
    let index = if gpus.contains(&plain.as_str()) {
        "0"
    } else {
        index
    };
    if gpus.contains(&kind) {
        let name = match index.parse::<u8>() {
            Ok(index) => format!("libtorch-cuda:{index}"),
            Err(_) => "libtorch-cuda:0".to_owned(),
        };
        let here = match named(&name) {
            Ok(_) => "which this machine has".to_owned(),
            Err(DeviceError::NotBuilt { .. }) => {
                "but this build of simmer has no libtorch (docs/guide/gpu.md)".to_owned()
            }
            Err(DeviceError::NoCuda { .. }) => {
                "but this build has a libtorch without CUDA (docs/guide/gpu.md)".to_owned()
            }
            Err(DeviceError::NoSuchGpu { last, .. }) => {
                format!("but the last GPU of this machine is libtorch-cuda:{last}")
            }
            Err(_) => "but libtorch finds no NVIDIA GPU on this machine".to_owned(),
        };
        return Some(format!("the name is {name}, {here}"));
    }
    let others = [
        "mps", "metal", "rocm", "hip", "xpu", "tpu", "xla", "vulkan", "npu", "opencl",
    ];
    if others.contains(&kind) {
        return Some("use cpu, or an NVIDIA GPU: this version has no other devices".to_owned());
    }
    let names = ["auto", "cpu", "libtorch", "libtorch-cuda:0"];
    let near = simmer_checkpoint::nearest(&plain, names.into_iter());
    near.map(|near| format!("did you mean {near}?"))
}

fn error(name: &str) -> impl FnOnce(Unavailable) -> DeviceError {
    let found = name.to_owned();
    move |why| match why {
        Unavailable::Unknown => DeviceError::Unknown { found },
        Unavailable::NotBuilt => DeviceError::NotBuilt { found },
        Unavailable::NoCuda => DeviceError::NoCuda { found },
        Unavailable::NoGpu => DeviceError::NoGpu { found },
        Unavailable::NoSuchGpu { last } => DeviceError::NoSuchGpu { found, last },
    }
}

/// Checks that a name is that of a device, of any build and any machine.
///
/// # Errors
/// If it is not.
pub fn check(name: &str) -> Result<(), DeviceError> {
    capabilities(name).map(|_| ())
}

/// The device with a name.
///
/// # Errors
/// If the name is unknown, if this build or this machine does not have the device, or if the environment
/// variable `SIMMER_REFERENCE` or `SIMMER_KERNELS` has an unknown name.
pub fn named(name: &str) -> Result<Device, DeviceError> {
    from_environment().map_err(|found| DeviceError::Reference { found })?;
    optional_kernels().map_err(|found| DeviceError::Kernels { found })?;
    simmer_kernels::open(name).map_err(error(name))
}

/// What the device with a name can do, whether or not this build and this machine have it. `auto` is the best
/// device of this machine.
///
/// # Errors
/// If the name is unknown.
pub fn capabilities(name: &str) -> Result<Capabilities, DeviceError> {
    Capabilities::named(name).map_err(error(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_build_has_the_cpu() {
        named("cpu").unwrap();
        named("auto").unwrap();
    }

    #[test]
    fn messages() {
        let message = |error: DeviceError| match error.hint() {
            Some(hint) => format!("{error}\nhint: {hint}"),
            None => error.to_string(),
        };
        let found = || "libtorch-cuda:3".to_owned();
        // its hint says what this build has
        insta::assert_snapshot!(check("gpu").unwrap_err(), @"unknown device `gpu`: expected auto, cpu, libtorch or libtorch-cuda:N (N from 0)");
        insta::assert_snapshot!(message(DeviceError::NotBuilt { found: found() }), @"
        device libtorch-cuda:3: this build of simmer has no libtorch
        hint: set up libtorch with tools/libtorch, then build with --features libtorch (docs/guide/gpu.md), or use the device `cpu`
        ");
        insta::assert_snapshot!(message(DeviceError::NoCuda { found: found() }), @"
        device libtorch-cuda:3: simmer was built with a libtorch without CUDA
        hint: set up libtorch with tools/libtorch without --cpu, and build again (docs/guide/gpu.md)
        ");
        insta::assert_snapshot!(message(DeviceError::NoGpu { found: found() }), @"
        device libtorch-cuda:3: libtorch finds no NVIDIA GPU on this machine
        hint: run `nvidia-smi` to see whether the driver works and is new enough for this libtorch's CUDA; check that CUDA_VISIBLE_DEVICES does not hide the GPU
        ");
        insta::assert_snapshot!(message(DeviceError::Reference { found: "atention".to_owned() }), @"
        SIMMER_REFERENCE: unknown operation `atention`: expected all, or a list of linear, low_rank, attention, linear_cross_entropy, rms_norm, rope, gated
        hint: unset the environment variable SIMMER_REFERENCE: it replaces fast kernels to find a fault in them
        ");
        insta::assert_snapshot!(message(DeviceError::Kernels { found: "cudnn".to_owned() }), @"
        SIMMER_KERNELS: unknown kernel `cudnn`: expected all, or a list of cudnn_attention, rope, gated, rms_norm, sum_rows, cross_entropy, decoding_graph, decode_attention, quantise_rows, fp8_fast_sums; - before a name switches a kernel off
        hint: unset the environment variable SIMMER_KERNELS: it switches kernels for NVIDIA GPUs on and off
        ");
        insta::assert_snapshot!(message(DeviceError::NoSuchGpu { found: found(), last: 1 }), @"
        device libtorch-cuda:3: the last GPU of this machine is libtorch-cuda:1
        hint: run `nvidia-smi` to list the GPUs; CUDA_VISIBLE_DEVICES hides and renumbers them
        ");
    }

    #[cfg(not(feature = "libtorch"))]
    #[test]
    fn this_build_has_no_libtorch() {
        for name in ["libtorch", "libtorch-cuda:0"] {
            let found = name.to_owned();
            assert_eq!(named(name).unwrap_err(), DeviceError::NotBuilt { found });
        }
    }

    #[cfg(feature = "libtorch")]
    #[test]
    fn a_missing_gpu_is_an_error() {
        named("libtorch").unwrap();
        let error = named("libtorch-cuda:255").unwrap_err();
        assert!(!matches!(error, DeviceError::NotBuilt { .. }), "{error}");
    }
}
