//! Saves a full model as a Hugging Face folder.

use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, TensorData};
use simmer_checkpoint::{
    CheckpointError, CheckpointWriter, Dtype, MAX_SHARD_BYTES, TensorSpec, plan_shards,
};

use crate::llama::LlamaForCausalLM;
use crate::parameters::ModulePath;

/// The files that a tokenizer can consist of.
pub const TOKENIZER_FILES: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
];

/// The tokenizer files of a folder.
pub fn tokenizer_files(folder: &Path) -> Vec<PathBuf> {
    let files = TOKENIZER_FILES.iter().map(|name| folder.join(name));
    files.filter(|file| file.is_file()).collect()
}

/// Saves the model's weights in `dtype` with its `config.json`, and copies the files `beside` (the tokenizer).
///
/// # Errors
/// If the folder exists and is not empty, or cannot be written. Then no partial output remains.
///
/// # Panics
/// If the model has an adapter: merge it instead.
pub fn save_model(
    model: &LlamaForCausalLM,
    out: &Path,
    dtype: Dtype,
    beside: &[PathBuf],
) -> Result<(), CheckpointError> {
    let mut collected = Collect::default();
    model.visit(&mut collected);
    let specs = collected
        .tensors
        .iter()
        .map(|(name, shape, _)| TensorSpec {
            name: name.clone(),
            dtype,
            shape: shape.clone(),
        })
        .collect();
    let mut writer = CheckpointWriter::create(out, plan_shards(specs, MAX_SHARD_BYTES))?;
    for (name, _, read) in &collected.tensors {
        writer.append(name, read(burn_dtype(dtype)).as_bytes())?;
    }
    let folder = writer.folder();
    let config = model.config().to_text(Some(dtype));
    folder.write("config.json", config.as_bytes())?;
    for file in beside {
        folder.copy(file)?;
    }
    writer.finish()
}

fn burn_dtype(dtype: Dtype) -> DType {
    match dtype {
        Dtype::BF16 => DType::BF16,
        Dtype::F16 => DType::F16,
        _ => DType::F32,
    }
}

type Read = Box<dyn Fn(DType) -> TensorData>;

/// Collects every tensor with its key; each is converted only when it is written.
#[derive(Default)]
struct Collect {
    path: ModulePath,
    tensors: Vec<(String, Vec<usize>, Read)>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let key = self.path.key();
        let lora = key.contains(".lora_");
        assert!(
            !lora,
            "{key}: a model with an adapter must be merged, not saved"
        );
        let value = param.val().inner();
        let shape = value.dims().to_vec();
        let read = move |dtype| value.clone().cast(dtype).into_data();
        self.tensors.push((key, shape, Box::new(read)));
    }
}
