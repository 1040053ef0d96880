use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use burn::tensor::{DType, TensorData};
use proptest::prelude::*;
use serde_json::json;
use simmer_checkpoint::layout;
use simmer_checkpoint::{
    Checkpoint, INDEX_FILE, ModelConfig, PT_METADATA, Pretrained, SINGLE_FILE, Shard,
};
use simmer_files::Existing;
use simmer_hint::Hint;

use super::*;
use crate::adapter::peft::{AdapterFolder, KEY_PREFIX, tensor_shapes};
use crate::adapter::targets::{Unmatched, select};
use crate::adapter::tokens::TokenIndices;
use crate::adapter::{AdapterConfig, Bias, Card};
use crate::tensor_file::{ReadData, write_safetensors};

const TIED: &str = r#"{
  "architectures": [
    "LlamaForCausalLM"
  ],
  "hidden_size": 8,
  "initializer_range": 0.02,
  "intermediate_size": 12,
  "model_type": "llama",
  "num_attention_heads": 2,
  "num_hidden_layers": 2,
  "rms_norm_eps": 1e-05,
  "tie_word_embeddings": true,
  "torch_dtype": "bfloat16",
  "vocab_size": 16
}
"#;

/// Pseudo-random values that depend only on the name.
fn numbers(name: &str, len: usize) -> Vec<f32> {
    let mut state = name.bytes().fold(7_u64, |state, byte| {
        state.wrapping_mul(31).wrapping_add(byte.into())
    });
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn tensor(name: &str, shape: &[usize], dtype: DType) -> TensorData {
    let len = shape.iter().product();
    TensorData::new(numbers(name, len), shape.to_vec()).convert_dtype(dtype)
}

struct Case {
    dir: tempfile::TempDir,
    config: ModelConfig,
}

impl Case {
    /// A base model of random weights.
    fn new(config: &str, dtype: DType) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        fs::create_dir(&base).unwrap();
        fs::write(base.join("config.json"), config).unwrap();
        fs::write(base.join("tokenizer.json"), "{}").unwrap();
        fs::write(base.join("chat_template.jinja"), "x").unwrap();
        fs::write(base.join("README.md"), "the base's").unwrap();
        let config = ModelConfig::from_folder(&base).unwrap();
        let case = Self { dir, config };
        write_safetensors(
            base.join("model.safetensors"),
            &case.weights(dtype),
            PT_METADATA,
        )
        .unwrap();
        case
    }

    fn weights(&self, dtype: DType) -> BTreeMap<String, TensorData> {
        layout::tensors(&self.config)
            .into_iter()
            .map(|t| (t.name.clone(), tensor(&t.name, &t.shape, dtype)))
            .collect()
    }

    fn base(&self) -> PathBuf {
        self.dir.path().join("base")
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// Saves an adapter of random weights, and returns its tensors.
    fn adapter(&self, config: &AdapterConfig) -> BTreeMap<String, TensorData> {
        let selection = select(config, &layout::modules(&self.config), Unmatched::Refuse).unwrap();
        let tensors = tensor_shapes(&selection)
            .into_iter()
            .map(|(key, shape)| (key.clone(), tensor(&key, &shape, DType::F32)))
            .collect();
        self.save(config, &tensors);
        tensors
    }

    fn save(&self, config: &AdapterConfig, tensors: &BTreeMap<String, TensorData>) {
        let folder = self.dir.path().join("adapter");
        AdapterFolder::save(
            folder,
            config,
            tensors,
            &[],
            &Card::default(),
            Existing::Replace,
        )
        .unwrap();
    }

    fn merge(&self, options: MergeOptions) -> Result<MergeReport, MergeError> {
        let adapter = [WeightedAdapter::whole(self.dir.path().join("adapter"))];
        let mut seen = (0, 0);
        let mut progress = |done, total| {
            assert!(done > seen.0 && done <= total);
            seen = (done, total);
        };
        let report = merge(&self.base(), &adapter, &self.out(), options, &mut progress)?;
        assert_eq!(seen, (report.bytes, report.bytes));
        Ok(report)
    }

    /// The merged model and its configuration.
    fn merged(&self) -> (Checkpoint, ModelConfig) {
        let merged = Pretrained::open(&self.out()).unwrap();
        (merged.checkpoint, merged.config)
    }

    fn message(&self, error: &MergeError) -> String {
        error
            .to_string()
            .replace(&self.dir.path().display().to_string(), "DIR")
    }
}

fn targets(names: &[&str]) -> AdapterConfig {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    AdapterConfig {
        r: 2,
        lora_alpha: 3.0,
        target_modules: Some(crate::adapter::targets::Targets::Names(names)),
        ..AdapterConfig::default()
    }
}

fn values(data: &TensorData) -> Vec<f32> {
    data.clone()
        .convert_dtype(DType::F32)
        .as_slice::<f32>()
        .unwrap()
        .to_vec()
}

/// `W + s·B·A`, rounded as documented.
fn expected(weight: &TensorData, a: &TensorData, b: &TensorData, scaling: f64) -> TensorData {
    let [rows, columns] = <[usize; 2]>::try_from(&weight.shape().to_vec()[..]).unwrap();
    let (old, a, b) = (values(weight), values(a), values(b));
    let rank = b.len() / rows;
    let merged: Vec<f32> = (0..rows * columns)
        .map(|at| {
            let (row, column) = (at / columns, at % columns);
            let product = (0..rank).fold(0.0_f32, |sum, k| {
                b[row * rank + k].mul_add(a[k * columns + column], sum)
            });
            old[at] + product * scaling as f32
        })
        .collect();
    TensorData::new(merged, [rows, columns]).convert_dtype(weight.dtype())
}

fn assert_same(merged: &Checkpoint, name: &str, expected: &TensorData) {
    assert_eq!(merged.data(name).unwrap(), *expected, "{name}");
}

fn file_names(checkpoint: &Checkpoint) -> Vec<&str> {
    let shards = checkpoint.shards().iter();
    shards.map(|shard| shard.file.as_str()).collect()
}

fn file_of<'a>(checkpoint: &'a Checkpoint, name: &str) -> &'a str {
    let mut shards = checkpoint.shards().iter();
    let holds = |shard: &&Shard| shard.tensors.iter().any(|tensor| tensor.name == name);
    &shards.find(holds).unwrap().file
}

/// Merges with all weights 1, all of A equal to `a`, and all of B equal to `b`.
fn ones(dtype: DType, a: f32, b: f32) -> MergeReport {
    let case = Case::new(TIED, dtype);
    let constant = |value: f32, shape: &[usize], dtype| {
        let len = shape.iter().product();
        TensorData::new(vec![value; len], shape.to_vec()).convert_dtype(dtype)
    };
    let weights = layout::tensors(&case.config).into_iter();
    let weights = weights.map(|t| (t.name.clone(), constant(1.0, &t.shape, dtype)));
    let path = case.base().join(SINGLE_FILE);
    write_safetensors(path, &weights.collect(), PT_METADATA).unwrap();
    let config = AdapterConfig {
        r: 1,
        lora_alpha: 1.0,
        ..targets(&["q_proj"])
    };
    let selection = select(&config, &layout::modules(&case.config), Unmatched::Refuse).unwrap();
    let value = |key: &str| if key.contains("lora_A") { a } else { b };
    let tensors = tensor_shapes(&selection).into_iter();
    let tensors =
        tensors.map(|(key, shape)| (key.clone(), constant(value(&key), &shape, DType::F32)));
    case.save(&config, &tensors.collect());
    case.merge(MergeOptions::default()).unwrap()
}

#[test]
fn what_rounding_takes_of_a_change_is_counted() {
    // sums of equal values of few bits are exact; only the square root and the square round
    let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
    let all = |report: &MergeReport, holds: &dyn Fn(&MergedTensor) -> bool| {
        !report.merged.is_empty() && report.merged.iter().all(holds)
    };
    // bf16 values between 1 and 2 are 1/128 apart: a change of 1/1024 is lost, one of 1/128 is kept
    let lost = ones(DType::BF16, 1.0, 1.0 / 1024.0);
    assert!(all(&lost, &|tensor| close(tensor.lost, 1.0)
        && close(tensor.stored_change, 0.0)));
    assert!(close(lost.lost(), 1.0) && close(lost.merged[0].noise(), 1.0));
    let kept = ones(DType::BF16, 0.5, 1.0 / 64.0);
    assert!(all(&kept, &|tensor| close(tensor.lost, 0.0)
        && close(tensor.error, 0.0)));
    assert!(all(&kept, &|tensor| close(
        tensor.stored_change,
        tensor.change
    )));
    assert!(close(kept.rounding(), 0.0));
    // two thirds of a step are rounded up to one step
    let more = ones(DType::BF16, 1.0, 1.0 / 192.0);
    assert!(all(&more, &|tensor| close(tensor.lost, -0.5)));
    let zero = ones(DType::BF16, 1.0, 0.0);
    assert!(close(zero.lost(), 0.0) && close(zero.merged[0].noise(), 0.0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Every adapted matrix is W + s·B·A, and every other tensor equals the base model's, byte for byte.
    #[test]
    fn merged_is_base_plus_scaled_product(
        dtype in prop::sample::select(vec![DType::F32, DType::F16, DType::BF16]),
        rank in 1_usize..5,
        alpha in 0.25_f64..8.0,
        use_rslora: bool,
        names in prop::sample::subsequence(
            vec!["q_proj", "k_proj", "o_proj", "up_proj", "down_proj"], 1..5),
        sharded: bool,
    ) {
        let case = Case::new(&TIED.replace("true", "false"), dtype);
        let adapter = AdapterConfig { r: rank, lora_alpha: alpha, use_rslora, ..targets(&names) };
        let trained = case.adapter(&adapter);
        let options = MergeOptions {
            max_shard_bytes: sharded.then_some(1000),
            ..MergeOptions::default()
        };
        let report = case.merge(options).unwrap();
        prop_assert_eq!(report.merged.len(), 2 * names.len());
        prop_assert!(!report.untied);
        let divisor = if use_rslora { (rank as f64).sqrt() } else { rank as f64 };
        let (merged, _) = case.merged();
        prop_assert_eq!(merged.shards()[0].file != SINGLE_FILE, sharded);
        for (name, weight) in case.weights(dtype) {
            let module = name.strip_suffix(".weight").unwrap();
            let part = |part| trained.get(&format!("{KEY_PREFIX}{module}.lora_{part}.weight"));
            match (part("A"), part("B")) {
                (Some(a), Some(b)) => {
                    let expected = expected(&weight, a, b, alpha / divisor);
                    assert_same(&merged, &name, &expected);
                }
                _ => assert_same(&merged, &name, &weight),
            }
        }
    }
}

/// Compares with PEFT's merges, from tests/reference/adapters.py: at most one ulp of the stored dtype apart.
#[test]
fn merges_are_pefts() {
    let goldens = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens"));
    let mut compared = 0;
    for (model, adapter) in [
        ("tied-gqa", "qkvo"),
        ("tied-gqa", "rslora"),
        ("untied-mha", "all-linear"),
        ("untied-mha", "lora-only-bias"),
        ("untied-mha", "saved-head"),
        ("llama3-rope", "qkvo"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let base = goldens.join(model);
        let folder = base.join("adapters").join(adapter);
        let options = MergeOptions::default();
        merge(
            &base,
            &[WeightedAdapter::whole(&folder)],
            &out,
            options,
            &mut |_, _| (),
        )
        .unwrap();
        let theirs = simmer_checkpoint::SafetensorsFile::open(folder.join("golden.safetensors"));
        let theirs = theirs.unwrap();
        let (ours, old) = (
            Checkpoint::open(&out).unwrap(),
            Checkpoint::open(&base).unwrap(),
        );
        assert_eq!(file_names(&ours), file_names(&old));
        for name in old.all_names() {
            let key = format!("merged.{name}");
            if !theirs.contains(&key) {
                assert_same(&ours, name, &old.data(name).unwrap());
                continue;
            }
            let (theirs, ours) = (theirs.data(&key).unwrap(), ours.data(name).unwrap());
            assert_eq!(theirs.dtype(), ours.dtype(), "{name}");
            let apart = ulps_apart(&theirs, &ours);
            assert!(apart <= 1, "{model} {adapter} {name}: {apart} ulps apart");
            compared += 1;
        }
    }
    assert!(compared > 50);
}

/// The largest distance between two tensors, in steps of their dtype.
pub(super) fn ulps_apart(a: &TensorData, b: &TensorData) -> i64 {
    fn ordered(bits: i64, sign: i64) -> i64 {
        if bits & sign == 0 { bits } else { sign - bits }
    }
    let steps = |data: &TensorData| -> Vec<i64> {
        let bytes = data.as_bytes();
        if data.dtype() == DType::F32 {
            let words = bytes.as_chunks::<4>().0.iter();
            words
                .map(|w| ordered(u32::from_le_bytes(*w).into(), 1 << 31))
                .collect()
        } else {
            let words = bytes.as_chunks::<2>().0.iter();
            words
                .map(|w| ordered(u16::from_le_bytes(*w).into(), 1 << 15))
                .collect()
        }
    };
    let pairs = steps(a).into_iter().zip(steps(b));
    pairs.map(|(a, b)| (a - b).abs()).max().unwrap_or_default()
}

#[test]
fn an_adapted_tied_embedding_gets_a_head_of_its_own() {
    let case = Case::new(TIED, DType::BF16);
    let trained = case.adapter(&targets(&["embed_tokens"]));
    let report = case.merge(MergeOptions::default()).unwrap();
    assert!(report.untied);
    assert_eq!(report.merged[0].name, "model.embed_tokens.weight");
    let (merged, config) = case.merged();
    assert!(!config.tie_word_embeddings);
    let old = tensor("model.embed_tokens.weight", &[16, 8], DType::BF16);
    assert_same(&merged, "lm_head.weight", &old);

    let part = |part: &str| {
        let key = format!("{KEY_PREFIX}model.embed_tokens.lora_embedding_{part}");
        values(&trained[&key])
    };
    let (a, b, old) = (part("A"), part("B"), values(&old));
    let new = values(&merged.data("model.embed_tokens.weight").unwrap());
    for (at, (new, old)) in new.iter().zip(old).enumerate() {
        let (token, feature) = (at / 8, at % 8);
        let delta = (0..2)
            .map(|k| a[k * 16 + token] * b[feature * 2 + k])
            .sum::<f32>()
            * 1.5;
        assert!((new - old - delta).abs() < 0.02, "{new} {old} {delta}");
    }
}

#[test]
fn an_adapted_tied_head_leaves_the_embedding() {
    let case = Case::new(TIED, DType::F32);
    let trained = case.adapter(&targets(&["lm_head"]));
    assert!(case.merge(MergeOptions::default()).unwrap().untied);
    let (merged, _) = case.merged();
    let old = tensor("model.embed_tokens.weight", &[16, 8], DType::F32);
    assert_same(&merged, "model.embed_tokens.weight", &old);
    let part = |part: &str| &trained[&format!("{KEY_PREFIX}lm_head.lora_{part}.weight")];
    assert_same(
        &merged,
        "lm_head.weight",
        &expected(&old, part("A"), part("B"), 1.5),
    );
}

#[test]
fn saved_modules_and_biases_take_the_place_of_the_bases() {
    for (saved, kept) in [
        ("lm_head", "model.embed_tokens"),
        ("embed_tokens", "lm_head"),
    ] {
        let config = TIED.replace(
            "\"model_type\"",
            "\"attention_bias\": true,\n  \"model_type\"",
        );
        let case = Case::new(&config, DType::F16);
        let adapter = AdapterConfig {
            modules_to_save: Some(vec![saved.to_owned(), "norm".to_owned()]),
            bias: Bias::All,
            ..targets(&["q_proj"])
        };
        let trained = case.adapter(&adapter);
        let report = case.merge(MergeOptions::default()).unwrap();
        assert!(report.untied);
        // head or embedding, five norms, and the biases of q, k, v and o in two layers
        assert_eq!(report.replaced.len(), 1 + 5 + 8);
        let (merged, _) = case.merged();
        let half = |key: &str| {
            trained[&format!("{KEY_PREFIX}{key}")]
                .clone()
                .convert_dtype(DType::F16)
        };
        let saved = if saved == "lm_head" {
            saved
        } else {
            "model.embed_tokens"
        };
        let saved = format!("{saved}.weight");
        assert_same(&merged, &saved, &half(&saved));
        let old = tensor("model.embed_tokens.weight", &[16, 8], DType::F16);
        assert_same(&merged, &format!("{kept}.weight"), &old);
        assert_same(&merged, "model.norm.weight", &half("model.norm.weight"));
        let attention = "model.layers.1.self_attn";
        let wrapped = half(&format!("{attention}.q_proj.base_layer.bias"));
        assert_same(&merged, &format!("{attention}.q_proj.bias"), &wrapped);
        let plain = half(&format!("{attention}.k_proj.bias"));
        assert_same(&merged, &format!("{attention}.k_proj.bias"), &plain);
    }
}

#[test]
fn base_weights_beside_an_adapter_are_used() {
    let case = Case::new(TIED, DType::F32);
    let config = targets(&["embed_tokens"]);
    let mut tensors = case.adapter(&config);
    let other = tensor("another", &[16, 8], DType::F32);
    let key = format!("{KEY_PREFIX}model.embed_tokens.base_layer.weight");
    tensors.insert(key, other.clone());
    case.save(&config, &tensors);
    case.merge(MergeOptions::default()).unwrap();
    let (merged, _) = case.merged();
    assert_same(&merged, "lm_head.weight", &other);
}

#[test]
fn only_what_must_change_in_the_configuration_does() {
    let case = Case::new(TIED, DType::BF16);
    case.adapter(&targets(&["q_proj"]));
    let report = case.merge(MergeOptions::default()).unwrap();
    assert_eq!(report.copied, ["chat_template.jinja", "tokenizer.json"]);
    assert!(report.merged.iter().all(|tensor| tensor.max_error > 0.0
        && tensor.max_error < 0.01
        && tensor.max_change > 0.1));
    assert_eq!(
        fs::read_to_string(case.out().join("config.json")).unwrap(),
        TIED
    );

    fs::remove_dir_all(case.out()).unwrap();
    case.adapter(&targets(&["lm_head"]));
    let options = MergeOptions {
        dtype: Some(Dtype::F32),
        ..MergeOptions::default()
    };
    case.merge(options).unwrap();
    let expected = TIED
        .replace(
            "\"tie_word_embeddings\": true",
            "\"tie_word_embeddings\": false",
        )
        .replace("bfloat16", "float32");
    assert_eq!(
        fs::read_to_string(case.out().join("config.json")).unwrap(),
        expected
    );
    let (merged, _) = case.merged();
    assert!(merged.tensors().all(|(_, info)| info.dtype == Dtype::F32));
}

#[test]
fn shards_and_rotary_buffers_stay_as_they_are() {
    let case = Case::new(TIED, DType::F16);
    let mut weights = case.weights(DType::F16);
    let buffer = "model.layers.0.self_attn.rotary_emb.inv_freq";
    weights.insert(buffer.to_owned(), tensor(buffer, &[2], DType::F32));
    fs::remove_file(case.base().join("model.safetensors")).unwrap();
    let (mut first, mut second) = (BTreeMap::new(), BTreeMap::new());
    let mut map = serde_json::Map::new();
    for (position, (name, data)) in weights.into_iter().enumerate() {
        let (shard, file) = if position % 2 == 0 {
            (&mut first, "a.safetensors")
        } else {
            (&mut second, "b.safetensors")
        };
        map.insert(name.clone(), file.into());
        shard.insert(name, data);
    }
    write_safetensors(case.base().join("a.safetensors"), &first, PT_METADATA).unwrap();
    write_safetensors(case.base().join("b.safetensors"), &second, PT_METADATA).unwrap();
    let index = json!({"metadata": {}, "weight_map": map});
    fs::write(case.base().join(INDEX_FILE), index.to_string()).unwrap();

    case.adapter(&targets(&["q_proj", "embed_tokens"]));
    let options = MergeOptions {
        dtype: Some(Dtype::BF16),
        ..MergeOptions::default()
    };
    case.merge(options).unwrap();
    let (merged, _) = case.merged();
    assert_eq!(merged.info(buffer).unwrap().dtype, Dtype::F32);
    let base = Checkpoint::open(case.base()).unwrap();
    for name in base.all_names() {
        assert_eq!(file_of(&merged, name), file_of(&base, name), "{name}");
    }
    assert_eq!(
        file_of(&merged, "lm_head.weight"),
        file_of(&merged, "model.embed_tokens.weight")
    );
}

#[test]
fn an_adapter_of_another_base_is_refused_with_everything_said() {
    let small = Case::new(TIED, DType::F32);
    let large = Case::new(
        &TIED
            .replace("\"hidden_size\": 8", "\"hidden_size\": 16")
            .replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"),
        DType::F32,
    );
    let config = AdapterConfig {
        base_model_name_or_path: Some("some/large".to_owned()),
        ..targets(&["q_proj", "down_proj"])
    };
    let tensors = large.adapter(&config);
    small.save(&config, &tensors);
    let error = small.merge(MergeOptions::default()).unwrap_err();
    insta::assert_snapshot!(small.message(&error), @"DIR/adapter/adapter_model.safetensors: the adapter does not fit the base model; it seems to be for another base model: hidden size 16, this base has 8; layers 3, this base has 2; its base_model_name_or_path is `some/large`");
    assert!(error.hint().unwrap().contains("base_model_name_or_path"));
    assert!(!small.out().exists());
}

#[test]
fn an_incomplete_adapter_is_refused() {
    let case = Case::new(TIED, DType::F32);
    let config = targets(&["q_proj"]);
    let mut tensors = case.adapter(&config);
    tensors.remove(&format!(
        "{KEY_PREFIX}model.layers.1.self_attn.q_proj.lora_B.weight"
    ));
    tensors.insert("extra".to_owned(), tensor("extra", &[1], DType::F32));
    case.save(&config, &tensors);
    let error = case.merge(MergeOptions::default()).unwrap_err();
    insta::assert_snapshot!(case.message(&error), @r"
    DIR/adapter/adapter_model.safetensors: the adapter does not fit the base model:
      base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight: missing, expected [8, 2]
      extra: unexpected, found [1]
    ");
}

#[test]
fn weights_that_leave_the_number_type_are_refused() {
    let case = Case::new(TIED, DType::F16);
    let config = AdapterConfig {
        lora_alpha: 1e6,
        ..targets(&["q_proj"])
    };
    case.adapter(&config);
    let error = case.merge(MergeOptions::default()).unwrap_err();
    insta::assert_snapshot!(error, @"tensor `model.layers.0.self_attn.q_proj.weight`, row 0: a merged weight is not finite in F16");
    assert!(error.hint().unwrap().contains("bf16 or f32"));
    assert!(!case.out().exists());
    let options = MergeOptions {
        dtype: Some(Dtype::BF16),
        ..MergeOptions::default()
    };
    case.merge(options).unwrap();
}

#[test]
fn outputs_and_types_that_cannot_be_are_refused() {
    let case = Case::new(TIED, DType::F32);
    case.adapter(&targets(&["q_proj"]));
    let options = MergeOptions {
        dtype: Some(Dtype::I64),
        ..MergeOptions::default()
    };
    let error = case.merge(options).unwrap_err();
    insta::assert_snapshot!(error, @"dtype: expected F32, F16 or BF16, found I64");
    fs::create_dir(case.out()).unwrap();
    fs::write(case.out().join("mine"), "").unwrap();
    let error = case.merge(MergeOptions::default()).unwrap_err();
    insta::assert_snapshot!(case.message(&error), @"DIR/out: already exists and is not an empty folder");
    assert_eq!(fs::read_dir(case.out()).unwrap().count(), 1);
    assert_eq!(fs::read_dir(case.dir.path()).unwrap().count(), 3);
}

/// Two adapters of one base model: one adds rows to the vocabulary, the other changed the whole embedding before.
#[test]
fn new_rows_of_one_adapter_stand_below_the_changed_ones_of_another() {
    let case = Case::new(TIED, DType::F32);
    let folder = |name: &str| case.dir.path().join(name);
    let whole = AdapterConfig {
        modules_to_save: Some(vec!["embed_tokens".to_owned()]),
        ..targets(&["q_proj"])
    };
    let whole = case.adapter(&whole);
    fs::rename(folder("adapter"), folder("whole")).unwrap();
    let more = Case {
        config: ModelConfig {
            vocab_size: 18,
            ..case.config.clone()
        },
        dir: tempfile::tempdir().unwrap(),
    };
    let rows = AdapterConfig {
        trainable_token_indices: Some(TokenIndices::OfEmbedding(vec![16, 17])),
        ..targets(&["v_proj"])
    };
    let rows = more.adapter(&rows);
    fs::rename(more.dir.path().join("adapter"), folder("rows")).unwrap();
    let name = "model.embed_tokens.weight";
    let of = |tensors: &BTreeMap<String, TensorData>, part: &str| {
        let found = tensors.iter().find(|(key, _)| key.contains(part));
        values(found.unwrap().1)
    };
    let old = of(&case.weights(DType::F32), name);
    let changed = of(&whole, "embed_tokens");
    let halved = old
        .iter()
        .zip(&changed)
        .map(|(old, new)| old + 0.5 * (new - old));
    let added = of(&rows, "embed_tokens");
    let expected: Vec<f32> = halved.chain(added.iter().copied()).collect();
    let head: Vec<f32> = old.iter().chain(&added).copied().collect();
    for order in [["whole", "rows"], ["rows", "whole"]] {
        let adapters = order.map(|name| WeightedAdapter {
            folder: folder(name),
            weight: if name == "whole" { 0.5 } else { 2.0 },
        });
        let out = folder(&format!("{}-first", order[0]));
        let options = MergeOptions::default();
        let report = merge(&case.base(), &adapters, &out, options, &mut |_, _| ()).unwrap();
        assert!(report.untied);
        let merged = Pretrained::open(&out).unwrap();
        assert_eq!(merged.config.vocab_size, 18);
        let data = |name| values(&merged.checkpoint.data(name).unwrap());
        assert_eq!(data(name), expected);
        assert_eq!(data("lm_head.weight"), head);
    }
}

/// A token that is added to a spare row of the embedding is as new as one that needs a row more.
#[test]
fn tokens_in_spare_rows_are_taken_as_they_are() {
    let case = Case::new(TIED, DType::F32);
    let folder = |name: &str| case.dir.path().join(name);
    let config = AdapterConfig {
        trainable_token_indices: Some(TokenIndices::OfEmbedding(vec![3, 14])),
        ..targets(&["v_proj"])
    };
    let tensors = case.adapter(&config);
    let (_, trained) = tensors
        .iter()
        .find(|(key, _)| key.contains("embed_tokens"))
        .unwrap();
    let trained = values(trained);
    let old = values(&case.weights(DType::F32)["model.embed_tokens.weight"]);
    let options = MergeOptions {
        base_tokens: Some(14),
        ..MergeOptions::default()
    };
    let adapter = |weight| WeightedAdapter {
        folder: folder("adapter"),
        weight,
    };
    let out = folder("halved");
    merge(&case.base(), &[adapter(0.5)], &out, options, &mut |_, _| ()).unwrap();
    let merged = Pretrained::open(&out).unwrap();
    let merged = values(&merged.checkpoint.data("model.embed_tokens.weight").unwrap());
    let row = |of: &[f32], row: usize| of[8 * row..][..8].to_vec();
    assert_eq!(row(&merged, 14), row(&trained, 1));
    assert_eq!(row(&merged, 15), row(&old, 15));
    let half: Vec<f32> = (row(&old, 3).iter().zip(row(&trained, 0)))
        .map(|(old, new)| old + 0.5 * (new - old))
        .collect();
    assert_eq!(row(&merged, 3), half);
    let both = [adapter(1.0), adapter(1.0)];
    let error = merge(&case.base(), &both, &folder("two"), options, &mut |_, _| ()).unwrap_err();
    insta::assert_snapshot!(case.message(&error), @"DIR/adapter and DIR/adapter: both add tokens to the vocabulary, and a new token has no base weight that a weighted change could be added to");
    // the tokenizer alone tells that a token is new
    let whole = AdapterConfig {
        modules_to_save: Some(vec!["embed_tokens".to_owned()]),
        ..targets(&["v_proj"])
    };
    let tensors = case.adapter(&whole);
    let tokenizer = r#"{"added_tokens": [{"id": 14, "content": "<new>"}], "model": {"vocab": {}}}"#;
    fs::write(folder("adapter").join("tokenizer.json"), tokenizer).unwrap();
    let out = folder("whole");
    merge(&case.base(), &[adapter(0.5)], &out, options, &mut |_, _| ()).unwrap();
    let merged = Pretrained::open(&out).unwrap();
    let merged = values(&merged.checkpoint.data("model.embed_tokens.weight").unwrap());
    let (_, trained) = tensors
        .iter()
        .find(|(key, _)| key.contains("embed_tokens"))
        .unwrap();
    assert_eq!(row(&merged, 14), row(&values(trained), 14));
}
