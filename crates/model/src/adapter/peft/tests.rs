use burn::tensor::DType;
use serde_json::json;

use super::super::config::Bias;
use super::super::targets::Targets;
use simmer_checkpoint::config::ModelConfig;

use super::*;
use simmer_checkpoint::layout::modules;

fn base() -> ModelConfig {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 16,
        "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
        "num_attention_heads": 2, "attention_bias": true, "rms_norm_eps": 1e-5,
    });
    ModelConfig::from_json(&config, Path::new("config.json")).unwrap()
}

fn model() -> Vec<ModuleLayout> {
    modules(&base())
}

fn config(names: &[&str]) -> AdapterConfig {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    AdapterConfig {
        r: 2,
        target_modules: Some(Targets::Names(names)),
        base_model_name_or_path: Some("some/base".to_owned()),
        ..AdapterConfig::default()
    }
}

fn zeros(shape: &[usize]) -> TensorData {
    TensorData::new(vec![0.0_f32; shape.iter().product()], shape.to_vec())
}

/// Saves an adapter of zeros after `change` has edited its tensors, and opens it.
fn saved(
    dir: &Path,
    config: &AdapterConfig,
    change: impl FnOnce(&mut BTreeMap<String, TensorData>),
) -> (AdapterFolder, Selection) {
    let selection = select(config, &model(), Unmatched::Refuse).unwrap();
    let mut tensors = tensor_shapes(&selection)
        .into_iter()
        .map(|(key, shape)| (key, zeros(&shape)))
        .collect();
    change(&mut tensors);
    let folder = dir.join("adapter");
    AdapterFolder::save(
        &folder,
        config,
        &tensors,
        &[],
        &Card::default(),
        Existing::Replace,
    )
    .unwrap();
    (AdapterFolder::open(&folder).unwrap(), selection)
}

fn message(dir: &Path, error: &AdapterError) -> String {
    error.to_string().replace(&dir.display().to_string(), "DIR")
}

#[test]
fn keys_are_pefts() {
    let config = AdapterConfig {
        modules_to_save: Some(vec!["model.norm".to_owned()]),
        bias: Bias::LoraOnly,
        ..config(&["q_proj", "embed_tokens", "lm_head"])
    };
    let selection = select(&config, &model(), Unmatched::Refuse).unwrap();
    let shapes: Vec<String> = tensor_shapes(&selection)
        .into_iter()
        .map(|(key, shape)| format!("{key} {shape:?}"))
        .collect();
    insta::assert_snapshot!(shapes.join("\n"), @r"
        base_model.model.lm_head.lora_A.weight [2, 8]
        base_model.model.lm_head.lora_B.weight [16, 2]
        base_model.model.model.embed_tokens.lora_embedding_A [2, 16]
        base_model.model.model.embed_tokens.lora_embedding_B [8, 2]
        base_model.model.model.layers.0.self_attn.q_proj.base_layer.bias [8]
        base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight [2, 8]
        base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight [8, 2]
        base_model.model.model.norm.weight [8]
        ");
}

#[test]
fn goldens_of_peft_save_to_the_same_bytes() {
    let goldens = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens"));
    let dir = tempfile::tempdir().unwrap();
    for adapter in ["tied-gqa/adapters/rslora", "untied-mha/adapters/saved-head"] {
        let theirs = AdapterFolder::open(goldens.join(adapter)).unwrap();
        let tensors = theirs
            .weights()
            .names()
            .map(|key| {
                let tensor = theirs.weights().tensor(key).unwrap().clone();
                (
                    key.to_owned(),
                    to_data(tensor, theirs.weights().path(), key).unwrap(),
                )
            })
            .collect();
        let ours = dir.path().join(adapter);
        AdapterFolder::save(
            &ours,
            theirs.config(),
            &tensors,
            &[],
            &Card::default(),
            Existing::Refuse,
        )
        .unwrap();
        assert_eq!(
            fs::read(ours.join(WEIGHTS_FILE)).unwrap(),
            fs::read(theirs.weights().path()).unwrap()
        );
    }
}

#[test]
fn every_precision_of_adapters_loads() {
    let dir = tempfile::tempdir().unwrap();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let (adapter, selection) = saved(dir.path(), &config(&["q_proj"]), |tensors| {
            for data in tensors.values_mut() {
                *data = data.clone().convert_dtype(dtype);
            }
        });
        let tensors = adapter.tensors(&selection).unwrap();
        assert_eq!(tensors.trained.len(), 2);
        assert!(tensors.trained.values().all(|data| data.dtype() == dtype));
    }
    let (adapter, selection) = saved(dir.path(), &config(&["q_proj"]), |tensors| {
        for data in tensors.values_mut() {
            *data = data.clone().convert_dtype(DType::I32);
        }
    });
    let error = adapter.tensors(&selection).unwrap_err();
    insta::assert_snapshot!(message(dir.path(), &error), @"DIR/adapter/adapter_model.safetensors: tensor `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`: expected dtype F32, F16 or BF16, found I32");
}

#[test]
fn keys_of_other_versions_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let attention = "base_model.model.model.layers.0.self_attn";
    let config = AdapterConfig {
        bias: Bias::All,
        modules_to_save: Some(vec!["k_proj".to_owned()]),
        ..config(&["q_proj"])
    };
    let (adapter, selection) = saved(dir.path(), &config, |tensors| {
        // the key before 0.5, and the duplicates of bias="all"
        let old = tensors
            .remove(&format!("{attention}.q_proj.base_layer.bias"))
            .unwrap();
        tensors.insert(format!("{attention}.q_proj.bias"), old);
        for inner in ["modules_to_save", "original_module"] {
            tensors.insert(format!("{attention}.k_proj.{inner}.bias"), zeros(&[8]));
        }
    });
    let tensors = adapter.tensors(&selection).unwrap();
    assert!(tensors.base_weights.is_empty());
    assert_eq!(
        tensors.trained.keys().collect::<Vec<_>>(),
        tensor_shapes(&selection).keys().collect::<Vec<_>>()
    );
}

#[test]
fn base_weights_in_an_adapters_file_are_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let embedding = "base_model.model.model.embed_tokens";
    let (adapter, selection) = saved(dir.path(), &config(&["embed_tokens"]), |tensors| {
        tensors.insert(format!("{embedding}.base_layer.weight"), zeros(&[16, 8]));
        tensors.insert(
            "base_model.model.lm_head.weight".to_owned(),
            zeros(&[16, 8]),
        );
    });
    let tensors = adapter.tensors(&selection).unwrap();
    assert_eq!(tensors.trained.len(), 2);
    let modules: Vec<&String> = tensors.base_weights.keys().collect();
    assert_eq!(modules, ["lm_head", "model.embed_tokens"]);

    let (adapter, selection) = saved(dir.path(), &config(&["q_proj"]), |tensors| {
        tensors.insert(format!("{embedding}.weight"), zeros(&[17, 8]));
    });
    let error = adapter.tensors(&selection).unwrap_err();
    insta::assert_snapshot!(message(dir.path(), &error), @r"
        DIR/adapter/adapter_model.safetensors: the adapter does not fit the base model; it seems to be for another base model: vocabulary 17, this base has 16; its base_model_name_or_path is `some/base`:
          base_model.model.model.embed_tokens.weight: expected [16, 8], found [17, 8]
        ");
}

#[test]
fn a_vocabulary_is_resized_only_by_embedding_and_head_together() {
    let dir = tempfile::tempdir().unwrap();
    let [embedding, head] = ["model.embed_tokens", "lm_head"];
    let rows = |tied: bool, keys: &[(String, [usize; 2])]| {
        let (adapter, _) = saved(dir.path(), &config(&["q_proj"]), |tensors| {
            for (key, shape) in keys {
                tensors.insert(key.clone(), zeros(shape));
            }
        });
        let mut base = base();
        base.tie_word_embeddings = tied;
        let message = adapter.resize(&mut base);
        assert_eq!(message.is_some(), base.vocab_size != 16);
        base.vocab_size
    };
    let plain = |module, rows| (frozen_key(module, false), [rows, 8]);
    let below = |module, rows| (frozen_key(module, true), [rows, 8]);
    for tied in [false, true] {
        assert_eq!(rows(tied, &[plain(embedding, 18), plain(head, 18)]), 18);
        assert_eq!(rows(tied, &[below(embedding, 18), plain(head, 18)]), 18);
        assert_eq!(rows(tied, &[plain(embedding, 18), plain(head, 17)]), 16);
        assert_eq!(rows(tied, &[plain(embedding, 18)]), 16);
        assert_eq!(rows(tied, &[]), 16);
        // PEFT saves the shared tensor of a tied pair once if it is adapted
        for end in [embedding, head] {
            assert_eq!(rows(tied, &[below(end, 18)]), if tied { 18 } else { 16 });
        }
    }
    let wide = |module| (frozen_key(module, false), [18, 9]);
    assert_eq!(rows(false, &[wide(embedding), wide(head)]), 16);
}

#[test]
fn folders_without_an_adapter_are_described() {
    let dir = tempfile::tempdir().unwrap();
    let error = || message(dir.path(), &AdapterFolder::open(dir.path()).unwrap_err());
    insta::assert_snapshot!(error(), @"DIR: no adapter_config.json in this folder");
    for name in ["second", "first"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join(CONFIG_FILE), "{}").unwrap();
    }
    insta::assert_snapshot!(error(), @"DIR: no adapter_config.json in this folder; it has adapters in subfolders: first, second (use DIR/first)");
    fs::write(dir.path().join(CONFIG_FILE), "{}").unwrap();
    for name in ["second", "first"] {
        fs::remove_dir_all(dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("lora.gguf"), "GGUF").unwrap();
    insta::assert_snapshot!(error(), @"DIR: no adapter_model.safetensors in this folder; it has lora.gguf, a GGUF file for llama.cpp");
    let file = message(
        dir.path(),
        &AdapterFolder::open(dir.path().join("lora.gguf")).unwrap_err(),
    );
    insta::assert_snapshot!(file, @"DIR/lora.gguf: a GGUF file, for llama.cpp; expected an adapter in PEFT's layout");
    let file = message(
        dir.path(),
        &AdapterFolder::open(dir.path().join(CONFIG_FILE)).unwrap_err(),
    );
    insta::assert_snapshot!(file, @"DIR/adapter_config.json: a file; expected the folder of an adapter");
}
