//! Writes Meta's layout: splits Hugging Face's tensors into the parts of a model.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use simmer_blocks::paired_row;
use simmer_files::{Existing, StagedFolder, WriteError};

use super::layout::{MetaTensor, head, tensors};
use super::{MetaError, PARAMS_FILE, Params, Split, shard_file};
use crate::pth::PthWriter;
use crate::{CheckpointError, Dtype, ModelConfig, TensorSpec, compare, nearest};

/// Bytes of a matrix that are split into columns at a time.
const CUT_BYTES: usize = 1 << 20;

/// How a model is split into parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetaOptions {
    /// Number of parts: 1, 2, 4 or 8.
    pub shards: usize,
    /// How the embedding is split: [`Split::Rows`] as in Llama 3, or [`Split::Columns`] as in earlier models. Irrelevant
    /// for one part.
    pub embedding: Split,
}

/// Writes a model in Meta's layout into a folder, atomically.
///
/// Tensors have Hugging Face's names and layout, and may be written in any order and in pieces of any size. Only one piece,
/// or one head of a query or key projection, is in memory at a time.
#[derive(Debug)]
pub struct MetaWriter {
    folder: StagedFolder,
    shards: Vec<(PathBuf, PthWriter<File>)>,
    sources: HashMap<String, Source>,
}

/// The state of one of Hugging Face's tensors during writing.
#[derive(Debug)]
struct Source {
    /// Bytes of a row.
    width: usize,
    len: usize,
    written: usize,
    /// Bytes that cannot be written yet: a part of a row, or of a head.
    pending: Vec<u8>,
    /// Number of parts.
    shards: usize,
    /// Its index in the files and how it is split; a tied embedding has two targets.
    targets: Vec<(usize, Split)>,
    /// Features of a head, if the rows of each head are written as rotary pairs.
    paired: Option<usize>,
}

impl MetaWriter {
    /// Starts a model with the given tensors ([`layout::tensors`](crate::layout::tensors)) in the folder `out`. A tied head
    /// is written as a copy of the embedding.
    ///
    /// # Errors
    /// If the layout cannot express the model, the model cannot be split into these parts, `specs` contradict `config`, or
    /// `out` is not empty; and errors of the operating system.
    pub fn create(
        out: impl AsRef<Path>,
        config: &ModelConfig,
        specs: &[TensorSpec],
        options: MetaOptions,
    ) -> Result<Self, MetaError> {
        config.check(out.as_ref())?;
        let params = Params::of(config)?;
        let planned = plan(out.as_ref(), config, specs, options)?;
        let folder = StagedFolder::new(out, Existing::Refuse)?;
        let text = format!("{:#}\n", params.to_json());
        folder.write(PARAMS_FILE, text.as_bytes())?;
        let mut shards = Vec::new();
        for shard in 0..options.shards {
            let file = shard_file(shard);
            let path = folder.out().join(&file);
            let parts = planned.iter().map(|(tensor, dtype)| TensorSpec {
                name: tensor.name.clone(),
                dtype: *dtype,
                shape: tensor.shard_shape(options.shards),
            });
            let root = file.trim_end_matches(".pth");
            let parts: Vec<TensorSpec> = parts.collect();
            let writer = File::create(folder.path().join(&file))
                .and_then(|file| PthWriter::new(file, root, &parts))
                .map_err(WriteError::io(&path, "write"))?;
            shards.push((path, writer));
        }
        let sources = sources(config, &planned, options.shards);
        Ok(Self {
            folder,
            shards,
            sources,
        })
    }

    /// Appends bytes to a tensor.
    ///
    /// # Errors
    /// If the tensor is not in the plan or gets too many bytes, and errors of the operating system, such as a full disk.
    pub fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let Some(source) = self.sources.get_mut(name) else {
            return Err(CheckpointError::TensorNotFound {
                path: self.folder.out().into(),
                tensor: name.to_owned(),
                nearest: nearest(name, self.sources.keys().map(String::as_str)),
            });
        };
        let left = source.len - source.written - source.pending.len();
        if bytes.len() > left {
            return Err(CheckpointError::WrongLength {
                path: self.folder.out().into(),
                tensor: name.to_owned(),
                expected: source.len as u64,
                found: (source.len - left + bytes.len()) as u64,
            });
        }
        let shards = &mut self.shards;
        source.append(bytes, &mut |shard, tensor, bytes| {
            let (path, writer) = &mut shards[shard];
            let written = writer.append(tensor, bytes);
            Ok(written.map_err(WriteError::io(path, "write"))?)
        })
    }

    /// The output folder, for files other than the weights.
    pub fn folder(&self) -> &StagedFolder {
        &self.folder
    }

    /// Checks that every tensor is complete, syncs everything to the disk and renames the folder to its final name.
    ///
    /// # Errors
    /// If a tensor is incomplete, and errors of the operating system.
    pub fn finish(self) -> Result<(), CheckpointError> {
        let short = self
            .sources
            .iter()
            .filter(|(_, source)| source.written != source.len);
        if let Some((name, source)) = short.min_by_key(|(name, _)| name.as_str()) {
            return Err(CheckpointError::WrongLength {
                path: self.folder.out().into(),
                tensor: name.clone(),
                expected: source.len as u64,
                found: (source.written + source.pending.len()) as u64,
            });
        }
        for (path, writer) in self.shards {
            writer.finish().map_err(WriteError::io(&path, "write"))?;
        }
        Ok(self.folder.commit()?)
    }
}

/// The tensors of the files with their dtypes, after checking that they can be written.
fn plan(
    out: &Path,
    config: &ModelConfig,
    specs: &[TensorSpec],
    options: MetaOptions,
) -> Result<Vec<(MetaTensor, Dtype)>, MetaError> {
    let shape = |tensor: (&str, &[usize])| (tensor.0.to_owned(), tensor.1.to_vec());
    let expected = crate::layout::tensors(config);
    let expected = expected
        .iter()
        .map(|tensor| shape((&tensor.name, &tensor.shape)));
    let found = specs
        .iter()
        .map(|tensor| shape((&tensor.name, &tensor.shape)));
    compare(&expected.collect(), &found.collect()).map_err(|difference| MetaError::Difference {
        folder: out.to_owned(),
        differences: vec![("the model".to_owned(), difference)],
    })?;
    let problems = undividable(config, options);
    if !problems.is_empty() {
        return Err(MetaError::Inexpressible { problems });
    }
    let dtypes: BTreeMap<&str, Dtype> = specs
        .iter()
        .map(|spec| (spec.name.as_str(), spec.dtype))
        .collect();
    let planned = tensors(config, options.embedding)
        .into_iter()
        .map(|tensor| {
            let name = source_name(config, &tensor);
            let dtype = dtypes.get(name.as_str()).copied();
            let dtype =
                dtype.filter(|dtype| matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32));
            let dtype = dtype.ok_or_else(|| MetaError::Dtype {
                folder: out.to_owned(),
                tensor: name.clone(),
                found: dtypes
                    .get(name.as_str())
                    .map_or_else(String::new, Dtype::to_string),
            })?;
            Ok((tensor, dtype))
        });
    planned.collect()
}

/// The Hugging Face tensor that one of Meta's tensors is made from.
fn source_name(config: &ModelConfig, tensor: &MetaTensor) -> String {
    if config.tie_word_embeddings && tensor.name == head() {
        config.family.embedding.weight()
    } else {
        tensor.hugging_face.clone()
    }
}

/// The sizes that are not divisible by the number of parts.
fn undividable(config: &ModelConfig, options: MetaOptions) -> Vec<String> {
    let shards = options.shards;
    if !matches!(shards, 1 | 2 | 4 | 8) || options.embedding == Split::Whole {
        return vec![format!("parts: expected 1, 2, 4 or 8, found {shards}")];
    }
    let sizes = [
        ("vocab_size", config.vocab_size),
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("num_attention_heads", config.num_attention_heads),
        ("num_key_value_heads", config.num_key_value_heads),
    ];
    sizes
        .into_iter()
        .filter(|(_, size)| !size.is_multiple_of(shards))
        .map(|(key, size)| {
            format!("`{key}`: expected a multiple of the {shards} parts, found {size}")
        })
        .collect()
}

fn sources(
    config: &ModelConfig,
    planned: &[(MetaTensor, Dtype)],
    shards: usize,
) -> HashMap<String, Source> {
    let mut sources: HashMap<String, Source> = HashMap::new();
    for (place, (tensor, dtype)) in planned.iter().enumerate() {
        let rows = tensor.shape[0];
        let width = tensor.shape[1..].iter().product::<usize>() * dtype.bitsize() / 8;
        let name = source_name(config, tensor);
        let source = sources.entry(name).or_insert_with(|| Source {
            width,
            len: rows * width,
            written: 0,
            pending: Vec::new(),
            shards,
            targets: Vec::new(),
            paired: tensor.paired,
        });
        source.targets.push((place, tensor.split));
    }
    sources
}

type Sink<'a> = &'a mut dyn FnMut(usize, usize, &[u8]) -> Result<(), CheckpointError>;

impl Source {
    /// Accepts bytes, and writes complete rows or heads.
    fn append(&mut self, mut bytes: &[u8], sink: Sink<'_>) -> Result<(), CheckpointError> {
        let unit = self.unit();
        if !self.pending.is_empty() {
            let taken = bytes.len().min(unit - self.pending.len());
            self.pending.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.pending.len() < unit {
                return Ok(());
            }
            let rows = std::mem::take(&mut self.pending);
            self.write(&rows, sink)?;
        }
        let (rows, rest) = bytes.split_at(bytes.len() - bytes.len() % unit);
        self.pending.extend_from_slice(rest);
        self.write(rows, sink)
    }

    /// Bytes that are written together: a row, or a head if its rows are reordered.
    fn unit(&self) -> usize {
        self.width * self.paired.unwrap_or(1)
    }

    /// Writes complete rows or heads.
    fn write(&mut self, rows: &[u8], sink: Sink<'_>) -> Result<(), CheckpointError> {
        let unit = self.unit();
        for rows in rows.chunks((CUT_BYTES / unit).max(1) * unit) {
            let pairs = self.paired.map(|head| self.pairs(rows, head));
            let rows = pairs.as_deref().unwrap_or(rows);
            for &(tensor, split) in &self.targets {
                match split {
                    Split::Whole => {
                        (0..self.shards).try_for_each(|shard| sink(shard, tensor, rows))?;
                    }
                    Split::Rows => self.write_rows(rows, tensor, sink)?,
                    Split::Columns => self.write_columns(rows, tensor, sink)?,
                }
            }
            self.written += rows.len();
        }
        Ok(())
    }

    /// Heads with their rows as rotary pairs.
    fn pairs(&self, rows: &[u8], head: usize) -> Vec<u8> {
        let mut pairs = vec![0; rows.len()];
        for (row, bytes) in rows.chunks_exact(self.width).enumerate() {
            let begin = paired_row(row, head) * self.width;
            pairs[begin..begin + self.width].copy_from_slice(bytes);
        }
        pairs
    }

    /// All parts have the same number of rows.
    fn write_rows(
        &self,
        mut rows: &[u8],
        tensor: usize,
        sink: Sink<'_>,
    ) -> Result<(), CheckpointError> {
        let part = self.len / self.shards;
        let mut at = self.written;
        while !rows.is_empty() {
            let (here, rest) = rows.split_at(rows.len().min(part - at % part));
            sink(at / part, tensor, here)?;
            at += here.len();
            rows = rest;
        }
        Ok(())
    }

    /// All parts have the same number of columns.
    fn write_columns(
        &self,
        rows: &[u8],
        tensor: usize,
        sink: Sink<'_>,
    ) -> Result<(), CheckpointError> {
        let part = self.width / self.shards;
        for shard in 0..self.shards {
            let mut columns = Vec::with_capacity(rows.len() / self.shards);
            for row in rows.chunks_exact(self.width) {
                columns.extend_from_slice(&row[shard * part..(shard + 1) * part]);
            }
            sink(shard, tensor, &columns)?;
        }
        Ok(())
    }
}
