//! The tensor names of LLaMA models in GGUF and Hugging Face.

/// Modules outside the layers.
const MODULES: &[(&str, &str)] = &[
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
];

/// Modules of a layer, with the prefixes `blk.N.` and `model.layers.N.`.
const PARTS: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Hugging Face's name of a tensor: `blk.0.attn_q.weight` is `model.layers.0.self_attn.q_proj.weight`.
pub fn hugging_face_name(gguf: &str) -> Option<String> {
    let (module, suffix) = split(gguf)?;
    let module = match module.strip_prefix("blk.") {
        None => other(MODULES, module, |pair| pair)?.to_owned(),
        Some(rest) => {
            let (layer, part) = layer(rest)?;
            format!("model.layers.{layer}.{}", other(PARTS, part, |pair| pair)?)
        }
    };
    Some(format!("{module}.{suffix}"))
}

/// GGUF's name of a tensor, from Hugging Face's.
pub fn gguf_name(hugging_face: &str) -> Option<String> {
    let (module, suffix) = split(hugging_face)?;
    Some(format!("{}.{suffix}", gguf_module(module)?))
}

/// GGUF's name of a module.
pub(super) fn gguf_module(hugging_face: &str) -> Option<String> {
    let back = |(gguf, hugging_face)| (hugging_face, gguf);
    match hugging_face.strip_prefix("model.layers.") {
        None => other(MODULES, hugging_face, back).map(str::to_owned),
        Some(rest) => {
            let (layer, part) = layer(rest)?;
            Some(format!("blk.{layer}.{}", other(PARTS, part, back)?))
        }
    }
}

/// Whether GGUF stores the rows of each head as rotary pairs: in query and key projections.
pub(super) fn has_paired_rows(hugging_face: &str) -> bool {
    let module = split(hugging_face).map_or(hugging_face, |(module, _)| module);
    module.ends_with(".q_proj") || module.ends_with(".k_proj")
}

type Pair = (&'static str, &'static str);

fn other(table: &[Pair], name: &str, order: impl Fn(Pair) -> Pair) -> Option<&'static str> {
    let mut pairs = table.iter().map(|&pair| order(pair));
    pairs.find(|pair| pair.0 == name).map(|pair| pair.1)
}

fn split(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.')
        .filter(|(_, suffix)| ["weight", "bias"].contains(suffix))
}

/// The number of a layer, and the rest of the name.
fn layer(rest: &str) -> Option<(usize, &str)> {
    let (number, part) = rest.split_once('.')?;
    let layer: usize = number.parse().ok()?;
    // only the canonical spelling: neither 01 nor +1
    (layer.to_string() == number).then_some((layer, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_translate_both_ways() {
        for (gguf, hugging_face) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output.weight", "lm_head.weight"),
            ("output_norm.weight", "model.norm.weight"),
            (
                "blk.12.attn_q.bias",
                "model.layers.12.self_attn.q_proj.bias",
            ),
            (
                "blk.0.attn_output.weight",
                "model.layers.0.self_attn.o_proj.weight",
            ),
            (
                "blk.0.ffn_norm.weight",
                "model.layers.0.post_attention_layernorm.weight",
            ),
        ] {
            assert_eq!(hugging_face_name(gguf).as_deref(), Some(hugging_face));
            assert_eq!(gguf_name(hugging_face).as_deref(), Some(gguf));
        }
        for unknown in [
            "rope_freqs.weight",
            "blk.x.attn_q.weight",
            "blk.01.attn_q.weight",
        ] {
            assert_eq!(hugging_face_name(unknown), None);
        }
        assert!(has_paired_rows("model.layers.0.self_attn.k_proj.bias"));
        assert!(!has_paired_rows("model.layers.0.self_attn.v_proj.weight"));
    }
}
