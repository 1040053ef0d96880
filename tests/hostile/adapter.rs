//! Adapters in PEFT's layout.

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::json;
use simmer_model::adapter::peft::AdapterFolder;
use simmer_model::base::BaseConfig;

use super::{Folder, deep, shown};

#[test]
fn adapters() {
    let golden = || Folder::of("tied-gqa/adapters/qkvo");
    let base = Folder::of("tied-gqa");
    let load = |folder: &Folder| {
        let model = BaseConfig::from_path(base.path()).open().unwrap();
        let device = burn::tensor::Device::flex();
        let model = model.load(0, &device).unwrap();
        folder.said(simmer_model::adapter::load(model, folder.path()))
    };
    let set = |key: &str, value| load(&golden().with_key("adapter_config.json", key, value));
    let text = |text: &[u8]| load(&golden().with("adapter_config.json", text));
    shown(
        "adapter::adapters",
        &[
            ("a million `[`", text(deep().as_bytes())),
            ("no object", text(b"3")),
            (
                "`NaN`, as Python writes it",
                text(b"{\"peft_type\": \"LORA\", \"lora_alpha\": NaN}"),
            ),
            (
                "a file of 5 GB",
                load(&golden().with_long("adapter_config.json", 5_000_000_000)),
            ),
            ("`r` 0", set("r", json!(0))),
            ("`r` 10^18", set("r", json!(1_000_000_000_000_000_000u64))),
            ("`r` -4", set("r", json!(-4))),
            ("`lora_alpha` a text", set("lora_alpha", json!("high"))),
            (
                "a pattern with a rank of 10^18",
                set(
                    "rank_pattern",
                    json!({"q_proj": 1_000_000_000_000_000_000u64}),
                ),
            ),
            ("a pattern that is none", set("target_modules", json!("(("))),
            (
                "a pattern that explodes",
                set("target_modules", json!("(((a{1000}){1000}){1000}){1000}")),
            ),
            (
                "a pattern that tries for ever",
                set("target_modules", json!("(?=.*)(.*.*.*.*.*.*.*.*.*.*)*\\1x")),
            ),
            (
                "layer 10^18",
                set("layers_to_transform", json!([1_000_000_000_000_000_000u64])),
            ),
            ("weights that were cut", {
                let folder = golden();
                let weights = std::fs::read(folder.at("adapter_model.safetensors")).unwrap();
                load(&folder.with("adapter_model.safetensors", &weights[..weights.len() / 2]))
            }),
            (
                "DoRA's magnitudes, one row short",
                one_row_short("dora", "0.self_attn.q_proj.lora_magnitude"),
            ),
            (
                "(IA)³'s factors, one row short",
                one_row_short("ia3", "1.self_attn.q_proj.ia3_l"),
            ),
            ("(IA)³ on outputs that its file has on inputs", {
                let folder = Folder::of("tied-gqa/adapters/ia3");
                load(&folder.with_key("adapter_config.json", "feedforward_modules", json!([])))
            }),
            ("prompts in another number of layers", {
                prompts("adapter_layers", json!(1))
            }),
            ("prompts in more layers than the model has", {
                prompts("adapter_layers", json!(30))
            }),
            (
                "another number of prompts",
                prompts("adapter_len", json!(10)),
            ),
            ("no number of prompts", prompts("adapter_len", json!(null))),
            ("prompts of other modules", {
                prompts("target_modules", json!("mlp"))
            }),
            ("prompts for a model whose heads have other features", {
                load(&Folder::of("llama3-rope/adapters/adaption-prompt"))
            }),
            ("no weights", {
                let folder = golden();
                std::fs::remove_file(folder.at("adapter_model.safetensors")).unwrap();
                folder.said(AdapterFolder::open(folder.path()))
            }),
        ],
    );
}

/// What loading an adapter of prompts says, one key of whose configuration has another value.
fn prompts(key: &str, value: serde_json::Value) -> String {
    let folder = Folder::of("llama3-rope/adapters/adaption-prompt");
    let folder = folder.with_key("adapter_config.json", key, value);
    let base = Folder::of("llama3-rope");
    let model = BaseConfig::from_path(base.path()).open().unwrap();
    let model = model.load(0, &burn::tensor::Device::flex()).unwrap();
    folder.said(simmer_model::adapter::load(model, folder.path()))
}

/// What loading an adapter of `untied-mha` says, one tensor of which has lost a row.
fn one_row_short(adapter: &str, tensor: &str) -> String {
    let folder = Folder::of(&format!("untied-mha/adapters/{adapter}"));
    let bytes = std::fs::read(folder.at("adapter_model.safetensors")).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let cut = |(key, view): (String, TensorView<'_>)| {
        let rows = view.shape()[0] - usize::from(key.contains(tensor));
        let shape = [&[rows], &view.shape()[1..]].concat();
        let bytes = shape.iter().product::<usize>() * 4;
        let data = view.data()[..bytes].to_vec();
        (key, (shape, data))
    };
    let tensors: Vec<_> = all.tensors().into_iter().map(cut).collect();
    let views = tensors.iter().map(|(key, (shape, data))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), data).unwrap();
        (key, view)
    });
    let cut = safetensors::serialize(views, None).unwrap();
    let base = Folder::of("untied-mha");
    let model = BaseConfig::from_path(base.path()).open().unwrap();
    let model = model.load(0, &burn::tensor::Device::flex()).unwrap();
    let folder = folder.with("adapter_model.safetensors", &cut);
    folder.said(simmer_model::adapter::load(model, folder.path()))
}
