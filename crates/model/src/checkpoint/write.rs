//! Writing safetensors files and whole checkpoints.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use burn::tensor::TensorData;
use serde_json::{Map, Value, json};

use super::file::stored_dtype;
use super::header::{byte_len, encode, sort};
use super::stage::{Existing, StagedFolder, write_file};
use super::{CheckpointError, INDEX_FILE, PT_METADATA, SINGLE_FILE, TensorSpec};

/// Writes tensors to one file that appears whole or not at all, byte for byte as the Python
/// library writes them. `metadata` keeps its order; [`PT_METADATA`] is what PyTorch tools expect.
///
/// # Errors
///
/// What the operating system says, or a number type that files do not have.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &BTreeMap<String, TensorData>,
    metadata: &[(&str, &str)],
) -> Result<(), CheckpointError> {
    let path = path.as_ref();
    let (header, order) = laid_out(path, tensors, metadata)?;
    write_file(path, |file| {
        file.write_all(&header)?;
        order
            .iter()
            .try_for_each(|data| file.write_all(data.as_bytes()))
    })
}

/// The bytes that [`write_safetensors`] writes. `path` is only named in errors.
///
/// # Errors
///
/// A number type that files do not have.
pub fn encode_safetensors(
    path: impl AsRef<Path>,
    tensors: &BTreeMap<String, TensorData>,
    metadata: &[(&str, &str)],
) -> Result<Vec<u8>, CheckpointError> {
    let (mut bytes, order) = laid_out(path.as_ref(), tensors, metadata)?;
    for data in order {
        bytes.extend_from_slice(data.as_bytes());
    }
    Ok(bytes)
}

/// The header, and the tensors in the order of their bytes.
fn laid_out<'a>(
    path: &Path,
    tensors: &'a BTreeMap<String, TensorData>,
    metadata: &[(&str, &str)],
) -> Result<(Vec<u8>, Vec<&'a TensorData>), CheckpointError> {
    let mut specs: Vec<TensorSpec> = tensors
        .iter()
        .map(|(name, data)| spec(path, name, data))
        .collect::<Result<_, _>>()?;
    sort(&mut specs);
    let header = encoded(path, &specs, metadata)?;
    let order = specs.iter().filter_map(|spec| tensors.get(&spec.name));
    Ok((header, order.collect()))
}

fn spec(path: &Path, name: &str, data: &TensorData) -> Result<TensorSpec, CheckpointError> {
    let dtype = stored_dtype(data.dtype()).ok_or_else(|| CheckpointError::UnsupportedDtype {
        file: path.into(),
        tensor: name.to_owned(),
        dtype: format!("{:?}", data.dtype()),
    })?;
    Ok(TensorSpec {
        name: name.to_owned(),
        dtype,
        shape: data.shape().to_vec(),
    })
}

fn encoded(
    path: &Path,
    specs: &[TensorSpec],
    metadata: &[(&str, &str)],
) -> Result<Vec<u8>, CheckpointError> {
    let overflowing = |spec: &&TensorSpec| byte_len(spec.dtype, &spec.shape).is_none();
    encode(specs, metadata).ok_or_else(|| {
        let spec = specs.iter().find(overflowing).or(specs.last());
        CheckpointError::ShapeOverflow {
            file: path.into(),
            tensor: spec.map_or_else(String::new, |spec| spec.name.clone()),
            dtype: spec.map_or(super::Dtype::U8, |spec| spec.dtype),
            shape: spec.map_or_else(Vec::new, |spec| {
                spec.shape.iter().map(|&dim| dim as u64).collect()
            }),
        }
    })
}

/// One file of a checkpoint that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its name in the folder.
    pub file: String,
    /// What it holds, in any order.
    pub tensors: Vec<TensorSpec>,
}

/// Splits tensors into files of at most `max_bytes` each, in the order given, as Hugging Face
/// does: a file is closed when the next tensor does not fit, and a tensor larger than the limit
/// gets a file of its own. One file is named `model.safetensors`, several
/// `model-00001-of-00002.safetensors` and so on.
pub fn plan_shards(tensors: Vec<TensorSpec>, max_bytes: u64) -> Vec<Shard> {
    let mut groups: Vec<Vec<TensorSpec>> = Vec::new();
    let mut filled = 0_u64;
    for tensor in tensors {
        let bytes = byte_len(tensor.dtype, &tensor.shape).unwrap_or(u64::MAX);
        match groups.last_mut() {
            Some(group) if filled.saturating_add(bytes) <= max_bytes => {
                group.push(tensor);
                filled += bytes;
            }
            _ => {
                groups.push(vec![tensor]);
                filled = bytes;
            }
        }
    }
    let total = groups.len();
    groups
        .into_iter()
        .enumerate()
        .map(|(position, tensors)| Shard {
            file: if total == 1 {
                SINGLE_FILE.to_owned()
            } else {
                format!("model-{:05}-of-{total:05}.safetensors", position + 1)
            },
            tensors,
        })
        .collect()
}

/// Writes a checkpoint, tensor by tensor, into a folder that appears whole or not at all.
///
/// Every file's layout is fixed in the beginning, so tensors may come in any order and in pieces
/// of any size; no more than one piece is ever in memory.
#[derive(Debug)]
pub struct CheckpointWriter {
    folder: StagedFolder,
    files: Vec<File>,
    slots: HashMap<String, Slot>,
    index: Option<Vec<u8>>,
}

/// Where a tensor goes.
#[derive(Debug)]
struct Slot {
    file: usize,
    /// First byte in the file.
    begin: u64,
    len: u64,
    written: u64,
}

impl CheckpointWriter {
    /// Starts a checkpoint of the given files ([`plan_shards`]) in the folder `out`. An index is
    /// written unless `model.safetensors` is the only file.
    ///
    /// # Errors
    ///
    /// When `out` is not empty, when a tensor is listed twice, or what the operating system says.
    pub fn create(out: impl AsRef<Path>, shards: Vec<Shard>) -> Result<Self, CheckpointError> {
        let folder = StagedFolder::new(out, Existing::Refuse)?;
        let index = match shards.as_slice() {
            [only] if only.file == SINGLE_FILE => None,
            several => Some(index_json(several)),
        };
        let mut writer = Self {
            folder,
            files: Vec::with_capacity(shards.len()),
            slots: HashMap::new(),
            index,
        };
        for shard in shards {
            writer.begin_file(shard)?;
        }
        Ok(writer)
    }

    fn begin_file(&mut self, shard: Shard) -> Result<(), CheckpointError> {
        let Shard {
            file: name,
            mut tensors,
        } = shard;
        sort(&mut tensors);
        let path = self.folder.out().join(&name);
        let header = encoded(&path, &tensors, PT_METADATA)?;
        let mut begin = header.len() as u64;
        for tensor in tensors {
            // `encoded` has refused sizes that overflow.
            let len = byte_len(tensor.dtype, &tensor.shape).unwrap_or_default();
            let slot = Slot {
                file: self.files.len(),
                begin,
                len,
                written: 0,
            };
            begin += len;
            if self.slots.insert(tensor.name.clone(), slot).is_some() {
                return Err(CheckpointError::WrittenTwice {
                    path,
                    tensor: tensor.name,
                });
            }
        }
        let mut file = File::create(self.folder.path().join(&name))
            .map_err(CheckpointError::io(&path, "create"))?;
        file.write_all(&header)
            .map_err(CheckpointError::io(&path, "write"))?;
        self.files.push(file);
        Ok(())
    }

    /// Adds the next bytes of a tensor.
    ///
    /// # Errors
    ///
    /// When the tensor is not in the plan or gets more bytes than it has, or what the operating
    /// system says; a full disk for one.
    pub fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let out = self.folder.out();
        let slot = self
            .slots
            .get_mut(name)
            .ok_or_else(|| CheckpointError::TensorNotFound {
                path: out.into(),
                tensor: name.to_owned(),
                nearest: None,
            })?;
        let written = slot.written + bytes.len() as u64;
        if written > slot.len {
            return Err(CheckpointError::WrongLength {
                path: out.into(),
                tensor: name.to_owned(),
                expected: slot.len,
                found: written,
            });
        }
        let file = &mut self.files[slot.file];
        file.seek(SeekFrom::Start(slot.begin + slot.written))
            .and_then(|_| file.write_all(bytes))
            .map_err(CheckpointError::io(out, "write"))?;
        slot.written = written;
        Ok(())
    }

    /// The folder, for the files beside the weights.
    pub fn folder(&self) -> &StagedFolder {
        &self.folder
    }

    /// Checks that every tensor is whole, syncs everything to the disk and renames the folder into
    /// place.
    ///
    /// # Errors
    ///
    /// A tensor that lacks bytes, or what the operating system says.
    pub fn finish(self) -> Result<(), CheckpointError> {
        let short = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.written != slot.len);
        if let Some((name, slot)) = short.min_by_key(|(name, _)| name.as_str()) {
            return Err(CheckpointError::WrongLength {
                path: self.folder.out().into(),
                tensor: name.clone(),
                expected: slot.len,
                found: slot.written,
            });
        }
        if let Some(index) = &self.index {
            self.folder.write(INDEX_FILE, index)?;
        }
        drop(self.files);
        self.folder.commit()
    }
}

/// The index as Hugging Face writes it: indented, keys sorted, a final newline.
fn index_json(shards: &[Shard]) -> Vec<u8> {
    let tensors = || shards.iter().flat_map(|shard| &shard.tensors);
    let total_size: u64 = tensors()
        .filter_map(|tensor| byte_len(tensor.dtype, &tensor.shape))
        .sum();
    let total_parameters: usize = tensors()
        .map(|tensor| tensor.shape.iter().product::<usize>())
        .sum();
    let by_name: BTreeMap<&str, &str> = shards
        .iter()
        .flat_map(|shard| {
            let file = shard.file.as_str();
            shard.tensors.iter().map(move |t| (t.name.as_str(), file))
        })
        .collect();
    let weight_map: Map<String, Value> = by_name
        .into_iter()
        .map(|(name, file)| (name.to_owned(), file.into()))
        .collect();
    let index = json!({
        "metadata": { "total_parameters": total_parameters, "total_size": total_size },
        "weight_map": weight_map,
    });
    format!("{index:#}\n").into_bytes()
}
