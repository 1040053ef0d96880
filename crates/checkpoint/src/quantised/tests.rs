//! Checkpoints that bitsandbytes wrote, and fp8 as published models have it; see `tests/reference/quantised.py`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::convert::to_hugging_face;
use crate::{
    Dtype, PT_METADATA, Pretrained, SINGLE_FILE, SafetensorsFile, Tensor, TensorView, numbers,
    write_safetensors,
};

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/quantised");
const FOLDERS: [(&str, &str); 8] = [
    ("nf4", "nf4"),
    ("nf4-bf16", "nf4"),
    ("fp4", "fp4"),
    ("int8", "int8"),
    ("fp8-blocks", "fp8"),
    ("fp8-tensor", "fp8"),
    ("fp8-channel", "fp8"),
    ("fp8-fbgemm", "fp8"),
];

fn golden(name: &str) -> PathBuf {
    Path::new(GOLDENS).join(name)
}

fn wide(tensor: &Tensor) -> Vec<u32> {
    let bytes = numbers::convert(&tensor.bytes, tensor.dtype, Dtype::F32);
    let (numbers, _) = bytes.as_chunks();
    numbers.iter().map(|x| u32::from_le_bytes(*x)).collect()
}

#[test]
fn widened_weights_are_those_of_the_library_bit_for_bit() {
    for (folder, kind) in FOLDERS {
        let model = Pretrained::open(&golden(folder)).unwrap();
        let checkpoint = &model.checkpoint;
        let expected = SafetensorsFile::open(golden(folder).join("expected.safetensors")).unwrap();
        let mut quantised = 0;
        for (name, info) in checkpoint.tensors() {
            let Some(matrix) = checkpoint.quantised(name).unwrap() else {
                assert!(!expected.contains(name), "{folder}: {name}");
                continue;
            };
            assert_eq!(matrix.kind(), kind, "{folder}: {name}");
            assert_eq!(checkpoint.encoding(name).unwrap(), kind);
            assert_eq!(checkpoint.quantised_type(name).unwrap(), Some(kind));
            let bytes = [matrix.bytes(), matrix.codes().len()].map(|bytes| bytes as u64);
            assert_eq!(checkpoint.quantised_bytes(name).unwrap(), Some(bytes));
            assert_eq!(info.dtype, Dtype::F32);
            let expected = wide(&expected.tensor(name).unwrap());
            let found = wide(&checkpoint.tensor(name).unwrap());
            let differs = expected.iter().zip(&found).position(|(a, b)| a != b);
            assert_eq!(
                (found.len(), differs),
                (expected.len(), None),
                "{folder}: {name}"
            );
            let rows = matrix.rows(1..3);
            let columns = info.shape[1];
            let alone: Vec<u32> = rows.iter().map(|x| x.to_bits()).collect();
            assert_eq!(alone, expected[columns..3 * columns], "{folder}: {name}");
            quantised += 1;
        }
        assert_eq!(quantised, expected.names().count(), "{folder}");
    }
}

#[test]
fn the_codes_are_the_files_own_pages_and_all_parts_are_counted() {
    let model = Pretrained::open(&golden("nf4")).unwrap();
    let file = SafetensorsFile::open(golden("nf4").join(SINGLE_FILE)).unwrap();
    let name = "model.layers.0.self_attn.q_proj.weight";
    let matrix = model.checkpoint.quantised(name).unwrap().unwrap();
    assert_eq!(matrix.shape(), [48, 32]);
    assert_eq!(matrix.codes()[..], *file.bytes(name).unwrap());
    // codes, the scale of each block, one scale of these, two tables
    let bytes = 768 + 24 + 4 + 4 * (256 + 16);
    assert_eq!(model.checkpoint.stored_bytes(name).unwrap(), bytes);
}

#[test]
fn converted_to_plain_weights_it_is_no_longer_quantised() {
    for folder in ["nf4-bf16", "fp8-blocks"] {
        let model = Pretrained::open(&golden(folder)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("plain");
        to_hugging_face(&model, &out, None, None, &[], &mut |_, _| ()).unwrap();
        let text = fs::read_to_string(out.join("config.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json.get("quantization_config"), None);
        assert_eq!(json["dtype"], "float32");
        let plain = Pretrained::open(&out).unwrap();
        assert_eq!(plain.config, model.config);
        assert!(plain.checkpoint.names().eq(model.checkpoint.names()));
        for name in model.checkpoint.names() {
            let [before, after] =
                [&model, &plain].map(|model| wide(&model.checkpoint.tensor(name).unwrap()));
            assert!(plain.checkpoint.quantised(name).unwrap().is_none());
            assert!(before == after, "{folder}: {name}");
        }
    }
}

/// A copy of a golden folder with other tensors.
fn changed(folder: &str, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> String {
    changed_config(folder, change, |_| ())
}

fn changed_config(
    folder: &str,
    change: impl FnOnce(&mut BTreeMap<String, Tensor>),
    keys: impl FnOnce(&mut Value),
) -> String {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read(golden(folder).join("config.json")).unwrap();
    let mut json: Value = serde_json::from_slice(&text).unwrap();
    keys(&mut json);
    fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
    let file = SafetensorsFile::open(golden(folder).join(SINGLE_FILE)).unwrap();
    let names = file.names().map(str::to_owned);
    let mut tensors: BTreeMap<String, Tensor> = names
        .map(|name| (name.clone(), file.tensor(&name).unwrap()))
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, tensor)| {
        let view = TensorView {
            dtype: tensor.dtype,
            shape: &tensor.shape,
            bytes: &tensor.bytes,
        };
        (name.clone(), view)
    });
    write_safetensors(dir.path().join(SINGLE_FILE), &views.collect(), PT_METADATA).unwrap();
    let said = match Pretrained::open(dir.path()) {
        Err(error) => error.to_string(),
        Ok(model) => {
            let mut names = model.checkpoint.names();
            let error = names.find_map(|name| model.checkpoint.tensor(name).err());
            error.map_or_else(|| "no error".to_owned(), |error| error.to_string())
        }
    };
    said.replace(&dir.path().display().to_string(), "DIR")
}

const WEIGHT: &str = "model.layers.0.self_attn.q_proj.weight";

fn part(end: &str) -> String {
    format!("{WEIGHT}{end}")
}

/// The tensor cut to some elements.
fn cut(tensor: &mut Tensor, elements: usize) {
    let width = tensor.dtype.bitsize() / 8;
    tensor.bytes = tensor.bytes.slice(..elements * width);
    tensor.shape = vec![elements];
}

fn state(json: &str) -> Tensor {
    Tensor {
        dtype: Dtype::U8,
        shape: vec![json.len()],
        bytes: json.to_owned().into(),
    }
}

#[test]
fn a_missing_part_is_named() {
    let without = |folder: &str, end: &str| {
        changed(folder, |tensors| {
            tensors.remove(&part(end)).unwrap();
        })
    };
    insta::assert_snapshot!(without("nf4", ".absmax"), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight`: expected a tensor `model.layers.0.self_attn.q_proj.weight.absmax` beside it, found none");
    insta::assert_snapshot!(without("nf4", ".quant_map"), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight`: expected a tensor `model.layers.0.self_attn.q_proj.weight.quant_map` beside it, found none");
    insta::assert_snapshot!(without("nf4", ".nested_absmax"), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight`: expected a tensor `model.layers.0.self_attn.q_proj.weight.nested_absmax` beside it, found none");
    insta::assert_snapshot!(without("nf4", ".quant_state.bitsandbytes__nf4"), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight`: expected a tensor `.quant_state.bitsandbytes__nf4` or `__fp4` beside it, found none");
    insta::assert_snapshot!(without("nf4", ""), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight.quant_state.bitsandbytes__nf4`: expected the weight `model.layers.0.self_attn.q_proj.weight` beside it, found none");
    insta::assert_snapshot!(without("int8", ""), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.SCB`: expected the weight `model.layers.0.self_attn.q_proj.weight` beside it, found none");
    insta::assert_snapshot!(without("fp8-blocks", "_scale_inv"), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight`: expected a tensor `model.layers.0.self_attn.q_proj.weight_scale` beside it, found none");
    insta::assert_snapshot!(without("fp8-blocks", ""), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight_scale_inv`: expected a weight `model.layers.0.self_attn.q_proj.weight` in F8_E4M3 beside it, found none");
    let scb = changed("int8", |tensors| {
        tensors
            .remove("model.layers.0.self_attn.q_proj.SCB")
            .unwrap();
    });
    insta::assert_snapshot!(scb, @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight`: expected a tensor `SCB` beside it, found none");
}

#[test]
fn a_part_that_does_not_fit_is_named() {
    let with = |folder: &str, end: &str, change: fn(&mut Tensor)| {
        changed(folder, |tensors| {
            change(tensors.get_mut(&part(end)).unwrap());
        })
    };
    insta::assert_snapshot!(with("nf4", ".absmax", |tensor| cut(tensor, 23)), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight.absmax`: absmax: expected 24 for a matrix of 48 x 32, found 23");
    insta::assert_snapshot!(with("nf4", "", |tensor| cut(tensor, 700)), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight`: expected 768 bytes for a matrix of 48 x 32 in nf4, found 700");
    insta::assert_snapshot!(with("nf4", ".nested_absmax", |tensor| {
        tensor.bytes = f32::NAN.to_le_bytes().to_vec().into();
    }), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight`: nested_absmax: value 0 is NaN");
    insta::assert_snapshot!(with("fp4", ".absmax", |tensor| {
        let infinite = f32::INFINITY.to_le_bytes();
        tensor.bytes = [&infinite, &tensor.bytes[4..]].concat().into();
    }), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight`: absmax: value 0 is inf");
    insta::assert_snapshot!(with("fp8-blocks", "_scale_inv", |tensor| cut(tensor, 5)), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight_scale_inv`: expected a scale, [48, 1] for the rows of 48 x 24, or [3, 2] for blocks of 16 x 16, found [5]");
    insta::assert_snapshot!(with("fp8-channel", "_scale", |tensor| cut(tensor, 23)), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight_scale`: expected a scale, [24, 1] for the rows of 24 x 24, found [23]");
    insta::assert_snapshot!(with("fp8-channel", "_scale", |tensor| tensor.dtype = Dtype::I16), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight_scale`: expected scales in F32, BF16 or F16, found I16 [24, 1]");
    let scb = changed("int8", |tensors| {
        cut(
            tensors
                .get_mut("model.layers.0.self_attn.q_proj.SCB")
                .unwrap(),
            31,
        );
    });
    insta::assert_snapshot!(scb, @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.SCB`: SCB: expected 32 for a matrix of 32 x 24, found 31");
    let turing = changed("int8", |tensors| {
        let format = tensors.get_mut("model.layers.0.self_attn.q_proj.weight_format");
        format.unwrap().bytes = vec![2].into();
    });
    insta::assert_snapshot!(turing, @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight_format`: expected 0: the codes row after row, found [2], an order for one kind of GPU");
}

#[test]
fn a_quantisation_state_is_checked() {
    let with = |json: &str| {
        changed("nf4", |tensors| {
            tensors.insert(part(".quant_state.bitsandbytes__nf4"), state(json));
        })
    };
    insta::assert_snapshot!(with("no json"), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight.quant_state.bitsandbytes__nf4`: expected JSON with `blocksize`, `dtype` and `shape`, found expected ident at line 1 column 2");
    insta::assert_snapshot!(with(r#"{"blocksize": 64, "shape": [48, 32]}"#), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight.quant_state.bitsandbytes__nf4`: expected JSON with `blocksize`, `dtype` and `shape`, found missing field `dtype` at line 1 column 36");
    insta::assert_snapshot!(with(r#"{"blocksize": 63, "dtype": "float32", "shape": [48, 32]}"#), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight.quant_state.bitsandbytes__nf4`: expected a `blocksize` of 32, 64, 128, ... or 4096, found 63");
    insta::assert_snapshot!(with(r#"{"blocksize": 128, "dtype": "float32", "shape": [48, 32], "nested_blocksize": 256, "nested_offset": 1.0}"#), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight.absmax`: absmax: expected 12 for a matrix of 48 x 32, found 24");
    insta::assert_snapshot!(with(r#"{"blocksize": 64, "dtype": "int4", "shape": [48, 32], "nested_blocksize": 256, "nested_offset": 1.0}"#), @r#"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight.quant_state.bitsandbytes__nf4`: expected a `dtype` of float32, bfloat16 or float16, found "int4""#);
    insta::assert_snapshot!(with(r#"{"blocksize": 64, "dtype": "float32", "shape": [1536]}"#), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight.quant_state.bitsandbytes__nf4`: expected the `shape` of a matrix, found [1536]");
    insta::assert_snapshot!(with(r#"{"blocksize": 64, "dtype": "float32", "shape": [32, 48], "nested_blocksize": 256, "nested_offset": 1.0}"#), @r"
    the weights in DIR do not match its config.json:
      model.layers.0.self_attn.q_proj.weight: expected [48, 32], found [32, 48]
    ");
    insta::assert_snapshot!(with(r#"{"blocksize": 64, "dtype": "float32", "shape": [48, 32]}"#), @"DIR/model.safetensors: tensor `model.layers.0.self_attn.q_proj.weight.absmax`: expected scales in F32, BF16 or F16, found U8 [24]");
}

#[test]
fn configuration_and_weights_have_to_agree() {
    let plain = changed_config(
        "nf4",
        |tensors| {
            let model = Pretrained::open(&golden("nf4")).unwrap();
            *tensors = model
                .checkpoint
                .names()
                .map(|name| (name.to_owned(), model.checkpoint.tensor(name).unwrap()))
                .collect();
        },
        |_| (),
    );
    insta::assert_snapshot!(plain, @"DIR: config.json has `quantization_config`, but no weight is quantised");
    let without = changed_config(
        "fp8-tensor",
        |_| (),
        |json| {
            json["quantization_config"] = Value::Null;
        },
    );
    assert!(without.contains("weight_scale: unexpected"), "{without}");
    let other = changed_config(
        "fp8-blocks",
        |_| (),
        |json| json["quantization_config"]["weight_block_size"] = json!([32, 32]),
    );
    insta::assert_snapshot!(other, @"DIR/model.safetensors: tensor `model.layers.0.mlp.down_proj.weight_scale_inv`: expected a scale, [24, 1] for the rows of 24 x 28, or [1, 1] for blocks of 32 x 32, found [2, 2]");
}
