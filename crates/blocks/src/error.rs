//! What can be wrong with a quantised matrix.

use thiserror::Error;

/// Parts that do not make up a quantised matrix.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum BlocksError {
    /// A part has the wrong length.
    #[error("{part}: expected {expected} for a matrix of {} x {}, found {found}", shape[0], shape[1])]
    Length {
        /// Name of the part, such as `absmax`.
        part: &'static str,
        /// Shape of the matrix.
        shape: [usize; 2],
        /// Elements or bytes that it should have.
        expected: usize,
        /// Elements or bytes that it has.
        found: usize,
    },
    /// Rows cannot be cut into whole blocks.
    #[error("rows of {columns} elements are not whole blocks of {block} ({kind})")]
    Rows {
        /// The type.
        kind: &'static str,
        /// Elements of a row.
        columns: usize,
        /// Elements of a block.
        block: usize,
    },
    /// A block of a length that the type does not have.
    #[error("{part}: a block of {found} elements; expected {expected}")]
    Block {
        /// Whose blocks.
        part: &'static str,
        /// The lengths that there are.
        expected: &'static str,
        /// The length.
        found: usize,
    },
    /// An element that cannot be quantised.
    #[error("element {index} is {value}, which {kind} cannot hold")]
    Element {
        /// The type.
        kind: &'static str,
        /// Index in the matrix, row after row.
        index: usize,
        /// The element.
        value: f32,
    },
    /// A code or the scale of a block is not a number or infinite.
    #[error(
        "stored row {row}, column {column}: {kind} with a scale or value that is NaN or infinite"
    )]
    Code {
        /// The type.
        kind: &'static str,
        /// Row, as stored.
        row: usize,
        /// First column of the block.
        column: usize,
    },
    /// A scale is NaN or infinite.
    #[error("{part}: value {index} is {value}")]
    NotFinite {
        /// Name of the part.
        part: &'static str,
        /// Index in the part.
        index: usize,
        /// The value.
        value: f32,
    },
}
