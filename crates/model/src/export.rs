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
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
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

#[cfg(test)]
mod tests {
    use std::fs;

    use burn::tensor::Device;
    use serde_json::{Map, Value};
    use simmer_checkpoint::convert::{Progress, to_hugging_face};
    use simmer_checkpoint::{Pretrained, SINGLE_FILE};

    use super::*;
    use crate::base::{BaseConfig, load};

    /// Keys of other programs, old and new, with a number that has another spelling in JSON's shortest form.
    const MORE: &str = r#"{
  "_name_or_path": "/data/model",
  "auto_map": {"AutoModel": "x.Y"},
  "attention_dropout": 0.10,
  "initializer_range": 2e-2,
  "transformers_version": "4.40.1",
"#;

    #[test]
    fn every_key_of_the_configuration_is_kept() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/tied-gqa");
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("base")).unwrap();
        fs::copy(golden.join(SINGLE_FILE), at("base").join(SINGLE_FILE)).unwrap();
        let text = fs::read_to_string(golden.join("config.json")).unwrap();
        let text = text.replacen("{\n", MORE, 1);
        fs::write(at("base/config.json"), &text).unwrap();
        let read = |name: &str| fs::read_to_string(at(name).join("config.json")).unwrap();
        let keys = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();

        let base = BaseConfig::from_path(at("base"));
        let model = load(&base, 0, &Device::flex()).unwrap();
        save_model(&model, &at("same"), Dtype::F32, &[]).unwrap();
        assert_eq!(read("same"), text);
        save_model(&model, &at("half"), Dtype::F16, &[]).unwrap();
        let mut expected = keys(&text);
        expected.insert("dtype".to_owned(), "float16".into());
        // as text: the order counts
        let saved = read("half");
        assert_eq!(
            Value::Object(keys(&saved)).to_string(),
            Value::Object(expected).to_string()
        );
        assert!(saved.contains("\"attention_dropout\": 0.10,"), "{saved}");

        let half = Pretrained::open(&at("half")).unwrap();
        let progress: Progress<'_> = &mut |_, _| ();
        to_hugging_face(&half, &at("back"), Some(Dtype::F32), None, &[], progress).unwrap();
        assert_eq!(keys(&read("back")), keys(&text));
    }
}
