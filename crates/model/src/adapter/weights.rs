//! The tensors of an adapter's weight file, under PEFT's keys, whatever program wrote the file.
//!
//! Three layouts are read: `adapter_model.safetensors` of PEFT, `adapter_model.bin` of its early versions (torch.save), and
//! `adapters.safetensors` of mlx-lm, whose factors are transposed. Names that wrappers put into keys (`torch.compile`,
//! DDP, FSDP) are left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use simmer_checkpoint::family::{Role, module_at, roots};
use simmer_checkpoint::pth::PthFile;
use simmer_checkpoint::{Bytes, CheckpointError, Dtype, SafetensorsFile, Tensor, TensorInfo};

use super::kind::{self, dora::MAGNITUDE};
use super::peft::{KEY_PREFIX, WEIGHTS_FILE};
use super::{AdapterConfig, AdapterError, llama_adapter};

/// Name of the weight file in early versions of PEFT.
const PICKLED_FILE: &str = "adapter_model.bin";
/// Name of mlx-lm's weight file.
pub(super) const MLX_FILE: &str = "adapters.safetensors";
/// The weight files of an adapter, in the order in which they are looked for.
pub(super) const WEIGHT_FILES: [&str; 3] = [WEIGHTS_FILE, PICKLED_FILE, MLX_FILE];

/// Parts of a key that wrappers of a model add, and the wrapper.
const WRAPPERS: [(&str, &str); 3] = [
    ("_orig_mod", "torch.compile"),
    ("_fsdp_wrapped_module", "FSDP"),
    ("_checkpoint_wrapped_module", "activation checkpointing"),
];
/// The part that DDP and DeepSpeed put before a key.
const PARALLEL: &str = "module";
/// Names of the heads of models that are no language models, as they stand in a module path.
const HEADS: [&str; 9] = [
    "score",
    "classifier",
    "classification_head",
    "qa_outputs",
    "v_head",
    "value_head",
    "reward_head",
    "regression_head",
    "pre_classifier",
];

/// The tensors of a weight file, by PEFT's keys.
#[derive(Debug)]
pub struct AdapterWeights {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    notes: Vec<String>,
    /// The configuration that follows from the tensors, of a checkpoint of the original LLaMA-Adapter.
    config: Option<AdapterConfig>,
}

impl AdapterWeights {
    /// Opens a weight file, which `config` may stand beside.
    ///
    /// # Errors
    /// A damaged file, or one of another format; two tensors that get the same key.
    pub(super) fn open(path: &Path, config: Option<&AdapterConfig>) -> Result<Self, AdapterError> {
        let prompts = config.filter(|config| config.kind.attention.is_some());
        let prompts = prompts.map(|config| config.adapter_len);
        let Renamed {
            tensors,
            notes,
            config,
        } = renamed(path, stored(path)?, prompts)?;
        Ok(Self {
            path: path.to_owned(),
            tensors,
            notes,
            config,
        })
    }

    /// The configuration that follows from the tensors, of a checkpoint of the original LLaMA-Adapter.
    pub(super) fn config(&self) -> Option<&AdapterConfig> {
        self.config.as_ref()
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keys, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor, if the file has it.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// All tensors by key.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors
            .iter()
            .map(|(key, tensor)| (key.as_str(), tensor))
    }

    /// What was changed in the keys, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The tensors and the notes.
    pub(super) fn into_parts(self) -> (BTreeMap<String, Tensor>, Vec<String>) {
        (self.tensors, self.notes)
    }
}

/// The weight file in a folder, if it has one.
pub(super) fn find(folder: &Path) -> Option<PathBuf> {
    let files = WEIGHT_FILES.iter().map(|name| folder.join(name));
    files.into_iter().find(|file| file.exists())
}

/// Whether a key belongs to the head of a classifier or of a reward model.
pub(super) fn is_head(key: &str) -> bool {
    let path = key.strip_prefix(KEY_PREFIX).unwrap_or(key);
    path.split('.').any(|part| HEADS.contains(&part))
}

/// The tensors under the keys of the file.
fn stored(path: &Path) -> Result<Vec<(String, Tensor)>, AdapterError> {
    let is_safetensors = path
        .extension()
        .is_some_and(|extension| extension == "safetensors");
    if is_safetensors {
        let file = SafetensorsFile::open(path)?;
        let read = file
            .names()
            .map(|name| Ok((name.to_owned(), file.tensor(name)?)));
        return read.collect();
    }
    let map = simmer_files::open(path).and_then(|file| simmer_files::map_file(&file));
    let bytes = Bytes::from_owner(map.map_err(AdapterError::io(path, "read"))?);
    if let Some(error) = super::gguf::instead_of_peft(path, &bytes) {
        return Err(error);
    }
    let pickled = PthFile::parse(&bytes).map_err(|source| AdapterError::Pickled {
        file: path.into(),
        source,
    })?;
    let tensors = pickled.tensors().iter().map(|tensor| {
        let TensorInfo { dtype, shape } = tensor.info.clone();
        let bytes = bytes.slice(tensor.range.clone());
        let read = Tensor {
            dtype,
            shape,
            bytes,
        };
        (tensor.name.clone(), read)
    });
    Ok(tensors.collect())
}

/// Tensors under PEFT's keys, and what was changed.
struct Renamed {
    tensors: BTreeMap<String, Tensor>,
    notes: Vec<String>,
    config: Option<AdapterConfig>,
}

/// The tensors under PEFT's keys; `prompts` are those of a layer with adaption prompts, if they are known.
fn renamed(
    path: &Path,
    stored: Vec<(String, Tensor)>,
    prompts: Option<usize>,
) -> Result<Renamed, AdapterError> {
    let file = path.display();
    let mut removed: Vec<String> = Vec::new();
    let mut plain = Vec::with_capacity(stored.len());
    for (key, tensor) in stored {
        let (key, parts) = without_wrappers(&key);
        for part in parts {
            if !removed.contains(&part) {
                removed.push(part);
            }
        }
        plain.push((key, tensor));
    }
    let mut notes = Vec::new();
    if !removed.is_empty() {
        let removed = removed.join(" and ");
        notes.push(format!("{file}: {removed} in the keys is left out"));
    }
    let mut config = None;
    if llama_adapter::is_original(&plain) {
        let original = llama_adapter::read(path, plain, prompts)?;
        notes.push(format!("{file}: {}", original.note));
        plain = original.tensors;
        config = Some(original.config);
    }
    let mlx = plain
        .iter()
        .any(|(key, _)| key.ends_with(".lora_a") || key.ends_with(".lora_b"));
    if mlx {
        notes.push(format!(
            "{file}: an adapter of mlx-lm; it is read as PEFT's, with its factors transposed"
        ));
    } else if lacks_prefix(&plain) {
        notes.push(format!(
            "{file}: the keys lack PEFT's prefix `{KEY_PREFIX}`; they are read as if they had it"
        ));
        for (key, _) in &mut plain {
            key.insert_str(0, KEY_PREFIX);
        }
    }
    let mut tensors = BTreeMap::new();
    for (key, tensor) in plain {
        let (key, tensor) = if mlx {
            of_mlx(&key, tensor)
        } else {
            (key, tensor)
        };
        if tensors.insert(key.clone(), tensor).is_some() {
            return Err(CheckpointError::DuplicateName {
                file: path.to_owned(),
                tensor: key,
            }
            .into());
        }
    }
    Ok(Renamed {
        tensors,
        notes,
        config,
    })
}

/// A key without the parts that wrappers add, and these parts as text for the user.
fn without_wrappers(key: &str) -> (String, Vec<String>) {
    let mut removed = Vec::new();
    let mut kept: Vec<&str> = Vec::new();
    for part in key.split('.') {
        let wrapper = WRAPPERS.iter().find(|(name, _)| *name == part);
        if let Some((name, by)) = wrapper {
            removed.push(format!("`{name}.` (of {by})"));
        } else if part == PARALLEL && kept.is_empty() {
            removed.push(format!("`{PARALLEL}.` (of DDP or DeepSpeed)"));
        } else if part == "default" && kept.last().is_some_and(|before| is_of_an_adapter(before)) {
            // the name of PEFT's adapter, in a state dict that was not saved by PEFT
            removed.push("`default.` (PEFT's name of the adapter)".to_owned());
        } else {
            kept.push(part);
        }
    }
    (kept.join("."), removed)
}

fn is_of_an_adapter(part: &str) -> bool {
    let is_tensor = kind::all_tensors().any(|tensor| tensor.field == part);
    let others = ["modules_to_save", "trainable_tokens_delta"];
    is_tensor || part.starts_with("lora_") || others.contains(&part)
}

/// Whether the keys are those of a model without PEFT's prefix.
fn lacks_prefix(tensors: &[(String, Tensor)]) -> bool {
    let of_model = |key: &str| {
        let root = key.split('.').next();
        root.is_some_and(|root| roots().any(|known| known == root))
    };
    tensors.iter().all(|(key, _)| of_model(key))
        && tensors.iter().any(|(key, _)| kind::split(key).is_some())
}

/// PEFT's key and tensor for one of mlx-lm. It has `lora_a` [in, r] and `lora_b` [r, out], of an embedding [vocab, r] and
/// [r, hidden]; all of them are the transposes of PEFT's.
///
/// Source: mlx-lm, mlx_lm/tuner/lora.py.
fn of_mlx(key: &str, tensor: Tensor) -> (String, Tensor) {
    let Some((module, last)) = key.rsplit_once('.') else {
        return (key.to_owned(), tensor);
    };
    let known = module_at(module);
    let embedding = known.is_some_and(|module| module.role == Role::Embedding);
    let [a, b] = kind::factors(embedding);
    let end = match last {
        "lora_a" => a.end,
        "lora_b" => b.end,
        "m" => {
            return (format!("{KEY_PREFIX}{module}{}", MAGNITUDE.end), tensor);
        }
        _ => return (format!("{KEY_PREFIX}{key}"), tensor),
    };
    (format!("{KEY_PREFIX}{module}{end}"), transposed(tensor))
}

/// A matrix transposed; anything else stays as it is.
fn transposed(tensor: Tensor) -> Tensor {
    let [rows, columns] = tensor.shape[..] else {
        return tensor;
    };
    let width = tensor.dtype.bitsize() / 8;
    let mut bytes = Vec::with_capacity(tensor.bytes.len());
    for column in 0..columns {
        for row in 0..rows {
            let at = (row * columns + column) * width;
            bytes.extend_from_slice(&tensor.bytes[at..at + width]);
        }
    }
    Tensor {
        dtype: tensor.dtype,
        shape: vec![columns, rows],
        bytes: Bytes::from(bytes),
    }
}

/// Checks that every value of a tensor is finite.
///
/// # Errors
/// The file, the tensor, and how many of its values are not.
pub(super) fn check_finite(file: &Path, name: &str, tensor: &Tensor) -> Result<(), AdapterError> {
    let count = count_not_finite(tensor);
    if count == 0 {
        return Ok(());
    }
    Err(AdapterError::NotFinite {
        file: file.to_owned(),
        tensor: name.to_owned(),
        count,
        of: tensor.shape.iter().product(),
    })
}

/// How many values of a tensor are NaN or infinite; 0 for integers.
pub(super) fn count_not_finite(tensor: &Tensor) -> usize {
    match tensor.dtype {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 => {
            simmer_checkpoint::numbers::count_not_finite(&tensor.bytes, tensor.dtype)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(shape: &[usize], values: &[f32]) -> Tensor {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        Tensor {
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            bytes: Bytes::from(bytes),
        }
    }

    fn keys(stored: &[&str]) -> (Vec<String>, Vec<String>) {
        let stored = stored
            .iter()
            .map(|key| ((*key).to_owned(), matrix(&[1, 1], &[0.0])));
        let found = renamed(Path::new("a.safetensors"), stored.collect(), None).unwrap();
        let Renamed { tensors, notes, .. } = found;
        (tensors.into_keys().collect(), notes)
    }

    #[test]
    fn what_wrappers_add_to_keys_is_left_out_and_said() {
        let plain = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
        for wrapped in [
            "_orig_mod.base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
            "base_model.model._orig_mod.model.layers.0.self_attn.q_proj.lora_A.weight",
            "module.base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
            "_fsdp_wrapped_module.base_model.model.model.layers.0._fsdp_wrapped_module.self_attn.q_proj.lora_A.weight",
            "base_model.model.model.layers.0._checkpoint_wrapped_module.self_attn.q_proj.lora_A.weight",
            "module._orig_mod.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
            "model.layers.0.self_attn.q_proj.lora_A.weight",
        ] {
            let (found, notes) = keys(&[wrapped]);
            assert_eq!(found, [plain], "{wrapped}");
            assert_eq!(notes.len(), 1, "{wrapped}");
        }
        assert_eq!(keys(&[plain]), (vec![plain.to_owned()], Vec::new()));
        let (_, notes) = keys(&["_orig_mod.base_model.model.a.lora_A.weight"]);
        insta::assert_snapshot!(notes.join("\n"), @"a.safetensors: `_orig_mod.` (of torch.compile) in the keys is left out");
    }

    #[test]
    fn two_keys_that_become_one_are_refused() {
        let one = |key: &str| (key.to_owned(), matrix(&[1, 1], &[0.0]));
        let both = vec![
            one("_orig_mod.base_model.a.lora_A.weight"),
            one("base_model.a.lora_A.weight"),
        ];
        let error = renamed(Path::new("a.safetensors"), both, None)
            .err()
            .unwrap();
        insta::assert_snapshot!(error, @"a.safetensors: duplicate tensor `base_model.a.lora_A.weight` in the header");
    }

    #[test]
    fn factors_of_mlx_are_transposed() {
        let a = matrix(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let (key, a) = of_mlx("model.layers.0.mlp.up_proj.lora_a", a);
        assert_eq!(
            key,
            "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
        );
        assert_eq!(a, matrix(&[2, 3], &[1.0, 3.0, 5.0, 2.0, 4.0, 6.0]));
        let (key, b) = of_mlx("model.embed_tokens.lora_b", matrix(&[1, 2], &[1.0, 2.0]));
        assert_eq!(key, "base_model.model.model.embed_tokens.lora_embedding_B");
        assert_eq!(b.shape, [2, 1]);
    }

    #[test]
    fn heads_are_known_by_a_part_of_their_path() {
        for key in [
            "base_model.model.score.weight",
            "base_model.model.classifier.modules_to_save.out.weight",
            "v_head.summary.weight",
        ] {
            assert!(is_head(key), "{key}");
        }
        for key in [
            "base_model.model.lm_head.weight",
            "base_model.model.model.scores.weight",
        ] {
            assert!(!is_head(key), "{key}");
        }
    }
}
