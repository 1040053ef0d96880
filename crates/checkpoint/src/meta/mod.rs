//! Meta's layout: `params.json` beside `consolidated.00.pth` and the other parts of the model.
//!
//! A part holds what one of the processors of a machine computed with: some rows, or some columns,
//! of each matrix, and all of each norm. The rows of query and key heads lie in the order of
//! rotary pairs `(2i, 2i + 1)`, where Hugging Face has halves `(i, i + half)`.

mod error;
mod layout;
mod open;
mod params;
#[cfg(test)]
mod tests;
mod write;

pub use error::MetaError;
pub use open::open;
pub use params::Params;
pub use write::{MetaOptions, MetaWriter};

/// The file of a model's shape.
pub const PARAMS_FILE: &str = "params.json";

/// How the parts of a model have a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Each has some of the rows.
    Rows,
    /// Each has some of the columns.
    Columns,
    /// Each has all of it.
    Whole,
}

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

/// The file of a part, counted from 0.
pub(crate) fn shard_file(shard: usize) -> String {
    format!("consolidated.{shard:02}.pth")
}
