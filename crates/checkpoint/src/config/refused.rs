//! Models that simmer does not read: what they are, and which models that it reads come nearest.

mod groups;

use serde_json::Value;

use groups::{GEMMA3_TEXT, GROUPS};

/// A model that simmer does not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// What it is.
    pub(super) is: &'static str,
    /// What to use instead.
    pub(super) instead: String,
}

/// The model with this `model_type`, if it is known that simmer does not read it.
pub(super) fn of_model_type(name: &str) -> Option<Refused> {
    find(|model| model == name)
}

/// The model with this class in `architectures`: `Qwen3MoeForCausalLM` is `qwen3_moe`.
pub(super) fn of_class(class: &str) -> Option<Refused> {
    let end = ["For", "LMHead"]
        .into_iter()
        .filter_map(|end| class.find(end));
    let name = plain(&class[..end.min()?]);
    // a class of Microsoft's and of TII's first models
    let name = if name == "rw" { "falcon" } else { &name };
    find(|model| plain(model) == name)
}

/// A name without its separators, in lower case.
fn plain(name: &str) -> String {
    name.replace(['_', '-'], "").to_lowercase()
}

fn find(is_it: impl Fn(&str) -> bool) -> Option<Refused> {
    GROUPS.iter().find_map(|group| {
        let (_, nearest) = group.models.iter().find(|(model, _)| is_it(model))?;
        let nearest = if nearest.is_empty() {
            group.nearest
        } else {
            nearest
        };
        Some(Refused {
            is: group.is,
            instead: instead(nearest),
        })
    })
}

/// The nearest models as a hint; a text that is one already stays.
fn instead(nearest: &str) -> String {
    if nearest == GEMMA3_TEXT {
        return nearest.to_owned();
    }
    format!("the nearest that simmer reads: {nearest}")
}

/// What a model is whose `model_type` nobody here knows, judging by its other keys.
pub(super) fn by_keys(json: &Value) -> Option<Refused> {
    let has = |keys: &[&str]| {
        keys.iter()
            .any(|key| json.get(key).is_some_and(|value| !value.is_null()))
    };
    let is_encoder_decoder = json.get("is_encoder_decoder") == Some(&Value::Bool(true));
    let examples = [
        (
            has(&["vision_config", "audio_config", "text_config"]),
            "llava",
        ),
        (experts(json).is_some(), "dbrx"),
        (has(&["ssm_cfg", "state_size", "mamba_d_state"]), "mamba"),
        (is_encoder_decoder, "t5"),
    ];
    let (_, like) = examples.into_iter().find(|(is, _)| *is)?;
    of_model_type(like)
}

/// The key that makes a model a mixture of experts, if it has more than one of them.
pub(super) fn experts(json: &Value) -> Option<&'static str> {
    [
        "num_local_experts",
        "num_experts",
        "n_routed_experts",
        "moe_num_experts",
    ]
    .into_iter()
    .find(|key| json.get(key).and_then(Value::as_u64) > Some(1))
}

/// The class of a model that does something other than generate text: what it does.
pub(super) fn task_of_class(class: &str) -> Option<&'static str> {
    [
        ("ForSequenceClassification", "a classifier of texts"),
        ("ForTokenClassification", "a classifier of tokens"),
        ("ForQuestionAnswering", "a finder of answers in texts"),
        ("ForRewardModel", "a reward model"),
        ("ForProcessRewardModel", "a reward model"),
        ("ForMaskedLM", "an encoder"),
        ("TextModel", "an embedding model"),
    ]
    .into_iter()
    .find(|(end, _)| class.ends_with(end))
    .map(|(_, is)| is)
}

/// Ends of the names of quantised copies of a model.
const SUFFIXES: [&str; 21] = [
    "-unsloth-bnb-4bit",
    "-bnb-4bit",
    "-bnb-8bit",
    "-gptq-int4",
    "-gptq-int8",
    "-gptq-4bit",
    "-gptq",
    "-awq-int4",
    "-awq",
    "-int4",
    "-int8",
    "-fp8-dynamic",
    "-fp8",
    "-nvfp4",
    "-quantized.w4a16",
    "-quantized.w8a8",
    "-4bit-dwq",
    "-4bit",
    "-8bit",
    "-6bit",
    "-exl2",
];

/// The name of the model that a quantised copy was made of, as far as the copy's name tells.
pub(super) fn original(folder: &str) -> Option<&str> {
    let lower = folder.to_lowercase();
    let end = SUFFIXES.into_iter().find(|end| lower.ends_with(end))?;
    folder
        .get(..folder.len() - end.len())
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests;
