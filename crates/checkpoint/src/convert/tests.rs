use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::family::{self, NormWeight};
use crate::gguf::{Gguf, Vocabulary};
use crate::hugging_face::{CheckpointWriter, plan_shards};
use crate::{INDEX_FILE, Layout, ModelConfig, Pretrained, SINGLE_FILE, TensorSpec, layout};

fn config(key_heads: usize, tied: bool) -> ModelConfig {
    let json = serde_json::json!({
        "vocab_size": 48, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 8, "num_key_value_heads": key_heads, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied, "rope_theta": 500_000.0
    });
    ModelConfig::from_json(&json, Path::new("config.json")).unwrap()
}

/// Values of many magnitudes, each different from its neighbours.
fn numbers(name: &str, len: usize, dtype: Dtype) -> Vec<u8> {
    let salt: u32 = name
        .bytes()
        .fold(7, |sum, byte| sum * 31 % 65_521 + u32::from(byte));
    let number = |index: usize| {
        let mixed = (index as u32 + salt).wrapping_mul(2_654_435_761) >> 8;
        (mixed as f32 / 8_388_608.0 - 1.0) * 2.0_f32.powi(-((index % 9) as i32))
    };
    let wide: Vec<u8> = (0..len)
        .flat_map(|index| number(index).to_le_bytes())
        .collect();
    numbers::convert(&wide, Dtype::F32, dtype)
}

fn written(out: &Path, config: &ModelConfig, dtype: Dtype, limit: u64) -> Pretrained {
    let specs: Vec<TensorSpec> = layout::tensors(config)
        .into_iter()
        .map(|tensor| TensorSpec {
            name: tensor.name,
            dtype,
            shape: tensor.shape,
        })
        .collect();
    let mut writer = CheckpointWriter::create(out, plan_shards(specs.clone(), limit)).unwrap();
    for spec in &specs {
        let len = spec.shape.iter().product();
        writer
            .append(&spec.name, &numbers(&spec.name, len, dtype))
            .unwrap();
    }
    let mut json = config.to_json();
    json["dtype"] = match dtype {
        Dtype::F32 => "float32",
        Dtype::BF16 => "bfloat16",
        _ => "float16",
    }
    .into();
    let text = format!("{json:#}\n");
    writer
        .folder()
        .write("config.json", text.as_bytes())
        .unwrap();
    writer.finish().unwrap();
    Pretrained::open(out).unwrap()
}

fn same_weights(a: &Pretrained, b: &Pretrained, dtype: Dtype) {
    let names: Vec<_> = a.checkpoint.names().collect();
    assert_eq!(names, b.checkpoint.names().collect::<Vec<_>>());
    for name in names {
        let [a, b] = [a, b].map(|model| {
            let tensor = model.checkpoint.tensor(name).unwrap();
            (
                tensor.shape,
                numbers::convert(&tensor.bytes, tensor.dtype, dtype),
            )
        });
        assert_eq!(a, b, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// A model is unchanged in every layout, and the conversion back gives the same bytes.
    #[test]
    fn round_trips_are_byte_equal(
        shards in prop::sample::select(vec![1_usize, 2, 4, 8]),
        grouped: bool,
        tied: bool,
        dtype in prop::sample::select(vec![Dtype::F32, Dtype::BF16, Dtype::F16]),
        limit in 2_000_u64..60_000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let config = config(if grouped && shards <= 4 { 4 } else { 8 }, tied);
        let model = written(&at("hf"), &config, dtype, limit);
        let progress: Progress<'_> = &mut |_, _| ();

        to_meta(&model, &at("meta"), None, shards, &[], progress).unwrap();
        let meta = Pretrained::open(&at("meta")).unwrap();
        prop_assert_eq!(meta.checkpoint.layout(), Layout::Meta);
        prop_assert_eq!(meta.checkpoint.files(), shards);
        same_weights(&model, &meta, dtype);

        let gguf = at("model.gguf");
        to_gguf(&meta, &gguf, None, "x", &Vocabulary::default(), progress).unwrap();
        let gguf = Pretrained::open(&gguf).unwrap();
        prop_assert_eq!(gguf.checkpoint.layout(), Layout::Gguf);
        same_weights(&model, &gguf, dtype);
        prop_assert_eq!(gguf.config.head_dim, config.head_dim);
        prop_assert_eq!(gguf.config.rope_theta.to_bits(), config.rope_theta.to_bits());
        prop_assert_eq!(gguf.config.tie_word_embeddings, tied);

        // GGUF keeps norms in f32
        to_hugging_face(&gguf, &at("back"), Some(dtype), Some(limit), &[], progress).unwrap();
        to_meta(&gguf, &at("meta-again"), Some(dtype), shards, &[], progress).unwrap();
        for (before, after) in [("hf", "back"), ("meta", "meta-again")] {
            for entry in fs::read_dir(at(before)).unwrap() {
                let name = entry.unwrap().file_name();
                let name = name.to_str().unwrap();
                if name == "config.json" || name == "params.json" {
                    continue;
                }
                let [before, after] = [before, after].map(|folder| fs::read(at(folder).join(name)).unwrap());
                prop_assert!(before == after, "{} differs", name);
            }
        }
        let files = |folder: &str| fs::read_dir(at(folder)).unwrap().count();
        prop_assert_eq!(files("hf"), files("back"));
        prop_assert_eq!(at("hf").join(INDEX_FILE).exists(), !at("hf").join(SINGLE_FILE).exists());
    }

    /// Blocks cover the rows in order and start at heads.
    #[test]
    fn blocks_are_all_rows(rows in 0_usize..5000, row_bytes in 1_usize..100_000, together in 1_usize..130) {
        let mut next = 0;
        for block in blocks(rows, row_bytes, together) {
            prop_assert_eq!(block.start, next);
            prop_assert!(block.start % together == 0 && !block.is_empty());
            next = block.end;
        }
        prop_assert_eq!(next, rows);
    }
}

/// Each family as GGUF and back: the same bytes, and the same configuration.
#[test]
fn every_family_comes_back_from_gguf() {
    for family in family::ALL {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut json = serde_json::json!({
            "model_type": family.model_type, "vocab_size": 48, "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
            "sliding_window": 8
        });
        if family.soft_caps {
            json["query_pre_attn_scalar"] = 16.into();
        }
        let config = ModelConfig::from_json(&json, Path::new("config.json")).unwrap();
        let model = written(&at("hf"), &config, Dtype::BF16, u64::MAX);
        let progress: Progress<'_> = &mut |_, _| ();
        let vocabulary = Vocabulary::default();
        to_gguf(&model, &at("x.gguf"), None, "x", &vocabulary, progress).unwrap();
        let gguf = Pretrained::open(&at("x.gguf")).unwrap();
        assert_eq!(gguf.config, model.config);
        let bf16 = Some(Dtype::BF16);
        to_hugging_face(&gguf, &at("back"), bf16, None, &[], progress).unwrap();
        let back = Pretrained::open(&at("back")).unwrap();
        assert_eq!(back.config, model.config);
        for name in model.checkpoint.names() {
            let [before, after] = [&model, &back].map(|model| {
                let bytes = model.checkpoint.tensor(name).unwrap().bytes;
                numbers::convert(&bytes, Dtype::BF16, Dtype::F32)
            });
            let pairs = before
                .as_chunks::<4>()
                .0
                .iter()
                .zip(after.as_chunks::<4>().0);
            for (before, after) in pairs {
                let [before, after] = [before, after].map(|bytes| f32::from_le_bytes(*bytes));
                // 1 + weight keeps all bits of a weight in bf16 that is not below 2^-16
                let small = family.norm_weight == NormWeight::PlusOne
                    && name.ends_with("norm.weight")
                    && before.abs() < 2.0_f32.powi(-16);
                let most = if small { 2.0_f32.powi(-24) } else { 0.0 };
                assert!((before - after).abs() <= most, "{name}: {before} {after}");
            }
        }
        // the factor itself in GGUF
        if family.norm_weight == NormWeight::PlusOne {
            let name = "model.norm.weight";
            let weight = model.checkpoint.tensor(name).unwrap().bytes;
            let weight = numbers::convert(&weight, Dtype::BF16, Dtype::F32);
            let file = fs::read(at("x.gguf")).unwrap();
            let parsed = Gguf::parse(file.clone().into()).unwrap();
            let stored = parsed.tensor("output_norm.weight").unwrap().range.clone();
            let number = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
            let expected: Vec<f32> = weight
                .as_chunks::<4>()
                .0
                .iter()
                .map(|x| number(x) + 1.0)
                .collect();
            let found: Vec<f32> = file[stored].as_chunks::<4>().0.iter().map(number).collect();
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn a_weight_too_large_for_f16_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(8, true);
    written(&dir.path().join("hf"), &config, Dtype::F32, u64::MAX);
    let path = dir.path().join("hf").join(SINGLE_FILE);
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&70_000.0_f32.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let model = Pretrained::open(&dir.path().join("hf")).unwrap();
    let out = dir.path().join("out");
    let dtype = Some(Dtype::F16);
    let error = to_hugging_face(&model, &out, dtype, None, &[], &mut |_, _| ()).unwrap_err();
    insta::assert_snapshot!(error.to_string(), @"tensor `model.norm.weight`: the weight 7e4 is too large for F16");
    assert!(!out.exists());
    assert!(error.hint().unwrap().contains("bf16"));
}

#[test]
fn a_weight_that_is_not_finite_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(8, true);
    written(&dir.path().join("hf"), &config, Dtype::BF16, u64::MAX);
    let path = dir.path().join("hf").join(SINGLE_FILE);
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&0x7fc0_u16.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let model = Pretrained::open(&dir.path().join("hf")).unwrap();
    let out = dir.path().join("out.gguf");
    let vocabulary = Vocabulary::default();
    let error = to_gguf(&model, &out, None, "x", &vocabulary, &mut |_, _| ()).unwrap_err();
    let error = error.to_string();
    assert!(
        error.ends_with(
            "tensor `model.norm.weight`: 1 of the values from row 0 are NaN or infinite"
        ),
        "{error}"
    );
    assert!(!out.exists());
}

#[test]
fn an_output_that_exists_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let model = written(
        &dir.path().join("hf"),
        &config(8, true),
        Dtype::BF16,
        u64::MAX,
    );
    let out = dir.path().join("model.gguf");
    fs::write(&out, "mine").unwrap();
    let vocabulary = Vocabulary::default();
    to_gguf(&model, &out, None, "x", &vocabulary, &mut |_, _| ()).unwrap_err();
    assert_eq!(fs::read(&out).unwrap(), b"mine");
}
