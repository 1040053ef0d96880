//! The types of ggml. That they are widened as the Python package gguf does is tested where GGUF files are read.

use super::golden::Golden;
use crate::ggml::BlockType;
use crate::{Encoding, Quantised};

#[test]
fn blocks_are_those_of_ggml() {
    let golden = Golden::read();
    let (source, shape) = (golden.f32("source"), golden.shape("source"));
    for kind in BlockType::ALL {
        let matrix = Quantised::encode(Encoding::Blocks(kind), shape, &source).unwrap();
        let expected = golden.bytes(&format!("ggml.{}", kind.name()));
        let rows = expected.chunks(kind.row_bytes(shape[1]));
        let found = matrix.codes().chunks(kind.row_bytes(shape[1]));
        for (row, (found, expected)) in found.zip(rows).enumerate() {
            assert_eq!(found, expected, "row {row}, {}", kind.name());
        }
    }
}
