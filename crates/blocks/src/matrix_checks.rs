//! Checks of the parts of a matrix.

use crate::BlocksError;

/// Checks the length of a part.
pub(crate) fn length(
    part: &'static str,
    shape: [usize; 2],
    expected: usize,
    found: usize,
) -> Result<(), BlocksError> {
    if expected == found {
        return Ok(());
    }
    Err(BlocksError::Length {
        part,
        shape,
        expected,
        found,
    })
}

/// Checks that scales are finite.
pub(crate) fn finite(part: &'static str, values: &[f32]) -> Result<(), BlocksError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(BlocksError::NotFinite {
            part,
            index,
            value: values[index],
        }),
    }
}
