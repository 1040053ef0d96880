//! How values are written that are often written wrong.

/// How a value is written whose shape is often wrong.
pub(super) fn shape(path: &str) -> Option<String> {
    let text = match path {
        "train.validate_every" | "train.checkpoint_every" => {
            let key = path.rsplit('.').next().unwrap_or(path);
            return Some(format!(
                "write {key} = \"epoch\", \"never\" or {{ steps = 100 }}"
            ));
        }
        "train.clip" => "write clip = { norm = 1.0 } or \"none\"",
        "train.optimizer" => {
            "write optimizer = \"adamw\", or { adamw = { weight_decay = 0.01 } } with settings"
        }
        "train.early_stop" => "write early_stop = { patience = 3 }",
        "train.recompute" => "write recompute = \"layer\", \"mlp\" or \"none\"",
        "base.offload" => "write offload = \"disk\" or \"host\", or leave it out",
        "train.guard" => "write guard = { not_finite = \"skip\" }, or leave it out",
        "train.learning_rate" => "write learning_rate = 1e-4, for example",
        "data" => {
            "write the table [data] with train = [{ path = \"rows.jsonl\", template = \"chat\" }]"
        }
        "train" => "write the table [train] with epochs = 3 and learning_rate = 1e-4, for example",
        "data.validation" => {
            "write validation = { fraction = 0.05 }, { rows = 100 } or { files = [...] }"
        }
        "data.train" | "data.train.N" => {
            "write train = [{ path = \"rows.jsonl\", template = \"chat\" }], a list of sources"
        }
        "data.train.N.template" => {
            "`chat` is the model's own chat template; `alpaca` and others are built in (docs/reference/templates.md)"
        }
        "method.ia3" => "write the table [method.ia3]; it may be empty",
        "method.adaption_prompt" => "write the table [method.adaption_prompt]; it may be empty",
        "method" | "method.lora" => "write the table [method.lora]; it may be empty",
        "base" => "write the table [base] with path = \"FOLDER\"",
        _ => return None,
    };
    Some(text.to_owned())
}
