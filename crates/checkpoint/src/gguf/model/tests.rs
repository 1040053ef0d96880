use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use simmer_blocks::paired_row;
use simmer_hint::Hint as _;

use super::*;
use crate::config::RopeScaling;
use crate::family::{Family, GgufFamily, LLAMA};
use crate::gguf::{Array, GgufWriter, Metadata, Value, Vocabulary};

fn small() -> ModelConfig {
    ModelConfig {
        family: &LLAMA,
        vocab_size: 6,
        hidden_size: 8,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 2,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::Default,
        max_position_embeddings: 16,
        attention_bias: false,
        mlp_bias: false,
        tie_word_embeddings: true,
        bos_token_id: None,
        eos_token_id: vec![],
        ..ModelConfig::of_family(&LLAMA)
    }
}

/// A file of zeros, except for the values in the plan.
pub(super) fn file(metadata: &Metadata, plan: Vec<PlannedTensor>) -> Bytes {
    let specs = plan.iter().map(|tensor| tensor.spec.clone()).collect();
    let mut writer = GgufWriter::new(Vec::new(), metadata, specs).unwrap();
    for PlannedTensor { spec, source, .. } in plan {
        let mut bytes = vec![0; spec.kind.tensor_bytes(&spec.shape).unwrap() as usize];
        if let Source::Numbers(numbers) = source {
            bytes.clear();
            blocks::quantize(spec.kind, &numbers, &mut bytes).unwrap();
        }
        writer.append(&bytes).unwrap();
    }
    writer.finish().unwrap().into()
}

pub(super) fn read(file: &Bytes) -> Result<ModelConfig, GgufError> {
    config(&Gguf::parse(file.clone())?, &[file])
}

#[test]
fn a_shape_comes_back() {
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let configs = [
        small(),
        ModelConfig {
            attention_bias: true,
            mlp_bias: true,
            tie_word_embeddings: false,
            rope_scaling: RopeScaling::Linear { factor: 2.0 },
            ..small()
        },
        ModelConfig {
            head_dim: 64,
            rope_theta: 500_000.0,
            rope_scaling: llama3,
            ..small()
        },
    ];
    for config in configs {
        let metadata = metadata(&config, "small", GgmlType::Q8_0).unwrap();
        let file = file(&metadata, plan(&config, GgmlType::Q8_0));
        assert_eq!(read(&file).unwrap(), config);
        let gguf = Gguf::parse(file).unwrap();
        let found = tensors(&gguf, &config).unwrap();
        assert_eq!(found.len(), layout::tensors(&config).len());
        let paired = found
            .iter()
            .filter(|tensor| tensor.paired.is_some())
            .count();
        assert_eq!(paired, if config.attention_bias { 8 } else { 4 });
    }
}

#[test]
fn norms_stay_f32_and_rows_that_are_no_blocks_become_f16() {
    let table = |name: &str| {
        let plan = plan(&small(), GgmlType::Q8_0);
        plan.into_iter()
            .find(|tensor| tensor.spec.name == name)
            .unwrap()
            .spec
            .kind
    };
    assert_eq!(table("blk.1.attn_norm.weight"), GgmlType::F32);
    assert_eq!(table("blk.1.ffn_down.weight"), GgmlType::Q8_0);
    assert_eq!(table("blk.1.ffn_up.weight"), GgmlType::F16);
}

#[test]
fn a_vocabulary_alone_is_named() {
    let mut metadata = metadata(&small(), "small", GgmlType::F32).unwrap();
    metadata.set("tokenizer.ggml.model", "gpt2");
    let error = read(&file(&metadata, Vec::new())).unwrap_err();
    insta::assert_snapshot!(error, @"this GGUF file holds a vocabulary and no weights");
    insta::assert_snapshot!(error.hint().unwrap(), @"give the file of a model with weights; a vocabulary alone can be used as `base.tokenizer`, and with `simmer tokenizer encode`");
}

#[test]
fn special_tokens_are_found() {
    let mut metadata = metadata(&small(), "small", GgmlType::F32).unwrap();
    metadata.set("tokenizer.ggml.bos_token_id", 1);
    metadata.set("tokenizer.ggml.eos_token_id", 2);
    metadata.set("tokenizer.ggml.eot_token_id", 3);
    metadata.set("tokenizer.ggml.eom_token_id", 2);
    let config = read(&file(&metadata, plan(&small(), GgmlType::F32))).unwrap();
    assert_eq!(
        (config.bos_token_id, config.eos_token_id),
        (Some(1), vec![2, 3])
    );
}

#[test]
fn spellings_of_other_writers_are_read() {
    let mut metadata = metadata(&small(), "small", GgmlType::F32).unwrap();
    metadata.set("llama.attention.head_count_kv", Array::integers(&[2, 2]));
    metadata.set("llama.rope.scale_linear", 4.0);
    metadata.set("llama.context_length", Value::U64(16));
    let config = read(&file(&metadata, plan(&small(), GgmlType::F32))).unwrap();
    let rope_scaling = RopeScaling::Linear { factor: 4.0 };
    assert_eq!(
        config,
        ModelConfig {
            rope_scaling,
            ..small()
        }
    );
}

#[test]
fn keys_begin_with_the_name_of_the_family() {
    static OTHER: Family = Family {
        gguf: GgufFamily {
            architecture: "other",
            ..LLAMA.gguf
        },
        ..LLAMA
    };
    let config = ModelConfig {
        family: &OTHER,
        rope_scaling: RopeScaling::Linear { factor: 2.0 },
        ..small()
    };
    let metadata = metadata(&config, "small", GgmlType::F32).unwrap();
    assert_eq!(
        metadata.string("general.architecture").unwrap(),
        Some("other")
    );
    for key in [
        "block_count",
        "attention.layer_norm_rms_epsilon",
        "rope.scaling.factor",
    ] {
        assert!(
            metadata.number(&format!("other.{key}")).unwrap().is_some(),
            "{key}"
        );
        assert!(
            metadata.number(&format!("llama.{key}")).unwrap().is_none(),
            "{key}"
        );
    }
}

#[test]
fn what_simmer_cannot_compute_is_refused() {
    let message = |key: &str, value: Value| {
        let mut metadata = metadata(&small(), "small", GgmlType::F32).unwrap();
        metadata.set(key, value);
        let error = read(&file(&metadata, plan(&small(), GgmlType::F32))).unwrap_err();
        let hint = error
            .hint()
            .map_or(String::new(), |hint| format!(" | {hint}"));
        format!("{error}{hint}")
    };
    insta::assert_snapshot!(message("general.architecture", "mamba".into()),
        @r#"this GGUF file holds a model of the "mamba" architecture; expected a model of the llama, qwen2, qwen3, smollm3, phi3, gemma, gemma2, gemma3, olmo2 or granite architecture"#);
    insta::assert_snapshot!(message("general.type", "adapter".into()),
        @"this GGUF file holds an adapter; expected a model of the llama, qwen2, qwen3, smollm3, phi3, gemma, gemma2, gemma3, olmo2 or granite architecture | give the file or folder of the base model, not of an adapter");
    insta::assert_snapshot!(message("llama.expert_count", 8.into()),
        @"`llama.expert_count`: expected 0, found 8");
    insta::assert_snapshot!(message("llama.rope.dimension_count", 1.into()),
        @"`llama.rope.dimension_count`: expected 2, found 1");
    insta::assert_snapshot!(message("llama.rope.scaling.type", "ntk".into()),
        @r#"`llama.rope.scaling.type`: expected "none", "linear", "yarn" or "longrope", found ntk"#);
    insta::assert_snapshot!(message("llama.rope.scaling.type", "yarn".into()),
        @"`llama.rope.scaling.factor`: expected a value, found nothing");
    insta::assert_snapshot!(message("llama.rope.scaling.type", "longrope".into()),
        @"`rope_factors_long.weight`: expected a tensor, found none");
    insta::assert_snapshot!(message("llama.block_count", (1 << 30).into()),
        @"`llama.block_count`: expected at most the number of tensors (20), found 1073741824");
    insta::assert_snapshot!(message("llama.attention.head_count", 0.into()),
        @"`num_attention_heads`: expected a positive integer, found 0");
    insta::assert_snapshot!(message("llama.embedding_length", "8".into()),
        @r#"`llama.embedding_length`: expected an integer from 0, the same for each layer, found "8""#);
}

#[test]
fn tensors_that_disagree_with_the_metadata_are_listed() {
    let mut plan = plan(&small(), GgmlType::F32);
    plan[0].spec.shape = vec![7, 8];
    plan[3].spec.name = "blk.0.ffn_gate_inp.weight".to_owned();
    let file = file(&metadata(&small(), "small", GgmlType::F32).unwrap(), plan);
    let gguf = Gguf::parse(file).unwrap();
    insta::assert_snapshot!(tensors(&gguf, &small()).unwrap_err(), @"
    the tensors contradict the metadata:
      `token_embd.weight`: expected shape [6, 8], found [7, 8]
      `blk.0.ffn_gate_inp.weight` is not a tensor of this model
      `blk.0.attn_v.weight` is missing
    ");
    let deeper = ModelConfig {
        num_hidden_layers: 9,
        ..small()
    };
    let message = tensors(&gguf, &deeper).unwrap_err().to_string();
    assert!(message.ends_with("and 46 more"), "{message}");
}

#[test]
fn a_number_type_that_cannot_be_widened_is_named() {
    let mut plan = plan(&small(), GgmlType::F32);
    plan[0].spec.kind = GgmlType::I32;
    let file = file(&metadata(&small(), "small", GgmlType::F32).unwrap(), plan);
    let gguf = Gguf::parse(file).unwrap();
    insta::assert_snapshot!(tensors(&gguf, &small()).unwrap_err(),
        @"tensor `token_embd.weight`: I32 (type 26) is not supported; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K and IQ4_NL are");
}

#[test]
fn rows_turn_and_turn_back() {
    // halves to pairs within each head of four
    let rows: Vec<_> = (0..8).map(|row| hugging_face_row(row, 4)).collect();
    assert_eq!(rows, [0, 2, 1, 3, 4, 6, 5, 7]);
    for head_dim in [2, 4, 6, 128] {
        for row in 0..3 * head_dim {
            assert_eq!(paired_row(hugging_face_row(row, head_dim), head_dim), row);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn damage_never_does_harm(
        changes in proptest::collection::vec((any::<Index>(), any::<u32>(), 0u32..32), 1..4),
    ) {
        let mut metadata = metadata(&small(), "small", GgmlType::Q8_0).unwrap();
        metadata.set("tokenizer.ggml.model", "llama");
        metadata.set("tokenizer.ggml.tokens", Array::strings(["a", "b", "c", "d", "e", "f"]));
        let mut file = file(&metadata, plan(&small(), GgmlType::Q8_0)).to_vec();
        for (place, number, bits) in changes {
            // any value, in the part before the weights
            let place = place.index(2000);
            file[place..place + 4].copy_from_slice(&(number >> bits).to_le_bytes());
        }
        let file = Bytes::from(file);
        if let Ok(gguf) = Gguf::parse(file.clone()) {
            let _ = Vocabulary::from_metadata(gguf.metadata());
            if let Ok(config) = config(&gguf, &[&file]) {
                let found = tensors(&gguf, &config);
                prop_assert!(found.is_err() || found.unwrap().len() == layout::tensors(&config).len());
            }
        }
    }
}
