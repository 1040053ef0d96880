//! Where a model computes.
//!
//! | name | is | needs |
//! |---|---|---|
//! | `cpu` | the processor, with our own kernels | nothing |
//! | `libtorch` | the processor, with libtorch's | a build with the feature `libtorch` |
//! | `libtorch-cuda:N` | the Nth NVIDIA GPU, from 0 | the same, and a driver |
//! | `auto` | `libtorch-cuda:0` where build and machine have it, else `cpu` | nothing |

use burn::tensor::Device;
use simmer_hint::Hint;

/// A device that there is not.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DeviceError {
    /// No device has that name.
    #[error("device {found}: there are auto, cpu, libtorch and libtorch-cuda:N (N from 0)")]
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
    /// The libtorch of this build computes on processors alone.
    #[error("device {found}: the libtorch that simmer was built with has no CUDA")]
    NoCuda {
        /// As given.
        found: String,
    },
    /// libtorch sees no GPU.
    #[error("device {found}: libtorch finds no NVIDIA GPU on this machine")]
    NoGpu {
        /// As given.
        found: String,
    },
    /// There are GPUs, but not that one.
    #[error("device {found}: the last GPU of this machine is libtorch-cuda:{last}")]
    NoSuchGpu {
        /// As given.
        found: String,
        /// Index of the last one.
        last: usize,
    },
}

impl Hint for DeviceError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unknown { .. } => return None,
            Self::NotBuilt { .. } => {
                "set libtorch up with tools/libtorch, then build with --features libtorch \
                 (docs/guide/gpu.md); `cpu` needs neither"
            }
            Self::NoCuda { .. } => {
                "set libtorch up with tools/libtorch without --cpu, and build again \
                 (docs/guide/gpu.md)"
            }
            Self::NoGpu { .. } => {
                "`nvidia-smi` shows whether the driver works and is new enough for this libtorch's \
                 CUDA; CUDA_VISIBLE_DEVICES hides GPUs"
            }
            Self::NoSuchGpu { .. } => {
                "`nvidia-smi` lists the GPUs; CUDA_VISIBLE_DEVICES hides and renumbers them"
            }
        };
        Some(hint.to_owned())
    }
}

/// What a device's name asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Auto,
    Cpu,
    LibTorch,
    Cuda(usize),
}

fn parse(name: &str) -> Result<Wanted, DeviceError> {
    let gpu = name.strip_prefix("libtorch-cuda:");
    match (name, gpu.and_then(|index| index.parse::<u8>().ok())) {
        ("auto", _) => Ok(Wanted::Auto),
        ("cpu", _) => Ok(Wanted::Cpu),
        ("libtorch", _) => Ok(Wanted::LibTorch),
        (_, Some(index)) => Ok(Wanted::Cuda(index.into())),
        _ => Err(DeviceError::Unknown {
            found: name.to_owned(),
        }),
    }
}

/// Whether there is a device of that name, on some machine, in some build.
///
/// # Errors
/// Where there is none.
pub fn check(name: &str) -> Result<(), DeviceError> {
    parse(name).map(|_| ())
}

/// The device of that name.
///
/// # Errors
/// Where there is none, and where this build or this machine lacks it.
pub fn named(name: &str) -> Result<Device, DeviceError> {
    match parse(name)? {
        Wanted::Cpu => Ok(Device::flex()),
        Wanted::Auto => Ok(best()),
        wanted => of_libtorch(wanted, name),
    }
}

/// The name of the device that a name stands for here: what `auto` is.
pub fn resolved(name: &str) -> &str {
    match parse(name) {
        Ok(Wanted::Auto) if best() == Device::flex() => "cpu",
        Ok(Wanted::Auto) => "libtorch-cuda:0",
        _ => name,
    }
}

/// The number of the GPU that a name stands for here; `None` of processors, and of GPUs that are not here.
pub fn gpu(name: &str) -> Option<usize> {
    match parse(resolved(name)) {
        Ok(Wanted::Cuda(index)) => named(name).is_ok().then_some(index),
        _ => None,
    }
}

#[cfg(not(feature = "libtorch"))]
fn best() -> Device {
    Device::flex()
}

#[cfg(not(feature = "libtorch"))]
fn of_libtorch(_: Wanted, name: &str) -> Result<Device, DeviceError> {
    Err(DeviceError::NotBuilt {
        found: name.to_owned(),
    })
}

#[cfg(feature = "libtorch")]
fn best() -> Device {
    match simmer_kernels::libtorch::gpus() {
        Some(1..) => simmer_kernels::libtorch::gpu(0),
        _ => Device::flex(),
    }
}

#[cfg(feature = "libtorch")]
fn of_libtorch(wanted: Wanted, name: &str) -> Result<Device, DeviceError> {
    use simmer_kernels::libtorch;

    let Wanted::Cuda(index) = wanted else {
        return Ok(libtorch::cpu());
    };
    let found = name.to_owned();
    match libtorch::gpus() {
        None => Err(DeviceError::NoCuda { found }),
        Some(0) => Err(DeviceError::NoGpu { found }),
        Some(count) if index >= count => {
            let last = count - 1;
            Err(DeviceError::NoSuchGpu { found, last })
        }
        Some(_) => Ok(libtorch::gpu(index)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, wanted) in [
            ("auto", Wanted::Auto),
            ("cpu", Wanted::Cpu),
            ("libtorch", Wanted::LibTorch),
            ("libtorch-cuda:0", Wanted::Cuda(0)),
            ("libtorch-cuda:12", Wanted::Cuda(12)),
        ] {
            assert_eq!(parse(name), Ok(wanted));
        }
        for name in [
            "",
            "cuda:0",
            "libtorch-cuda",
            "libtorch-cuda:",
            "libtorch-cuda:-1",
            "CPU",
        ] {
            parse(name).unwrap_err();
        }
    }

    #[test]
    fn which_gpu() {
        assert_eq!(["cpu", "libtorch", "cuda"].map(gpu), [None; 3]);
        assert_eq!(gpu("libtorch-cuda:255"), None); // more than any machine has
    }

    #[test]
    fn every_build_has_the_processor() {
        named("cpu").unwrap();
        named("auto").unwrap();
    }

    #[test]
    fn messages() {
        let said = |error: DeviceError| match error.hint() {
            Some(hint) => format!("{error}\nhint: {hint}"),
            None => error.to_string(),
        };
        let found = || "libtorch-cuda:3".to_owned();
        insta::assert_snapshot!(said(check("gpu").unwrap_err()), @"device gpu: there are auto, cpu, libtorch and libtorch-cuda:N (N from 0)");
        insta::assert_snapshot!(said(DeviceError::NotBuilt { found: found() }), @"
        device libtorch-cuda:3: this build of simmer has no libtorch
        hint: set libtorch up with tools/libtorch, then build with --features libtorch (docs/guide/gpu.md); `cpu` needs neither
        ");
        insta::assert_snapshot!(said(DeviceError::NoCuda { found: found() }), @"
        device libtorch-cuda:3: the libtorch that simmer was built with has no CUDA
        hint: set libtorch up with tools/libtorch without --cpu, and build again (docs/guide/gpu.md)
        ");
        insta::assert_snapshot!(said(DeviceError::NoGpu { found: found() }), @"
        device libtorch-cuda:3: libtorch finds no NVIDIA GPU on this machine
        hint: `nvidia-smi` shows whether the driver works and is new enough for this libtorch's CUDA; CUDA_VISIBLE_DEVICES hides GPUs
        ");
        insta::assert_snapshot!(said(DeviceError::NoSuchGpu { found: found(), last: 1 }), @"
        device libtorch-cuda:3: the last GPU of this machine is libtorch-cuda:1
        hint: `nvidia-smi` lists the GPUs; CUDA_VISIBLE_DEVICES hides and renumbers them
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
    fn a_gpu_that_there_is_not() {
        named("libtorch").unwrap();
        let error = named("libtorch-cuda:255").unwrap_err();
        assert!(!matches!(error, DeviceError::NotBuilt { .. }), "{error}");
    }
}
