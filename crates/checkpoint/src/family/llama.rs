//! LLaMA 1 to 3, and models of the same architecture: SmolLM2, TinyLlama.
//!
//! Sources: transformers, `modeling_llama.py`; PEFT, `utils/constants.py` (default targets); llama.cpp,
//! `gguf-py/gguf/constants.py` and `convert_hf_to_gguf.py` (`LlamaModel`); meta-llama/llama and llama-models (the parallel
//! layers of fairscale) with transformers' `convert_llama_weights_to_hf.py`.

use super::{Family, GgufFamily, Module, Split};

/// The LLaMA family.
pub static LLAMA: Family = Family {
    model_type: "llama",
    class: "LlamaForCausalLM",
    gguf: GgufFamily::like_llama("llama"),
    // by rows in Llama 3
    embedding: Module::EMBEDDING.meta("tok_embeddings", Split::Columns),
    layer: &[
        Module::QUERY
            .attention_bias()
            .default_target()
            .meta("attention.wq", Split::Rows)
            .pairs(),
        Module::KEY
            .attention_bias()
            .meta("attention.wk", Split::Rows)
            .pairs(),
        Module::VALUE
            .attention_bias()
            .default_target()
            .meta("attention.wv", Split::Rows),
        Module::ATTENTION_OUTPUT
            .attention_bias()
            .meta("attention.wo", Split::Columns),
        Module::GATE.mlp_bias().meta("feed_forward.w1", Split::Rows),
        Module::UP.mlp_bias().meta("feed_forward.w3", Split::Rows),
        Module::DOWN
            .mlp_bias()
            .meta("feed_forward.w2", Split::Columns),
        Module::INPUT_NORM.meta("attention_norm", Split::Whole),
        Module::MLP_NORM.meta("ffn_norm", Split::Whole),
    ],
    norm: Module::FINAL_NORM.meta("norm", Split::Whole),
    head: Module::HEAD.meta("output", Split::Rows),
    ..Family::STANDARD
};
