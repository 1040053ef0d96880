use burn::tensor::Device;
use simmer_checkpoint::family::{LLAMA, Role};

use super::*;

#[test]
fn keys_that_the_adapter_sets_are_refused_by_name() {
    let lora = LoraConfig {
        from: Some("adapter".into()),
        dropout: 0.1,
        ..LoraConfig::default()
    };
    assert!(lora.check().is_ok());
    let lora = LoraConfig {
        rank: 4,
        use_rslora: true,
        exclude_modules: Some(Targets::Names(vec!["q_proj".to_owned()])),
        ..lora
    };
    insta::assert_snapshot!(lora.check().unwrap_err(), @"[method.lora] `from`: can be combined only with `dropout`; remove `rank`, `exclude_modules`, `use_rslora`");
}

#[test]
fn a_norm_that_the_model_does_not_have_is_not_another_one() {
    let config = simmer_checkpoint::sizes::named("smollm2-135m").map(|config| ModelConfig {
        vocab_size: 4,
        hidden_size: 4,
        intermediate_size: 4,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        head_dim: 4,
        ..config
    });
    let mut base = crate::base::BaseConfig::default();
    base.init = config;
    let mut model = crate::base::load(&base, 0, &Device::flex()).unwrap();
    // as the table of a family with a norm of the queries would have it
    let unknown = ModuleLayout {
        name: "model.layers.0.self_attn.q_norm".to_owned(),
        kind: ModuleKind::Norm,
        shape: vec![4],
        bias: false,
        layer: Some(0),
        module: LLAMA.in_layer(Role::Query),
        tied: false,
        heads: 1,
    };
    let error = train_module(&mut model, &unknown).unwrap_err();
    insta::assert_snapshot!(error, @"`model.layers.0.self_attn.q_norm` cannot be changed by an adapter: simmer's model has no such module");
    assert!(model.trainable_shapes().is_empty());
}
