use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::RopeScaling;
use crate::family::{Family, LLAMA};
use crate::pth::PthWriter;
use crate::{Checkpoint, Dtype, ModelConfig, Pretrained, SafetensorsFile, TensorSpec};

fn golden(name: &str) -> PathBuf {
    let goldens = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/meta");
    goldens.join(name)
}

/// A copy of a golden model that a test may damage.
fn copied(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn edit_params(dir: &Path, key: &str, value: Value) {
    let path = dir.join(PARAMS_FILE);
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    json[key] = value;
    fs::write(path, json.to_string()).unwrap();
}

fn said(dir: &Path) -> String {
    let error = open(dir).unwrap_err();
    error.to_string().replace(&dir.display().to_string(), "DIR")
}

fn params(json: &Value) -> Params {
    Params::from_json(json, Path::new(PARAMS_FILE)).unwrap()
}

/// Checks that all tensors of two checkpoints are equal, completely and by some of their rows.
fn assert_same(checkpoint: &Checkpoint, expected: &SafetensorsFile) {
    let mut names: Vec<&str> = expected.names().collect();
    names.sort_unstable();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), names);
    for name in names {
        let whole = expected.tensor(name).unwrap();
        assert_eq!(checkpoint.tensor(name).unwrap(), whole, "{name}");
        let rows = whole.shape[0];
        let width = whole.bytes.len() / rows;
        for rows in [0..1, rows / 3..rows - 1] {
            let expected = &whole.bytes[rows.start * width..rows.end * width];
            assert_eq!(checkpoint.rows(name, rows).unwrap(), expected, "{name}");
        }
    }
}

#[test]
fn every_number_of_parts_reads_as_hugging_face() {
    for (name, rotary) in [
        ("llama1/2", 1),
        ("llama1/8", 1),
        ("llama3/1", 0),
        ("llama3/4", 0),
    ] {
        let expected = golden(name).join("../expected.safetensors");
        let expected = SafetensorsFile::open(expected).unwrap();
        let pretrained = open(&golden(name)).unwrap();
        assert_same(&pretrained.checkpoint, &expected);
        assert_eq!(pretrained.checkpoint.rotary_buffers(), rotary);
    }
}

#[test]
fn shapes_come_from_params_and_weights() {
    let config = |name| open(&golden(name)).unwrap().config;
    insta::assert_debug_snapshot!(config("llama1/8"), @r"
    ModelConfig {
        family: llama,
        vocab_size: 16,
        hidden_size: 32,
        intermediate_size: 88,
        num_hidden_layers: 1,
        num_attention_heads: 8,
        num_key_value_heads: 8,
        head_dim: 4,
        rms_norm_eps: 1e-6,
        rope_theta: 10000.0,
        rope_scaling: Default,
        max_position_embeddings: 2048,
        attention_bias: false,
        mlp_bias: false,
        sliding_window: None,
        layer_types: [],
        no_rope_layers: [],
        rope_local_base_freq: None,
        partial_rotary_factor: 1.0,
        query_pre_attn_scalar: None,
        attn_logit_softcapping: None,
        final_logit_softcapping: None,
        embedding_multiplier: 1.0,
        attention_multiplier: None,
        residual_multiplier: 1.0,
        logits_scaling: 1.0,
        tie_word_embeddings: false,
        initializer_range: 0.02,
        bos_token_id: None,
        eos_token_id: [],
        file: none,
    }
    ");
    let llama3 = config("llama3/4");
    assert_eq!(llama3, config("llama3/1"));
    insta::assert_debug_snapshot!(llama3, @r"
    ModelConfig {
        family: llama,
        vocab_size: 24,
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 1,
        num_attention_heads: 8,
        num_key_value_heads: 4,
        head_dim: 4,
        rms_norm_eps: 1e-5,
        rope_theta: 500000.0,
        rope_scaling: Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        },
        max_position_embeddings: 131072,
        attention_bias: false,
        mlp_bias: false,
        sliding_window: None,
        layer_types: [],
        no_rope_layers: [],
        rope_local_base_freq: None,
        partial_rotary_factor: 1.0,
        query_pre_attn_scalar: None,
        attn_logit_softcapping: None,
        final_logit_softcapping: None,
        embedding_multiplier: 1.0,
        attention_multiplier: None,
        residual_multiplier: 1.0,
        logits_scaling: 1.0,
        tie_word_embeddings: false,
        initializer_range: 0.02,
        bos_token_id: None,
        eos_token_id: [],
        file: none,
    }
    ");
}

#[test]
fn published_params_make_the_published_shapes() {
    for (json, intermediate, context, factor) in [
        (
            json!({"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-6, "vocab_size": -1}),
            11008,
            2048,
            None,
        ),
        (
            json!({"dim": 8192, "multiple_of": 256, "n_heads": 64, "n_layers": 80, "norm_eps": 1e-5, "vocab_size": -1}),
            22016,
            2048,
            None,
        ),
        (
            json!({"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-5, "vocab_size": -1}),
            11008,
            4096,
            None,
        ),
        (
            json!({"dim": 8192, "multiple_of": 4096, "ffn_dim_multiplier": 1.3, "n_heads": 64, "n_kv_heads": 8, "n_layers": 80, "norm_eps": 1e-5, "vocab_size": -1}),
            28672,
            4096,
            None,
        ),
        (
            json!({"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-5, "rope_theta": 1e6, "vocab_size": 32016}),
            11008,
            16384,
            None,
        ),
        (
            json!({"dim": 4096, "multiple_of": 1024, "ffn_dim_multiplier": 1.3, "n_heads": 32, "n_kv_heads": 8, "n_layers": 32, "norm_eps": 1e-5, "rope_theta": 5e5, "vocab_size": 128_256}),
            14336,
            8192,
            None,
        ),
        (
            json!({"dim": 16384, "multiple_of": 4096, "ffn_dim_multiplier": 1.2, "n_heads": 128, "n_kv_heads": 8, "n_layers": 126, "norm_eps": 1e-5, "rope_theta": 5e5, "use_scaled_rope": true, "vocab_size": 128_256}),
            53248,
            131_072,
            Some(8.0),
        ),
        (
            json!({"dim": 2048, "multiple_of": 256, "ffn_dim_multiplier": 1.5, "n_heads": 32, "n_kv_heads": 8, "n_layers": 16, "norm_eps": 1e-5, "rope_theta": 5e5, "use_scaled_rope": true, "vocab_size": 128_256}),
            8192,
            131_072,
            Some(32.0),
        ),
        (
            json!({"dim": 3072, "multiple_of": 256, "ffn_dim_multiplier": 1.0, "n_heads": 24, "n_kv_heads": 8, "n_layers": 28, "norm_eps": 1e-5, "rope_theta": 5e5, "use_scaled_rope": true, "vocab_size": 128_256}),
            8192,
            131_072,
            Some(32.0),
        ),
    ] {
        let params = params(&json);
        assert_eq!(params.intermediate_size(), Some(intermediate), "{json}");
        assert_eq!(params.max_seq_len, context, "{json}");
        let found = match params.rope_scaling {
            RopeScaling::Llama3 { factor, .. } => Some(factor),
            _ => None,
        };
        assert_eq!(found, factor, "{json}");
    }
}

fn config(json: &Value) -> ModelConfig {
    ModelConfig::from_json(json, Path::new("config.json")).unwrap()
}

fn small() -> Value {
    json!({"vocab_size": 16, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 8, "num_key_value_heads": 8, "rms_norm_eps": 1e-6})
}

#[test]
fn params_say_no_more_than_they_have_to() {
    let written = |json: &Value| Params::of(&config(json)).unwrap().to_json().to_string();
    insta::assert_snapshot!(written(&small()), @r#"{"dim":32,"ffn_dim_multiplier":0.5,"multiple_of":16,"n_heads":8,"n_layers":2,"norm_eps":1e-6,"vocab_size":16}"#);
    let llama3 = json!({"vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5, "rope_theta": 5e5, "max_position_embeddings": 131_072,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}});
    insta::assert_snapshot!(written(&llama3), @r#"{"dim":4096,"ffn_dim_multiplier":1.3,"multiple_of":256,"n_heads":32,"n_kv_heads":8,"n_layers":32,"norm_eps":0.00001,"rope_theta":500000.0,"use_scaled_rope":true,"vocab_size":128256}"#);
    let mut smollm = small();
    smollm["max_position_embeddings"] = json!(8192);
    smollm["rope_theta"] = json!(1e5);
    insta::assert_snapshot!(written(&smollm), @r#"{"dim":32,"ffn_dim_multiplier":0.5,"multiple_of":16,"n_heads":8,"n_layers":2,"norm_eps":1e-6,"rope_theta":100000.0,"max_seq_len":8192,"vocab_size":16}"#);
}

#[test]
fn another_family_is_refused() {
    static OTHER: Family = Family {
        model_type: "other",
        ..LLAMA
    };
    let config = ModelConfig {
        family: &OTHER,
        ..config(&small())
    };
    insta::assert_snapshot!(Params::of(&config).unwrap_err(), @r#"
    Meta's layout cannot hold this model:
      `model_type`: expected "llama", found "other"
    "#);
}

#[test]
fn what_meta_has_no_words_for_is_refused_at_once() {
    let mut json = small();
    json["attention_bias"] = json!(true);
    json["head_dim"] = json!(6);
    json["rope_scaling"] = json!({"type": "linear", "factor": 4.0});
    insta::assert_snapshot!(Params::of(&config(&json)).unwrap_err(), @r"
    Meta's layout cannot hold this model:
      `attention_bias`: expected false, found true
      `head_dim`: expected hidden_size / num_attention_heads (32 / 8), found 6
      `rope_scaling`: expected default, or llama3 with low_freq_factor 1 and original_max_position_embeddings 8192, found linear with factor 4
    ");
    json["mlp_bias"] = json!(true);
    json["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32});
    insta::assert_snapshot!(Params::of(&config(&json)).unwrap_err(), @r"
    Meta's layout cannot hold this model:
      `attention_bias`: expected false, found true
      `mlp_bias`: expected false, found true
      `head_dim`: expected hidden_size / num_attention_heads (32 / 8), found 6
      `rope_scaling`: expected default, or llama3 with low_freq_factor 1 and original_max_position_embeddings 8192, found 1 and 32
    ");
}

#[test]
fn params_that_mean_something_else_are_refused() {
    let refused = |key: &str, value: Value| {
        let mut json = json!({"dim": 32, "n_heads": 8, "n_layers": 2});
        json[key] = value;
        let error = Params::from_json(&json, Path::new(PARAMS_FILE)).unwrap_err();
        error.to_string()
    };
    insta::assert_snapshot!(refused("dim", json!("x")), @r#"params.json: `dim`: expected a positive integer, found "x""#);
    insta::assert_snapshot!(refused("n_heads", json!(5)), @"params.json: `n_heads`: expected a divisor of `dim` (32), found 5");
    insta::assert_snapshot!(refused("vocab_size", json!(-2)), @"params.json: `vocab_size`: expected a positive integer, found -2");
    insta::assert_snapshot!(refused("quantization_args", json!({"group_size": 256})), @r#"params.json: `quantization_args`: expected none (weights in f16, bf16 or f32), found {"group_size":256}"#);
    insta::assert_snapshot!(refused("moe", json!({"num_experts": 8})), @r#"params.json: `moe`: expected none (a model without experts), found {"num_experts":8}"#);
}

#[test]
fn missing_and_foreign_files_are_named() {
    let dir = copied("llama1/8");
    fs::remove_file(dir.path().join("consolidated.03.pth")).unwrap();
    insta::assert_snapshot!(said(dir.path()), @"DIR: 1 of 8 files are missing: consolidated.03.pth (consolidated.07.pth exists)");
    for number in 2..8 {
        let _ = fs::remove_file(dir.path().join(shard_file(number)));
    }
    insta::assert_snapshot!(said(dir.path()), @"DIR: 6 of 8 files are missing: consolidated.02.pth, consolidated.03.pth, consolidated.04.pth, consolidated.05.pth, consolidated.06.pth, consolidated.07.pth (layers.0.attention.wq.weight has 4 of 32 rows)");
    let dir = copied("llama1/2");
    fs::copy(
        dir.path().join("consolidated.01.pth"),
        dir.path().join("consolidated.02.pth"),
    )
    .unwrap();
    insta::assert_snapshot!(said(dir.path()), @"DIR: 3 files, but their tensors are split into 2 (layers.0.attention.wq.weight has 16 of 32 rows)");
    for number in 0..3 {
        fs::remove_file(dir.path().join(shard_file(number))).unwrap();
    }
    insta::assert_snapshot!(said(dir.path()), @"DIR: no consolidated.00.pth in this folder");
    fs::remove_file(dir.path().join(PARAMS_FILE)).unwrap();
    assert!(said(dir.path()).starts_with("cannot read DIR/params.json"));
}

#[test]
fn damaged_files_are_named() {
    let dir = copied("llama1/2");
    fs::copy(golden("module.pth"), dir.path().join("consolidated.01.pth")).unwrap();
    insta::assert_snapshot!(said(dir.path()), @"DIR/consolidated.01.pth: its pickle refers to `torch.nn.modules.linear.Linear` at byte 2, which is not part of a tensor");
    fs::write(dir.path().join("consolidated.01.pth"), b"").unwrap();
    insta::assert_snapshot!(said(dir.path()), @"DIR/consolidated.01.pth: not a file of torch.save: expected a zip archive, found bytes");
}

#[test]
fn all_that_does_not_fit_params_is_said_together() {
    let dir = copied("llama1/2");
    edit_params(dir.path(), "n_layers", json!(2));
    edit_params(dir.path(), "vocab_size", json!(18));
    insta::assert_snapshot!(said(dir.path()), @r"
    the weights in DIR do not match its params.json
    consolidated.00.pth, consolidated.01.pth:
      layers.1.attention.wk.weight: missing, expected [16, 32]
      layers.1.attention.wo.weight: missing, expected [32, 16]
      layers.1.attention.wq.weight: missing, expected [16, 32]
      layers.1.attention.wv.weight: missing, expected [16, 32]
      layers.1.attention_norm.weight: missing, expected [32]
      layers.1.feed_forward.w1.weight: missing, expected [44, 32]
      layers.1.feed_forward.w2.weight: missing, expected [32, 44]
      layers.1.feed_forward.w3.weight: missing, expected [44, 32]
      layers.1.ffn_norm.weight: missing, expected [32]
      output.weight: expected [9, 32], found [8, 32]
      tok_embeddings.weight: expected [18, 16], found [16, 16]
    ");
    let dir = copied("llama1/2");
    fs::copy(
        golden("llama1/8/consolidated.01.pth"),
        dir.path().join("consolidated.01.pth"),
    )
    .unwrap();
    insta::assert_snapshot!(said(dir.path()), @"DIR/params.json: `multiple_of` and `ffn_dim_multiplier`: expected values that give the 55 rows of layers.0.feed_forward.w1.weight, found 8 and nothing, which give 88");
    let dir = copied("llama1/2");
    edit_params(dir.path(), "multiple_of", json!(256));
    insta::assert_snapshot!(said(dir.path()), @"DIR/params.json: `multiple_of` and `ffn_dim_multiplier`: expected values that give the 88 rows of layers.0.feed_forward.w1.weight, found 256 and nothing, which give 256");
    edit_params(dir.path(), "n_layers", json!(1u64 << 40));
    insta::assert_snapshot!(said(dir.path()), @"DIR/params.json: `n_layers`: expected at most the 13 tensors of consolidated.00.pth, found 1099511627776");
}

/// Weights whose bytes show their tensor and place.
fn weights(config: &ModelConfig, dtype: Dtype, seed: u8) -> Vec<(TensorSpec, Vec<u8>)> {
    let tensors = crate::layout::tensors(config).into_iter().enumerate();
    let weights = tensors.map(|(place, tensor)| {
        let len = tensor.shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let start = seed as usize + place * 31;
        let bytes = (0..len).map(|at| ((start + at * 7) % 251) as u8).collect();
        let spec = TensorSpec {
            name: tensor.name,
            dtype,
            shape: tensor.shape,
        };
        (spec, bytes)
    });
    weights.collect()
}

fn write(
    out: &Path,
    config: &ModelConfig,
    weights: &[(TensorSpec, Vec<u8>)],
    options: MetaOptions,
    piece: usize,
) {
    let specs: Vec<TensorSpec> = weights.iter().map(|(spec, _)| spec.clone()).collect();
    let mut writer = MetaWriter::create(out, config, &specs, options).unwrap();
    for (spec, bytes) in weights.iter().rev() {
        for piece in bytes.chunks(piece) {
            writer.append(&spec.name, piece).unwrap();
        }
    }
    writer.finish().unwrap();
}

fn assert_round_trip(json: &Value, dtype: Dtype, options: MetaOptions, piece: usize) {
    let config = config(json);
    let weights = weights(&config, dtype, 5);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    write(&out, &config, &weights, options, piece);
    let Pretrained {
        config: read,
        checkpoint,
    } = open(&out).unwrap();
    assert_eq!(read, config);
    let names: Vec<&str> = checkpoint.names().collect();
    assert_eq!(names.len(), weights.len());
    for (spec, bytes) in &weights {
        assert_eq!(
            &checkpoint.tensor(&spec.name).unwrap().bytes[..],
            bytes,
            "{}",
            spec.name
        );
    }
    let again = dir.path().join("again");
    write(&again, &config, &weights, options, 1 << 20);
    for entry in fs::read_dir(&out).unwrap() {
        let entry = entry.unwrap();
        let other = fs::read(again.join(entry.file_name())).unwrap();
        assert_eq!(fs::read(entry.path()).unwrap(), other);
    }
}

#[test]
fn round_trips_are_equal_byte_by_byte() {
    for shards in [1, 2, 4, 8] {
        for embedding in [Split::Rows, Split::Columns] {
            let options = MetaOptions { shards, embedding };
            assert_round_trip(&small(), Dtype::F16, options, 1000);
            let mut tied = small();
            tied["tie_word_embeddings"] = json!(true);
            tied["num_attention_heads"] = json!(16);
            tied["hidden_size"] = json!(64);
            tied["max_position_embeddings"] = json!(77);
            assert_round_trip(&tied, Dtype::F32, options, 3);
        }
    }
}

#[test]
fn goldens_are_written_as_they_were() {
    for (name, shards, embedding) in [
        ("llama1/8", 8, Split::Columns),
        ("llama3/4", 4, Split::Rows),
    ] {
        let Pretrained { config, checkpoint } = open(&golden(name)).unwrap();
        let weights: Vec<_> = crate::layout::tensors(&config)
            .into_iter()
            .map(|tensor| {
                let read = checkpoint.tensor(&tensor.name).unwrap();
                let spec = TensorSpec {
                    name: tensor.name,
                    dtype: read.dtype,
                    shape: tensor.shape,
                };
                (spec, read.bytes.to_vec())
            })
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        write(
            &out,
            &config,
            &weights,
            MetaOptions { shards, embedding },
            4096,
        );
        for shard in 0..shards {
            let tensors = |folder: &Path| {
                let file = fs::read(folder.join(shard_file(shard))).unwrap();
                let read = crate::pth::PthFile::parse(&file).unwrap();
                let tensors = read
                    .into_tensors()
                    .filter(|tensor| tensor.name != "rope.freqs");
                let tensors = tensors.map(|tensor| {
                    let bytes = file[tensor.range].to_vec();
                    (tensor.name, (tensor.info, bytes))
                });
                tensors.collect::<BTreeMap<_, _>>()
            };
            let (ours, theirs) = (tensors(&out), tensors(&golden(name)));
            assert!(ours.keys().eq(theirs.keys()), "{name}");
            for (tensor, ours) in ours {
                assert!(ours == theirs[&tensor], "{name}: {tensor}");
            }
        }
    }
}

#[test]
fn parts_of_different_models_are_told_apart() {
    let config = config(&small());
    let options = MetaOptions {
        shards: 2,
        embedding: Split::Columns,
    };
    let dir = tempfile::tempdir().unwrap();
    let (one, two, wide) = (
        dir.path().join("1"),
        dir.path().join("2"),
        dir.path().join("3"),
    );
    write(
        &one,
        &config,
        &weights(&config, Dtype::F16, 1),
        options,
        4096,
    );
    write(
        &two,
        &config,
        &weights(&config, Dtype::F16, 2),
        options,
        4096,
    );
    write(
        &wide,
        &config,
        &weights(&config, Dtype::F32, 2),
        options,
        4096,
    );
    fs::copy(
        two.join("consolidated.01.pth"),
        one.join("consolidated.01.pth"),
    )
    .unwrap();
    let said = |dir: &Path| {
        let error = open(dir).unwrap_err();
        error.to_string().replace(&dir.display().to_string(), "DIR")
    };
    insta::assert_snapshot!(said(&one), @"DIR: consolidated.00.pth and consolidated.01.pth are parts of different models: layers.0.attention_norm.weight differs, but is the same in every part of a model");
    fs::copy(
        wide.join("consolidated.01.pth"),
        one.join("consolidated.01.pth"),
    )
    .unwrap();
    insta::assert_snapshot!(said(&one), @"DIR: consolidated.00.pth and consolidated.01.pth are parts of different models: tok_embeddings.weight is F16 and F32");
}

/// A one-part file with all tensors of a model, as other programs may write it.
fn one_part(dir: &Path, config: &ModelConfig, tensors: &[layout::MetaTensor], dtype: Dtype) {
    let specs: Vec<TensorSpec> = tensors
        .iter()
        .map(|tensor| TensorSpec {
            name: tensor.name.clone(),
            dtype,
            shape: tensor.shape.clone(),
        })
        .collect();
    let params = Params::of(config).unwrap().to_json();
    fs::write(dir.join(PARAMS_FILE), params.to_string()).unwrap();
    let file = fs::File::create(dir.join(shard_file(0))).unwrap();
    let mut writer = PthWriter::new(file, "x", &specs).unwrap();
    for place in 0..specs.len() {
        writer.skip(place);
    }
    writer.finish().unwrap();
}

#[test]
fn a_head_that_is_left_out_is_tied() {
    let config = config(&small());
    let mut tensors = layout::tensors(&config, Split::Columns);
    tensors.retain(|tensor| tensor.name != "output.weight");
    let dir = tempfile::tempdir().unwrap();
    one_part(dir.path(), &config, &tensors, Dtype::F16);
    let pretrained = open(dir.path()).unwrap();
    assert!(pretrained.config.tie_word_embeddings);
    assert!(!pretrained.checkpoint.contains("lm_head.weight"));
    one_part(dir.path(), &config, &tensors, Dtype::I16);
    insta::assert_snapshot!(said(dir.path()), @"DIR: tensor tok_embeddings.weight is stored as I16, expected F16, BF16 or F32");
}

#[test]
fn what_cannot_be_written_is_refused_before_a_folder_is() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut json = small();
    json["vocab_size"] = json!(17);
    json["num_key_value_heads"] = json!(2);
    let config = config(&json);
    let refused = |config: &ModelConfig, dtype, shards| {
        let specs: Vec<_> = weights(config, dtype, 0)
            .into_iter()
            .map(|(spec, _)| spec)
            .collect();
        let options = MetaOptions {
            shards,
            embedding: Split::Columns,
        };
        let error = MetaWriter::create(&out, config, &specs, options).unwrap_err();
        assert!(!out.exists());
        error.to_string().replace(&out.display().to_string(), "OUT")
    };
    insta::assert_snapshot!(refused(&config, Dtype::F16, 4), @r"
    Meta's layout cannot hold this model:
      `vocab_size`: expected a multiple of the 4 parts, found 17
      `num_key_value_heads`: expected a multiple of the 4 parts, found 2
    ");
    insta::assert_snapshot!(refused(&config, Dtype::F16, 3), @r"
    Meta's layout cannot hold this model:
      parts: expected 1, 2, 4 or 8, found 3
    ");
    insta::assert_snapshot!(refused(&config, Dtype::I64, 1), @"OUT: tensor model.embed_tokens.weight is stored as I64, expected F16, BF16 or F32");
    let error = MetaWriter::create(
        &out,
        &config,
        &[],
        MetaOptions {
            shards: 1,
            embedding: Split::Rows,
        },
    );
    assert!(matches!(error, Err(MetaError::Difference { .. })));
}

#[test]
fn every_tensor_has_to_be_whole() {
    let config = config(&small());
    let specs: Vec<_> = weights(&config, Dtype::F16, 0)
        .into_iter()
        .map(|(spec, _)| spec)
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let options = MetaOptions {
        shards: 1,
        embedding: Split::Rows,
    };
    let mut writer = MetaWriter::create(&out, &config, &specs, options).unwrap();
    let message = |error: crate::CheckpointError| {
        error.to_string().replace(&out.display().to_string(), "OUT")
    };
    insta::assert_snapshot!(message(writer.append("model.norms.weight", &[]).unwrap_err()), @"OUT: no tensor `model.norms.weight`; the nearest is `model.norm.weight`");
    writer.append("model.norm.weight", &[0; 63]).unwrap();
    insta::assert_snapshot!(message(writer.append("model.norm.weight", &[0; 2]).unwrap_err()), @"OUT: tensor `model.norm.weight`: expected 64 bytes, got 65");
    insta::assert_snapshot!(message(writer.finish().unwrap_err()), @"OUT: tensor `lm_head.weight`: expected 1024 bytes, got 0");
    assert!(!out.exists());
}

proptest! {
    /// `params.json` expresses models of all sizes.
    #[test]
    fn params_hold_every_feed_forward_size(heads in 1..200_usize, half in 1..100_usize, size in 1..100_000_usize) {
        let json = json!({"vocab_size": 16, "hidden_size": heads * half * 2, "intermediate_size": size,
            "num_hidden_layers": 2, "num_attention_heads": heads, "rms_norm_eps": 1e-6});
        let params = Params::of(&config(&json)).unwrap();
        prop_assert_eq!(params.intermediate_size(), Some(size));
        let text = params.to_json().to_string();
        let read = Params::from_json(&serde_json::from_str(&text).unwrap(), Path::new("p")).unwrap();
        prop_assert_eq!(read, params);
    }

    #[test]
    fn no_params_panic(dim in any::<u64>(), multiple in any::<u64>(), multiplier in any::<f64>()) {
        let json = json!({"dim": dim, "n_heads": 1, "n_layers": 1, "multiple_of": multiple,
            "ffn_dim_multiplier": multiplier});
        if let Ok(params) = Params::from_json(&json, Path::new("p")) {
            let _ = params.intermediate_size();
        }
    }
}
