//! Writes safetensors files and checkpoints.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use simmer_files::{Existing, StagedFolder, WriteError, write_file};

use super::header::{byte_len, encode, sort};
use crate::{CheckpointError, Dtype, INDEX_FILE, PT_METADATA, SINGLE_FILE, TensorSpec, TensorView};

/// Writes tensors to one file atomically, with the same bytes as the Python library. `metadata` keeps its order; PyTorch
/// tools expect [`PT_METADATA`].
///
/// # Errors
///
/// Errors of the operating system, and dtypes that the format does not have.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &BTreeMap<String, TensorView<'_>>,
    metadata: &[(&str, &str)],
) -> Result<(), CheckpointError> {
    let path = path.as_ref();
    let (header, order) = laid_out(path, tensors, metadata)?;
    write_file(path, |file| {
        file.write_all(&header)?;
        order.iter().try_for_each(|bytes| file.write_all(bytes))
    })?;
    Ok(())
}

/// The bytes that [`write_safetensors`] writes. `path` is used in errors only.
///
/// # Errors
///
/// Dtypes that the format does not have.
pub fn encode_safetensors(
    path: impl AsRef<Path>,
    tensors: &BTreeMap<String, TensorView<'_>>,
    metadata: &[(&str, &str)],
) -> Result<Vec<u8>, CheckpointError> {
    let (mut bytes, order) = laid_out(path.as_ref(), tensors, metadata)?;
    for tensor in order {
        bytes.extend_from_slice(tensor);
    }
    Ok(bytes)
}

/// The header, and the tensors' bytes in the order of the file.
fn laid_out<'a>(
    path: &Path,
    tensors: &BTreeMap<String, TensorView<'a>>,
    metadata: &[(&str, &str)],
) -> Result<(Vec<u8>, Vec<&'a [u8]>), CheckpointError> {
    let spec = |(name, tensor): (&String, &TensorView<'a>)| TensorSpec {
        name: name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.to_vec(),
    };
    let mut specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
    sort(&mut specs);
    let header = encoded(path, &specs, metadata)?;
    for spec in &specs {
        let found = tensors[&spec.name].bytes.len() as u64;
        // `encoded` has already refused sizes that overflow
        let expected = byte_len(spec.dtype, &spec.shape).unwrap_or_default();
        if found != expected {
            return Err(CheckpointError::WrongLength {
                path: path.into(),
                tensor: spec.name.clone(),
                expected,
                found,
            });
        }
    }
    let order = specs.iter().map(|spec| tensors[&spec.name].bytes);
    Ok((header, order.collect()))
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
            dtype: spec.map_or(Dtype::U8, |spec| spec.dtype),
            shape: spec.map_or_else(Vec::new, |spec| {
                spec.shape.iter().map(|&dim| dim as u64).collect()
            }),
        }
    })
}

/// A file of a checkpoint to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its file name.
    pub file: String,
    /// Its tensors, in any order.
    pub tensors: Vec<TensorSpec>,
}

/// Splits tensors into files of at most `max_bytes` each, in the given order, as Hugging Face does: a new file starts when
/// the next tensor does not fit, and a tensor larger than the limit gets its own file. A single file is named
/// `model.safetensors`; several are named `model-00001-of-00002.safetensors` and so on.
pub fn plan_shards(tensors: Vec<TensorSpec>, max_bytes: u64) -> Vec<Shard> {
    plan_shards_of(tensors.into_iter().map(|tensor| vec![tensor]), max_bytes)
}

/// As [`plan_shards`], for weights of several tensors each, which stay together.
pub(crate) fn plan_shards_of(
    weights: impl IntoIterator<Item = Vec<TensorSpec>>,
    max_bytes: u64,
) -> Vec<Shard> {
    let mut groups: Vec<Vec<TensorSpec>> = Vec::new();
    let mut filled = 0_u64;
    for weight in weights {
        let bytes = weight.iter().fold(0_u64, |sum, tensor| {
            sum.saturating_add(byte_len(tensor.dtype, &tensor.shape).unwrap_or(u64::MAX))
        });
        match groups.last_mut() {
            Some(group) if filled.saturating_add(bytes) <= max_bytes => {
                group.extend(weight);
                filled += bytes;
            }
            _ => {
                groups.push(weight);
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

/// Writes the checkpoint of a model into a folder, tensor by tensor and atomically.
///
/// The layout of the files is fixed at the start, so tensors may be written in any order and in pieces of any size. Only
/// one piece is in memory at a time.
#[derive(Debug)]
pub struct CheckpointWriter {
    folder: StagedFolder,
    /// Open files, with their final paths.
    files: Vec<(PathBuf, File)>,
    slots: HashMap<String, Slot>,
    index: Option<Vec<u8>>,
}

/// The place of a tensor.
#[derive(Debug)]
struct Slot {
    file: usize,
    /// First byte in the file.
    begin: u64,
    len: u64,
    written: u64,
}

impl CheckpointWriter {
    /// Starts a checkpoint of the given files ([`plan_shards`]) in the folder `out`. An index is written unless
    /// `model.safetensors` is the only file.
    ///
    /// # Errors
    ///
    /// If `out` is not empty or a tensor is listed twice, and errors of the operating system.
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
            // `encoded` has already refused sizes that overflow
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
            .map_err(WriteError::io(&path, "create"))?;
        file.write_all(&header)
            .map_err(WriteError::io(&path, "write"))?;
        self.files.push((path, file));
        Ok(())
    }

    /// Appends bytes to a tensor.
    ///
    /// # Errors
    ///
    /// If the tensor is not in the plan or gets too many bytes, and errors of the operating system, such as a full disk.
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
        let (path, file) = &mut self.files[slot.file];
        file.seek(SeekFrom::Start(slot.begin + slot.written))
            .and_then(|_| file.write_all(bytes))
            .map_err(WriteError::io(path, "write"))?;
        slot.written = written;
        Ok(())
    }

    /// The output folder, for files other than the weights.
    pub fn folder(&self) -> &StagedFolder {
        &self.folder
    }

    /// Checks that every tensor is complete, syncs everything to the disk and renames the folder to its final name.
    ///
    /// # Errors
    ///
    /// If a tensor is incomplete, and errors of the operating system.
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
        Ok(self.folder.commit()?)
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

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::super::SafetensorsFile;
    use super::*;
    use crate::Checkpoint;

    fn spec(name: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
        TensorSpec {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
        }
    }

    #[test]
    fn bytes_are_the_python_librarys() {
        let three = 3_i64.to_le_bytes();
        let floats = bytemuck::cast_slice(&[-1.0_f32, 2.0, 0.5]);
        let one = bytemuck::bytes_of(&half::bf16::ONE);
        let tensors = BTreeMap::from(
            [
                ("layers.2", Dtype::F32, &[1][..], &floats[8..]),
                ("layers.10", Dtype::F32, &[2, 1], &floats[..8]),
                ("b", Dtype::BF16, &[1], one),
                ("i", Dtype::I64, &[1], &three[..]),
            ]
            .map(|(name, dtype, shape, bytes)| {
                let view = TensorView {
                    dtype,
                    shape,
                    bytes,
                };
                (name.to_owned(), view)
            }),
        );
        let bytes = encode_safetensors("x", &tensors, PT_METADATA).unwrap();
        let text = r#"{"__metadata__":{"format":"pt"},"i":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"layers.10":{"dtype":"F32","shape":[2,1],"data_offsets":[8,16]},"layers.2":{"dtype":"F32","shape":[1],"data_offsets":[16,20]},"b":{"dtype":"BF16","shape":[1],"data_offsets":[20,22]}}"#;
        let padded = text.len().next_multiple_of(8);
        let mut expected = (padded as u64).to_le_bytes().to_vec();
        expected.extend_from_slice(format!("{text:padded$}").as_bytes());
        expected.extend_from_slice(&three);
        expected.extend_from_slice(floats);
        expected.extend_from_slice(&[0x80, 0x3f]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn shards_are_planned_as_hugging_face_does() {
        let tensors = [("a", 4), ("b", 3), ("c", 9), ("d", 1), ("e", 4)]
            .map(|(name, len)| spec(name, Dtype::U8, &[len]));
        let plan = plan_shards(tensors.to_vec(), 8);
        let files: Vec<(&str, Vec<&str>)> = plan
            .iter()
            .map(|shard| {
                let names = shard.tensors.iter().map(|t| t.name.as_str()).collect();
                (shard.file.as_str(), names)
            })
            .collect();
        assert_eq!(
            files,
            [
                ("model-00001-of-00003.safetensors", vec!["a", "b"]),
                ("model-00002-of-00003.safetensors", vec!["c"]),
                ("model-00003-of-00003.safetensors", vec!["d", "e"]),
            ]
        );
        assert_eq!(plan_shards(tensors.to_vec(), 21)[0].file, SINGLE_FILE);
    }

    #[test]
    fn an_index_reads_as_hugging_face_writes_it() {
        let shards = plan_shards(
            vec![spec("b", Dtype::F32, &[2, 2]), spec("a", Dtype::BF16, &[3])],
            16,
        );
        let index = String::from_utf8(index_json(&shards)).unwrap();
        insta::assert_snapshot!(index, @r#"
        {
          "metadata": {
            "total_parameters": 7,
            "total_size": 22
          },
          "weight_map": {
            "a": "model-00002-of-00002.safetensors",
            "b": "model-00001-of-00002.safetensors"
          }
        }
        "#);
    }

    #[test]
    fn wrong_lengths_and_names_are_refused_and_nothing_appears() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let begin = || {
            let shards = plan_shards(vec![spec("a", Dtype::F32, &[2])], u64::MAX);
            CheckpointWriter::create(&out, shards).unwrap()
        };
        let said = |error: CheckpointError| {
            error
                .to_string()
                .replace(&dir.path().display().to_string(), "DIR")
        };
        let mut writer = begin();
        insta::assert_snapshot!(said(writer.append("b", &[0]).unwrap_err()), @"DIR/out: no tensor `b`");
        writer.append("a", &[0; 6]).unwrap();
        insta::assert_snapshot!(said(writer.append("a", &[0; 3]).unwrap_err()), @"DIR/out: tensor `a`: expected 8 bytes, got 9");
        insta::assert_snapshot!(said(writer.finish().unwrap_err()), @"DIR/out: tensor `a`: expected 8 bytes, got 6");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        let twice = Shard {
            file: SINGLE_FILE.to_owned(),
            tensors: vec![spec("a", Dtype::F32, &[2]), spec("a", Dtype::F16, &[2])],
        };
        let error = CheckpointWriter::create(&out, vec![twice]).unwrap_err();
        insta::assert_snapshot!(said(error), @"DIR/out/model.safetensors: duplicate tensor `a` in the plan of the output");
    }

    fn dtype() -> impl Strategy<Value = Dtype> {
        prop::sample::select(vec![
            Dtype::F32,
            Dtype::F16,
            Dtype::BF16,
            Dtype::I64,
            Dtype::U8,
            Dtype::F64,
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Any tensors, any shard size, any order and cutting of the writes: what is read is what
        /// was written.
        #[test]
        fn written_checkpoints_read_back(
            tensors in prop::collection::btree_map(
                "[a-z]{1,4}(\\.[0-9]{1,2})?",
                (dtype(), prop::collection::vec(0_usize..5, 0..4)),
                1..8,
            ),
            limit in 1_u64..400,
            chunk in 1_usize..50,
            backwards: bool,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("out");
            let contents: Vec<(TensorSpec, Vec<u8>)> = tensors
                .into_iter()
                .map(|(name, (dtype, shape))| {
                    let spec = spec(&name, dtype, &shape);
                    let len = byte_len(dtype, &shape).unwrap();
                    let bytes = (0..len).map(|i| (i as u8) ^ name.as_bytes()[0]).collect();
                    (spec, bytes)
                })
                .collect();
            let specs = contents.iter().map(|(spec, _)| spec.clone()).collect();
            let mut writer = CheckpointWriter::create(&out, plan_shards(specs, limit)).unwrap();
            let mut order: Vec<_> = contents.iter().collect();
            if backwards {
                order.reverse();
            }
            for (spec, bytes) in order {
                for piece in bytes.chunks(chunk) {
                    writer.append(&spec.name, piece).unwrap();
                }
            }
            writer.finish().unwrap();

            let read = Checkpoint::open(&out).unwrap();
            prop_assert_eq!(read.all_names().count(), contents.len());
            for (spec, bytes) in &contents {
                let info = read.info(&spec.name).unwrap();
                prop_assert_eq!(info.dtype, spec.dtype);
                prop_assert_eq!(&info.shape, &spec.shape);
                prop_assert_eq!(&read.tensor(&spec.name).unwrap().bytes[..], &bytes[..]);
            }
        }

        /// One file: the same, and its bytes do not depend on the order of the map.
        #[test]
        fn written_files_read_back(
            tensors in prop::collection::btree_map("[a-z.]{1,8}", prop::collection::vec(any::<f32>(), 0..9), 0..6),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.safetensors");
            let shapes: Vec<[usize; 1]> = tensors.values().map(|values| [values.len()]).collect();
            let tensors: BTreeMap<String, TensorView<'_>> = tensors
                .iter()
                .zip(&shapes)
                .map(|((name, values), shape)| {
                    let bytes = bytemuck::cast_slice(values);
                    (name.clone(), TensorView { dtype: Dtype::F32, shape, bytes })
                })
                .collect();
            write_safetensors(&path, &tensors, PT_METADATA).unwrap();
            prop_assert_eq!(
                fs::read(&path).unwrap(),
                encode_safetensors(&path, &tensors, PT_METADATA).unwrap()
            );
            let read = SafetensorsFile::open(&path).unwrap();
            prop_assert_eq!(read.metadata(), &[("format".to_owned(), "pt".to_owned())][..]);
            for (name, tensor) in &tensors {
                prop_assert_eq!(read.bytes(name).unwrap(), tensor.bytes);
            }
            prop_assert_eq!(read.names().count(), tensors.len());
        }
    }
}
