use bytes::Bytes;

use super::*;
use crate::config::RopeScaling;
use crate::family::LLAMA;
use crate::gguf::Gguf;

fn base(tie_word_embeddings: bool) -> ModelConfig {
    ModelConfig {
        family: &LLAMA,
        vocab_size: 3,
        hidden_size: 2,
        intermediate_size: 3,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        head_dim: 4,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::Default,
        max_position_embeddings: 16,
        attention_bias: false,
        mlp_bias: false,
        tie_word_embeddings,
        bos_token_id: None,
        eos_token_id: vec![],
        ..ModelConfig::of_family(&LLAMA)
    }
}

fn query(scaling: f64) -> LoraModule<'static> {
    LoraModule {
        name: "model.layers.0.self_attn.q_proj",
        rank: 1,
        scaling,
        a: &[5.0, 6.0],
        b: &[1.0, 2.0, 3.0, 4.0],
    }
}

fn numbers(file: &Bytes, name: &str) -> (Vec<usize>, Vec<f32>) {
    let gguf = Gguf::parse(file.clone()).unwrap();
    let tensor = gguf.tensor(name).unwrap();
    let mut numbers = vec![0.0; tensor.shape.iter().product()];
    blocks::dequantize(tensor.kind, &file[tensor.range.clone()], &mut numbers).unwrap();
    (tensor.shape.clone(), numbers)
}

#[test]
fn alpha_is_the_first_modules_and_other_scalings_go_into_b() {
    let down = LoraModule {
        name: "model.layers.0.mlp.down_proj",
        rank: 2,
        scaling: 0.5,
        a: &[1.0; 6],
        b: &[1.0, 2.0, 3.0, 4.0],
    };
    let embedding = LoraModule {
        name: "model.embed_tokens",
        rank: 2,
        scaling: 1.0,
        a: &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        b: &[1.0; 4],
    };
    let mut file = Vec::new();
    let loras = [query(2.0), down, embedding];
    let folded = write_adapter(&mut file, &base(false), "x", GgmlType::F32, &loras).unwrap();
    assert_eq!(folded, ["model.layers.0.mlp.down_proj"]);
    let file = Bytes::from(file);
    let gguf = Gguf::parse(file.clone()).unwrap();
    let metadata: Vec<_> = gguf
        .metadata()
        .iter()
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    insta::assert_snapshot!(metadata.join("\n"), @r#"
    general.architecture = "llama"
    general.type = "adapter"
    adapter.type = "lora"
    general.name = "x"
    adapter.lora.alpha = 2
    general.quantization_version = 2
    "#);
    let numbers = |name: &str| numbers(&file, name);
    assert_eq!(
        numbers("blk.0.attn_q.weight.lora_a"),
        (vec![1, 2], vec![5.0, 6.0])
    );
    // pairs of the one head's halves
    assert_eq!(
        numbers("blk.0.attn_q.weight.lora_b"),
        (vec![4, 1], vec![1.0, 3.0, 2.0, 4.0])
    );
    assert_eq!(
        numbers("blk.0.ffn_down.weight.lora_b"),
        (vec![2, 2], vec![0.5, 1.0, 1.5, 2.0])
    );
    assert_eq!(
        numbers("token_embd.weight.lora_a"),
        (vec![3, 2], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0])
    );
}

#[test]
fn root_scaling_is_one_alpha_where_ranks_are_the_same() {
    let scaling = 16.0 / 3f64.sqrt();
    let side = LoraModule {
        rank: 3,
        scaling,
        a: &[1.0; 6],
        b: &[1.0; 12],
        ..query(1.0)
    };
    let other = LoraModule {
        name: "model.layers.0.self_attn.v_proj",
        ..side
    };
    let mut file = Vec::new();
    let folded = write_adapter(&mut file, &base(true), "x", GgmlType::F16, &[side, other]).unwrap();
    assert!(folded.is_empty());
    let gguf = Gguf::parse(file.into()).unwrap();
    let alpha = gguf
        .metadata()
        .number("adapter.lora.alpha")
        .unwrap()
        .unwrap();
    assert!((alpha / 3.0 - scaling).abs() < 1e-6);
    assert_eq!(gguf.tensors()[0].kind, GgmlType::F16);
}

/// As llama.cpp's `convert_lora_to_gguf.py`, which calls the converter of the base model.
#[test]
fn names_and_rows_are_those_of_the_family() {
    let halves: [f32; 4] = [1.0, 2.0, 3.0, 4.0];
    let pairs = [1.0, 3.0, 2.0, 4.0];
    for (model_type, architecture, b) in [
        ("mistral", "llama", pairs),
        ("smollm3", "smollm3", pairs),
        ("granite", "granite", pairs),
        ("qwen2", "qwen2", halves),
        ("qwen3", "qwen3", halves),
        ("gemma2", "gemma2", halves),
        ("gemma3_text", "gemma3", halves),
        ("olmo2", "olmo2", halves),
    ] {
        let config = ModelConfig {
            family: Family::of_model_type(model_type).unwrap(),
            ..base(true)
        };
        let mut file = Vec::new();
        write_adapter(&mut file, &config, "x", GgmlType::F32, &[query(1.0)]).unwrap();
        let file = Bytes::from(file);
        assert_eq!(
            numbers(&file, "blk.0.attn_q.weight.lora_b").1,
            b,
            "{model_type}"
        );
        let gguf = Gguf::parse(file).unwrap();
        let found = gguf.metadata().string("general.architecture").unwrap();
        assert_eq!(found, Some(architecture));
    }
}

#[test]
fn fused_modules_of_phi3_keep_their_rows() {
    let config = ModelConfig {
        family: Family::of_model_type("phi3").unwrap(),
        ..base(true)
    };
    let b: Vec<f32> = (0..12_u8).map(f32::from).collect();
    let fused = LoraModule {
        name: "model.layers.0.self_attn.qkv_proj",
        b: &b,
        ..query(1.0)
    };
    let features = LoraModule {
        name: "model.layers.0.mlp.gate_up_proj",
        b: &b[..6],
        ..query(1.0)
    };
    let mut file = Vec::new();
    write_adapter(&mut file, &config, "x", GgmlType::F32, &[fused, features]).unwrap();
    let file = Bytes::from(file);
    assert_eq!(
        numbers(&file, "blk.0.attn_qkv.weight.lora_b"),
        (vec![12, 1], b.clone())
    );
    let features = numbers(&file, "blk.0.ffn_up.weight.lora_b");
    assert_eq!(features, (vec![6, 1], b[..6].to_vec()));
}

#[test]
fn what_llama_cpp_cannot_apply_is_refused() {
    let message = |lora: LoraModule<'_>| {
        let written = write_adapter(Vec::new(), &base(true), "x", GgmlType::F16, &[lora]);
        written.unwrap_err().to_string()
    };
    let named = |name: &'static str| LoraModule { name, ..query(1.0) };
    insta::assert_snapshot!(message(named("lm_head")),
        @"`lm_head` cannot be written as a GGUF adapter: the head is tied to the embedding, and llama.cpp would adapt both");
    insta::assert_snapshot!(message(named("model.embed_tokens")),
        @"`model.embed_tokens` cannot be written as a GGUF adapter: the head is tied to the embedding, and llama.cpp would adapt both");
    insta::assert_snapshot!(message(named("model.norm")),
        @"`model.norm` cannot be written as a GGUF adapter: it has no matrix");
    insta::assert_snapshot!(message(named("model.layers.1.self_attn.q_proj")),
        @"`model.layers.1.self_attn.q_proj` cannot be written as a GGUF adapter: it is not a module of the base");
    insta::assert_snapshot!(message(query(0.0)),
        @"`model.layers.0.self_attn.q_proj` cannot be written as a GGUF adapter: its scaling is 0 at rank 1");
    insta::assert_snapshot!(message(LoraModule { a: &[1.0], ..query(1.0) }),
        @"`model.layers.0.self_attn.q_proj` cannot be written as a GGUF adapter: A and B have 1 and 4 elements, expected [2, 4]");
    insta::assert_snapshot!(message(LoraModule { b: &[1e9; 4], ..query(1.0) }),
        @"`model.layers.0.self_attn.q_proj.lora_B` cannot be written as a GGUF adapter: element 0 is 1000000000, which F16 cannot hold");
    let none = write_adapter(Vec::new(), &base(true), "x", GgmlType::F32, &[]);
    insta::assert_snapshot!(none.unwrap_err(),
        @"`adapter` cannot be written as a GGUF adapter: it has no modules");
}
