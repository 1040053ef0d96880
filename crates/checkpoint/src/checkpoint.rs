//! The weights of a model, by Hugging Face's names and in its form, whatever the files are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::hugging_face::{self, Shard, plan_shards};
use crate::mapped::Mapped;
use crate::stored::Stored;
use crate::{
    CheckpointError, MAX_SHARD_BYTES, ModelConfig, Tensor, TensorInfo, TensorSpec,
    is_rotary_buffer, layout, nearest,
};

/// The forms in which LLaMA-family models are passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A folder of `config.json` and safetensors files.
    HuggingFace,
    /// A folder of `params.json` and `consolidated.NN.pth` files.
    Meta,
    /// One `.gguf` file.
    Gguf,
}

/// Open weights: every file mapped, every header checked, and the files in agreement.
#[derive(Clone)]
pub struct Checkpoint {
    pub(crate) path: PathBuf,
    pub(crate) layout: Layout,
    pub(crate) files: Vec<Mapped>,
    /// Rotary buffers included.
    pub(crate) tensors: BTreeMap<String, Stored>,
    pub(crate) shards: Vec<Shard>,
}

impl Checkpoint {
    /// Opens the weights of a Hugging Face folder, whatever model they make:
    /// [`Pretrained::open`](crate::Pretrained::open) holds them against their configuration and
    /// takes the other layouts too.
    ///
    /// # Errors
    ///
    /// Missing or damaged files, and an index that its files do not agree with; see
    /// [`CheckpointError`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        hugging_face::open(folder.as_ref())
    }

    /// Weights that lie in files of another layout; a Hugging Face folder of them has the usual
    /// files.
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

    /// What the files are.
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

    /// The files that a Hugging Face folder of this has, rotary buffers included: its own where it
    /// is one.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The weights' keys, sorted. Rotary tables of early conversions are not among them, see
    /// [`Self::rotary_buffers`].
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all_names().filter(|name| !is_rotary_buffer(name))
    }

    /// The weights with number type and shape, by key.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors
            .iter()
            .filter(|(name, _)| !is_rotary_buffer(name))
            .map(|(name, stored)| (name.as_str(), &stored.info))
    }

    /// How many rotary tables of an early conversion ([`is_rotary_buffer`]) were left out.
    pub fn rotary_buffers(&self) -> usize {
        self.all_names()
            .filter(|name| is_rotary_buffer(name))
            .count()
    }

    /// Every key in the files, rotary tables too, sorted.
    pub fn all_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Bytes of all weights as they are read: blocks of few bits count as the f32 they widen to.
    pub fn total_bytes(&self) -> u64 {
        self.names()
            .filter_map(|name| Some(self.tensors.get(name)?.len() as u64))
            .sum()
    }

    /// How the weights are stored: `BF16`, `Q4_K`.
    pub fn encodings(&self) -> impl Iterator<Item = &str> {
        let weights = self
            .tensors
            .iter()
            .filter(|(name, _)| !is_rotary_buffer(name));
        weights.map(|(_, stored)| stored.encoding())
    }

    /// Number type and shape of a tensor.
    ///
    /// # Errors
    ///
    /// When there is no such tensor; the message names the nearest.
    pub fn info(&self, name: &str) -> Result<&TensorInfo, CheckpointError> {
        Ok(&self.stored(name)?.info)
    }

    /// Whether the files are still what they were when they were opened, by their lengths and times. Weights are read
    /// from the files' own pages: what another program writes there is seen.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Changed`], which names the file.
    pub fn check_unchanged(&self) -> Result<(), CheckpointError> {
        self.files.iter().try_for_each(Mapped::check_unchanged)
    }

    fn check_pieces(&self, stored: &Stored) -> Result<(), CheckpointError> {
        let mut pieces = stored.pieces.iter();
        pieces.try_for_each(|piece| self.files[piece.file].check_unchanged())
    }

    /// A tensor. Where the file has it as it is wanted, the file's pages are shared; else its rows
    /// are put together, or widened, in memory of their own.
    ///
    /// # Errors
    ///
    /// When there is no such tensor (the message names the nearest), or its file was changed.
    pub fn tensor(&self, name: &str) -> Result<Tensor, CheckpointError> {
        let stored = self.stored(name)?;
        self.check_pieces(stored)?;
        Ok(Tensor {
            dtype: stored.info.dtype,
            shape: stored.info.shape.clone(),
            bytes: stored.read(&self.files),
        })
    }

    /// Some rows of a tensor, row-major, little endian: what is converted block by block needs no
    /// memory for the whole. A row is all that belongs to one place of the outermost dimension.
    ///
    /// # Errors
    ///
    /// When there is no such tensor (the message names the nearest), or its file was changed.
    ///
    /// # Panics
    ///
    /// When the tensor has no such rows.
    pub fn rows(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>, CheckpointError> {
        let stored = self.stored(name)?;
        self.check_pieces(stored)?;
        Ok(stored.read_rows(&self.files, rows))
    }

    /// Reads all files into memory, one after the other, as fast as the disk is: page by page as
    /// the first pass asks for them would be slower. `progress` is told the bytes as they come.
    pub fn read_ahead(&self, mut progress: impl FnMut(u64)) {
        for file in &self.files {
            file.read_ahead(&mut progress);
        }
    }

    /// Lets go of the pages of some rows; reading them again reads the file again.
    pub fn release(&self, name: &str, rows: Range<usize>) {
        if let Ok(stored) = self.stored(name) {
            stored.release(&self.files, rows);
        }
    }

    fn stored(&self, name: &str) -> Result<&Stored, CheckpointError> {
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
