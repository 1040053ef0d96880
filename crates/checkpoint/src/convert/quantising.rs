//! Tests of quantisation, against files that bitsandbytes wrote; see `tests/reference/quantised.py`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use simmer_blocks::FourBitKind;

use super::*;
use crate::gguf::model::{FileType, Mix};
use crate::gguf::{GgmlType, Gguf, Vocabulary};
use crate::{Pretrained, SINGLE_FILE, SafetensorsFile};

fn golden(name: &str) -> PathBuf {
    let goldens = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens");
    Path::new(goldens).join(name)
}

const NF4: Codes = Codes::FourBit {
    kind: FourBitKind::Nf4,
    nested: true,
};
const FP4: Codes = Codes::FourBit {
    kind: FourBitKind::Fp4,
    nested: false,
};

fn quantised(
    from: &Pretrained,
    out: &Path,
    how: BitsAndBytes,
    dtype: Option<Dtype>,
    limit: Option<u64>,
) -> Result<QuantisationReport, ConvertError> {
    to_bitsandbytes(from, out, how, dtype, limit, &[], &mut |_, _| ())
}

#[test]
fn tensors_have_the_bytes_of_bitsandbytes() {
    for (source, folder, codes, dtype) in [
        ("tied-gqa", "nf4", NF4, None),
        ("untied-mha", "nf4-bf16", NF4, None),
        ("qwen2", "fp4", FP4, Some(Dtype::F16)),
        ("mistral", "int8", Codes::Int8, Some(Dtype::BF16)),
    ] {
        let model = Pretrained::open(&golden(source)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let how = BitsAndBytes { codes, head: false };
        let report = quantised(&model, &out, how, dtype, None).unwrap();
        let [found, expected] = [out.clone(), golden(&format!("quantised/{folder}"))]
            .map(|folder| SafetensorsFile::open(folder.join(SINGLE_FILE)).unwrap());
        let mut names: Vec<_> = found.names().collect();
        let mut expected_names: Vec<_> = expected.names().collect();
        names.sort_unstable();
        expected_names.sort_unstable();
        assert_eq!(names, expected_names, "{folder}");
        for name in names {
            let [found, expected] = [&found, &expected].map(|file| file.tensor(name).unwrap());
            assert_eq!(found.dtype, expected.dtype, "{folder}: {name}");
            if name.contains("quant_state") {
                let [found, expected] =
                    [found, expected].map(|state| String::from_utf8(state.bytes.to_vec()).unwrap());
                assert_eq!(found.trim_end(), expected, "{folder}: {name}");
                continue;
            }
            assert_eq!(found.shape, expected.shape, "{folder}: {name}");
            assert!(found.bytes == expected.bytes, "{folder}: {name}");
        }
        // what is written is what reads, with the error that was reported
        let back = Pretrained::open(&out).unwrap();
        assert_eq!(back.config, model.config);
        let error = report.modules.iter().map(|module| module.error.relative());
        let most = if codes == Codes::Int8 { 0.01 } else { 0.15 };
        assert!(
            error.clone().all(|error| error > 0.0 && error < most),
            "{folder}"
        );
        let kept = if model.config.tie_word_embeddings {
            "model.embed_tokens"
        } else {
            "lm_head"
        };
        assert!(
            back.checkpoint
                .quantised(&format!("{kept}.weight"))
                .unwrap()
                .is_none()
        );
    }
}

#[test]
fn the_configuration_is_that_of_transformers() {
    let model = Pretrained::open(&golden("tied-gqa")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let how = BitsAndBytes {
        codes: NF4,
        head: false,
    };
    quantised(&model, &out, how, None, None).unwrap();
    let [mut found, expected] = [out, golden("quantised/nf4")].map(|folder| {
        let text = std::fs::read(folder.join("config.json")).unwrap();
        let mut json: Value = serde_json::from_slice(&text).unwrap();
        json["quantization_config"].take()
    });
    // named rather than found: the same module
    assert_eq!(
        found["llm_int8_skip_modules"],
        serde_json::json!(["lm_head"])
    );
    found["llm_int8_skip_modules"] = Value::Null;
    assert_eq!(found, expected);
}

#[test]
fn the_head_is_quantised_if_asked_and_untied() {
    let dir = tempfile::tempdir().unwrap();
    let how = BitsAndBytes {
        codes: NF4,
        head: true,
    };
    let tied = Pretrained::open(&golden("tied-gqa")).unwrap();
    let error = quantised(&tied, &dir.path().join("tied"), how, None, None).unwrap_err();
    assert!(matches!(error, ConvertError::TiedHead), "{error}");
    assert!(!dir.path().join("tied").exists());
    let untied = Pretrained::open(&golden("untied-mha")).unwrap();
    let out = dir.path().join("untied");
    // small files: the parts of a weight stay in one
    let report = quantised(&untied, &out, how, None, Some(10_000)).unwrap();
    assert_eq!(report.modules.last().unwrap().name, "lm_head");
    let back = Pretrained::open(&out).unwrap();
    let head = back
        .checkpoint
        .quantised("lm_head.weight")
        .unwrap()
        .unwrap();
    assert_eq!(head.kind(), "nf4");
    assert!(back.checkpoint.files() > 2);
    // with quantisation states and tables of values
    let mut total = 0;
    for file in std::fs::read_dir(&out).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|end| end == "safetensors") {
            let file = SafetensorsFile::open(path).unwrap();
            let absmax = file.names().filter(|name| name.ends_with(".absmax"));
            let states = file.names().filter(|name| name.contains(".quant_state."));
            assert_eq!(absmax.count(), states.count());
            let bytes = file
                .names()
                .map(|name| file.tensor(name).unwrap().bytes.len() as u64);
            total += bytes.sum::<u64>();
        }
    }
    assert_eq!(report.after, total);
}

/// A quantised GGUF file has the error that is reported, and another type where rows are not whole blocks.
#[test]
fn a_gguf_file_has_the_types_and_the_error_of_the_report() {
    let model = Pretrained::open(&golden("llama3-rope")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, kinds) in [
        ("q5_1", FileType::Of(GgmlType::Q5_1)),
        ("q4_k", FileType::Of(GgmlType::Q4_K)),
        ("q4_k_m", FileType::Mix(Mix::Q4_K_M)),
    ] {
        assert_eq!(FileType::named(name), Some(kinds));
        let out = dir.path().join(name);
        let vocabulary = Vocabulary::default();
        let report = to_gguf(&model, &out, Some(kinds), "x", &vocabulary, &mut |_, _| ()).unwrap();
        let file = std::fs::read(&out).unwrap();
        let gguf = Gguf::parse(file.into()).unwrap();
        let back = Pretrained::open(&out).unwrap();
        let mut differences = 0.0;
        for name in model.checkpoint.names() {
            let [before, after] = [&model, &back].map(|model| {
                let tensor = model.checkpoint.tensor(name).unwrap();
                numbers::convert(&tensor.bytes, tensor.dtype, Dtype::F32)
            });
            let pairs = before.chunks_exact(4).zip(after.chunks_exact(4));
            differences += pairs
                .map(|(a, b)| f64::from(f32::widen(b) - f32::widen(a)).powi(2))
                .sum::<f64>();
        }
        let reported: f64 = report
            .modules
            .iter()
            .map(|module| module.error.differences)
            .sum();
        // other matrices are in f16
        assert!(
            reported > 0.0 && reported <= differences * 1.000_001,
            "{name}"
        );
        assert!(
            differences < reported * 1.01,
            "{name}: {differences} {reported}"
        );
        let kinds: std::collections::BTreeSet<_> = gguf
            .tensors()
            .iter()
            .map(|tensor| tensor.kind.name())
            .collect();
        insta::assert_debug_snapshot!(name, (kinds, &report.instead));
    }
}
