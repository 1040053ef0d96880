//! The weights of a model under Hugging Face's names and in Hugging Face's layout, whatever the format of the files.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use simmer_blocks::{BlocksError, Quantised};

use crate::hugging_face::{self, Shard, plan_shards};
use crate::mapped::Mapped;
use crate::stored::Stored;
use crate::{
    CheckpointError, MAX_SHARD_BYTES, ModelConfig, Tensor, TensorInfo, TensorSpec,
    is_rotary_buffer, layout, nearest,
};

/// The file layouts of LLaMA-family models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A folder of `config.json` and safetensors files.
    HuggingFace,
    /// A folder of `params.json` and `consolidated.NN.pth` files.
    Meta,
    /// One `.gguf` file.
    Gguf,
}

/// The opened weights of a model: all files are mapped, their headers are checked, and the files agree.
#[derive(Clone)]
pub struct Checkpoint {
    pub(crate) path: PathBuf,
    pub(crate) layout: Layout,
    pub(crate) files: Vec<Mapped>,
    /// Includes rotary buffers.
    pub(crate) tensors: BTreeMap<String, Stored>,
    pub(crate) shards: Vec<Shard>,
}

impl Checkpoint {
    /// Opens the weights of a Hugging Face folder without its configuration.
    /// [`Pretrained::open`](crate::Pretrained::open) compares them with the configuration and reads the other layouts
    /// too.
    ///
    /// # Errors
    ///
    /// Missing or damaged files, and an index that contradicts the files; see [`CheckpointError`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        hugging_face::open(folder.as_ref())
    }

    /// Weights from files of another layout. [`Self::shards`] plans the usual files of a Hugging Face folder for them.
    pub(crate) fn of(
        path: &Path,
        layout: Layout,
        files: Vec<Mapped>,
        tensors: BTreeMap<String, Stored>,
        config: &ModelConfig,
    ) -> Self {
        let specs = layout::tensors(config).into_iter().filter_map(|tensor| {
            Some(TensorSpec {
                dtype: tensors.get(&tensor.name)?.info.dtype,
                name: tensor.name,
                shape: tensor.shape,
            })
        });
        Self {
            path: path.into(),
            layout,
            files,
            shards: plan_shards(specs.collect(), MAX_SHARD_BYTES),
            tensors,
        }
    }

    /// The folder, or the `.gguf` file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The layout of the files.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Number of files.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Bytes of all files.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len() as u64).sum()
    }

    /// The weight files of this model as a Hugging Face folder, including rotary buffers. A Hugging Face folder keeps its
    /// own files.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The weights' keys, sorted, without the rotary tables of early conversions
    /// ([`Self::rotary_buffers`]).
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all_names().filter(|name| !is_rotary_buffer(name))
    }

    /// The weights with dtype and shape, by key.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors
            .iter()
            .filter(|(name, _)| !is_rotary_buffer(name))
            .map(|(name, stored)| (name.as_str(), &stored.info))
    }

    /// Number of rotary tables of an early conversion ([`is_rotary_buffer`]) that were skipped.
    pub fn rotary_buffers(&self) -> usize {
        self.all_names()
            .filter(|name| is_rotary_buffer(name))
            .count()
    }

    /// All keys in the files, including rotary tables, sorted.
    pub fn all_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether a tensor of this name exists.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Bytes of all weights after reading: quantised weights count as f32.
    pub fn total_bytes(&self) -> u64 {
        self.names()
            .filter_map(|name| Some(self.tensors.get(name)?.len() as u64))
            .sum()
    }

    /// The stored types of the weights: `BF16`, `Q4_K`.
    pub fn encodings(&self) -> impl Iterator<Item = &str> {
        let weights = self
            .tensors
            .iter()
            .filter(|(name, _)| !is_rotary_buffer(name));
        weights.map(|(_, stored)| stored.encoding())
    }

    /// The stored type of a tensor: `BF16`, `Q4_K`.
    ///
    /// # Errors
    ///
    /// If no such tensor exists; the message names the most similar one.
    pub fn encoding(&self, name: &str) -> Result<&str, CheckpointError> {
        Ok(self.stored(name)?.encoding())
    }

    /// The quantised type that a tensor is stored in, such as `nf4` or `Q4_K`; `None` for floats. Reads no scales.
    ///
    /// # Errors
    ///
    /// If no such tensor exists; the message names the most similar one.
    pub fn quantised_type(&self, name: &str) -> Result<Option<&'static str>, CheckpointError> {
        Ok(self.stored(name)?.quantised_type())
    }

    /// The quantised type that most of the quantised weights are stored in, and the key of the first of these.
    pub fn most_quantised(&self) -> Option<(&str, &'static str)> {
        let quantised = || {
            let weights = self.tensors.iter();
            weights.filter_map(|(name, stored)| Some((name.as_str(), stored.quantised_type()?)))
        };
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for (_, kind) in quantised() {
            match counts.iter_mut().find(|(counted, _)| *counted == kind) {
                Some((_, count)) => *count += 1,
                None => counts.push((kind, 1)),
            }
        }
        // of as many, the first one
        let (most, _) = counts.iter().rev().max_by_key(|(_, count)| *count)?;
        quantised().find(|(_, kind)| kind == most)
    }

    /// Bytes of a tensor in the files, scales included.
    ///
    /// # Errors
    ///
    /// If no such tensor exists; the message names the most similar one.
    pub fn stored_bytes(&self, name: &str) -> Result<u64, CheckpointError> {
        Ok(self.stored(name)?.stored_bytes())
    }

    /// A quantised matrix as it lies in the mapped file: its codes share the pages of the file.
    ///
    /// `None`: the tensor is not quantised, is a vector, or is stored in several pieces. [`Self::tensor`] and
    /// [`Self::rows`] widen every tensor to f32.
    ///
    /// # Errors
    ///
    /// If no such tensor exists (the message names the most similar one), its file has changed, or its parts do not make up
    /// a matrix, such as a scale that is NaN.
    pub fn quantised(&self, name: &str) -> Result<Option<Quantised>, CheckpointError> {
        let stored = self.stored(name)?;
        self.check_pieces(stored)?;
        stored
            .quantised(&self.files)
            .map_err(|source| self.wrong_parts(name, stored, source))
    }

    /// Bytes that the matrix of [`Self::quantised`] takes in memory, and how many of them are pages of the file. Reads only
    /// the headers of the files. `None`: it returns no matrix.
    ///
    /// # Errors
    ///
    /// If no such tensor exists; the message names the most similar one.
    pub fn quantised_bytes(&self, name: &str) -> Result<Option<[u64; 2]>, CheckpointError> {
        Ok(self.stored(name)?.quantised_bytes())
    }

    /// Checks the scales and codes of a quantised matrix, which [`Self::quantised`] does not read.
    ///
    /// # Errors
    ///
    /// If a scale inside the codes is NaN or infinite, or a code is NaN; if no such tensor exists.
    pub fn check_codes(&self, name: &str, matrix: &Quantised) -> Result<(), CheckpointError> {
        let stored = self.stored(name)?;
        let checked = matrix.check_codes();
        checked.map_err(|source| self.wrong_parts(name, stored, source))
    }

    fn wrong_parts(&self, name: &str, stored: &Stored, source: BlocksError) -> CheckpointError {
        let file = stored.pieces.first().map(|piece| &self.files[piece.file]);
        CheckpointError::Quantised {
            file: file.map_or(&*self.path, Mapped::path).to_owned(),
            tensor: name.to_owned(),
            source: Box::new(source),
        }
    }

    /// Dtype and shape of a tensor.
    ///
    /// # Errors
    ///
    /// If no such tensor exists; the message names the most similar one.
    pub fn info(&self, name: &str) -> Result<&TensorInfo, CheckpointError> {
        Ok(&self.stored(name)?.info)
    }

    /// Checks by length and modification time that the files have not changed since they were opened. Weights are read
    /// from mapped files, so another program's changes would be visible.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Changed`], which names the file.
    pub fn check_unchanged(&self) -> Result<(), CheckpointError> {
        self.files.iter().try_for_each(Mapped::check_unchanged)
    }

    fn check_pieces(&self, stored: &Stored) -> Result<(), CheckpointError> {
        let mut pieces = stored.all_pieces();
        pieces.try_for_each(|piece| self.files[piece.file].check_unchanged())
    }

    /// A tensor. It shares the pages of the file if the file stores it in this form; otherwise its rows are joined,
    /// reordered or dequantised in new memory.
    ///
    /// # Errors
    ///
    /// If no such tensor exists (the message names the most similar one), its file has changed, or the scales of a quantised
    /// tensor are not finite.
    pub fn tensor(&self, name: &str) -> Result<Tensor, CheckpointError> {
        let stored = self.stored(name)?;
        self.check_pieces(stored)?;
        Ok(Tensor {
            dtype: stored.info.dtype,
            shape: stored.info.shape.clone(),
            bytes: stored
                .read(&self.files)
                .map_err(|source| self.wrong_parts(name, stored, source))?,
        })
    }

    /// Some rows of a tensor, row-major, little endian, for conversion in blocks without memory for the whole tensor. A row
    /// is everything at one index of the outermost dimension.
    ///
    /// # Errors
    ///
    /// If no such tensor exists (the message names the most similar one), its file has changed, or the scales of a quantised
    /// tensor are not finite.
    ///
    /// # Panics
    ///
    /// If the tensor does not have these rows.
    pub fn rows(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>, CheckpointError> {
        let stored = self.stored(name)?;
        self.check_pieces(stored)?;
        stored
            .read_rows(&self.files, rows)
            .map_err(|source| self.wrong_parts(name, stored, source))
    }

    /// Reads all files into memory sequentially, at the speed of the disk; page faults during the first forward pass would
    /// be slower. `progress` receives the number of bytes read.
    pub fn read_ahead(&self, mut progress: impl FnMut(u64)) {
        for file in &self.files {
            file.read_ahead(&mut progress);
        }
    }

    /// Releases the pages of some rows; reading them again reads the file again.
    pub fn release(&self, name: &str, rows: Range<usize>) {
        if let Ok(stored) = self.stored(name) {
            stored.release(&self.files, rows);
        }
    }

    pub(crate) fn stored(&self, name: &str) -> Result<&Stored, CheckpointError> {
        let stored = self.tensors.get(name);
        stored.ok_or_else(|| CheckpointError::TensorNotFound {
            path: self.path.clone(),
            tensor: name.to_owned(),
            nearest: nearest(name, self.all_names()),
        })
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("path", &self.path)
            .field("layout", &self.layout)
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}
