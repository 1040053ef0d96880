//! The tensors of a folder while the parts of quantised weights are joined.

use std::path::{Path, PathBuf};

use simmer_blocks::BlocksError;

use super::Scales;
use super::scales::Numbers;
use crate::checkpoint::Checkpoint;
use crate::stored::{Piece, Stored};
use crate::{CheckpointError, Dtype, TensorInfo};

/// A checkpoint whose parts are taken out, and put back as quantised weights.
pub(super) struct Parts {
    pub(super) checkpoint: Checkpoint,
}

/// A stored tensor with its piece.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) info: TensorInfo,
    pub(super) piece: Piece,
    pub(super) file: PathBuf,
}

impl Parts {
    pub(super) fn of(checkpoint: Checkpoint) -> Self {
        Self { checkpoint }
    }

    /// The names of all tensors with a condition, sorted.
    pub(super) fn names(&self, is_so: impl Fn(&str, &TensorInfo) -> bool) -> Vec<String> {
        let tensors = self.checkpoint.tensors.iter();
        tensors
            .filter(|(name, stored)| stored.scales.is_none() && is_so(name, &stored.info))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Takes a tensor out, if it exists.
    pub(super) fn take(&mut self, name: &str) -> Option<Part> {
        let stored = self.checkpoint.tensors.remove(name)?;
        let piece = stored.pieces.into_iter().next()?;
        Some(Part {
            name: name.to_owned(),
            file: self.checkpoint.files[piece.file].path().to_owned(),
            info: stored.info,
            piece,
        })
    }

    /// Takes a part of a weight out.
    ///
    /// # Errors
    /// If it does not exist.
    pub(super) fn part_of(&mut self, codes: &Part, end: &str) -> Result<Part, CheckpointError> {
        let name = format!("{}{end}", codes.name);
        self.take(&name)
            .ok_or_else(|| codes.wrong(&format!("a tensor `{name}` beside it"), "none".to_owned()))
    }

    /// The file of a tensor; the folder, if the tensor does not exist.
    pub(super) fn file_of(&self, name: &str) -> PathBuf {
        let stored = self.checkpoint.tensors.get(name);
        let piece = stored.and_then(|stored| stored.pieces.first());
        let file = piece.map(|piece| self.checkpoint.files[piece.file].path());
        file.unwrap_or(&self.checkpoint.path).to_owned()
    }

    /// The bytes of a part.
    pub(super) fn bytes(&self, part: &Part) -> &[u8] {
        &self.checkpoint.files[part.piece.file][part.piece.range.clone()]
    }

    /// Puts a quantised weight back.
    pub(super) fn put(&mut self, codes: Part, shape: Vec<usize>, scales: Scales) {
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape,
        };
        let Piece { file, range } = codes.piece;
        let stored = Stored {
            scales: Some(scales.into()),
            ..Stored::plain(info, file, range)
        };
        self.checkpoint.tensors.insert(codes.name, stored);
    }
}

impl Part {
    /// It has this number of elements.
    ///
    /// # Errors
    /// If not.
    pub(super) fn has_length(
        &self,
        part: &'static str,
        shape: [usize; 2],
        expected: usize,
    ) -> Result<(), CheckpointError> {
        let found = self.info.shape.iter().product();
        if found == expected {
            return Ok(());
        }
        Err(self.wrong_parts(BlocksError::Length {
            part,
            shape,
            expected,
            found,
        }))
    }

    /// The parts do not make up a matrix.
    pub(super) fn wrong_parts(&self, source: BlocksError) -> CheckpointError {
        CheckpointError::Quantised {
            file: self.file.clone(),
            tensor: self.name.clone(),
            source: Box::new(source),
        }
    }

    /// Its numbers.
    ///
    /// # Errors
    /// If they are not in f32, bf16 or f16.
    pub(super) fn numbers(self) -> Result<Numbers, CheckpointError> {
        if !matches!(self.info.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) {
            let found = format!("{} {:?}", self.info.dtype, self.info.shape);
            return Err(self.wrong("scales in F32, BF16 or F16", found));
        }
        Ok(Numbers {
            piece: self.piece,
            info: self.info,
        })
    }

    /// An error about it.
    pub(super) fn wrong(&self, expected: &str, found: String) -> CheckpointError {
        wrong(&self.file, &self.name, expected, found)
    }
}

/// An error about a tensor.
pub(super) fn wrong(file: &Path, tensor: &str, expected: &str, found: String) -> CheckpointError {
    CheckpointError::QuantisedPart {
        file: file.to_owned(),
        tensor: tensor.to_owned(),
        expected: expected.to_owned(),
        found,
    }
}
