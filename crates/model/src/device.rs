//! Where a model computes.

use burn::tensor::Device;

/// A device that this build does not have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("device {found}: this build has auto and cpu")]
pub struct DeviceError {
    /// As given.
    pub found: String,
}

/// The device of that name: `cpu`, or `auto` for the best one of this build and machine.
///
/// # Errors
/// Where the build has no such device.
pub fn named(name: &str) -> Result<Device, DeviceError> {
    match name {
        "auto" | "cpu" => Ok(Device::flex()),
        _ => Err(DeviceError {
            found: name.to_owned(),
        }),
    }
}
