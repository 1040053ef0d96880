//! Meta's layout: `params.json`, `consolidated.00.pth` and the other parts of the model.
//!
//! A part is the shard of one rank of tensor parallelism: some rows or columns of each matrix, and the whole of each norm.
//! The rows of query and key heads are in the order of rotary pairs `(2i, 2i + 1)`; Hugging Face has halves
//! `(i, i + half)`.

mod error;
mod layout;
mod open;
mod params;
#[cfg(test)]
mod tests;
mod write;

pub use crate::family::Split;
pub use error::MetaError;
pub use open::open;
pub use params::Params;
pub use write::{MetaOptions, MetaWriter};

/// The configuration file.
pub const PARAMS_FILE: &str = "params.json";

impl Split {
    /// The dimension that is split.
    fn dimension(self) -> Option<usize> {
        match self {
            Self::Rows => Some(0),
            Self::Columns => Some(1),
            Self::Whole => None,
        }
    }
}

/// The file name of a part, counted from 0.
pub(crate) fn shard_file(shard: usize) -> String {
    format!("consolidated.{shard:02}.pth")
}
