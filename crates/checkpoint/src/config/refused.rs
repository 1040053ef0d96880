//! Models that simmer does not read: what they are, and which models that it reads come nearest.

use serde_json::Value;

/// A group of models that simmer does not read.
struct Group {
    /// What they are: the end of the sentence "`mixtral` is ...".
    is: &'static str,
    /// Values of `model_type`, each with the nearest models; `""`: those of the group.
    models: &'static [(&'static str, &'static str)],
    /// The nearest models, and what else can be done.
    nearest: &'static str,
}

/// A model that simmer does not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// What it is.
    pub(super) is: &'static str,
    /// What to use instead.
    pub(super) instead: String,
}

const QWEN3: &str = "Qwen/Qwen3-8B, Qwen/Qwen3-14B and Qwen/Qwen3-32B (`qwen3`)";
const QWEN2: &str = "Qwen/Qwen2.5-7B-Instruct and Qwen/Qwen2.5-14B-Instruct (`qwen2`)";
const MISTRAL: &str =
    "mistralai/Mistral-7B-Instruct-v0.3 and mistralai/Mistral-Small-24B-Instruct-2501 (`mistral`)";
const GRANITE: &str =
    "ibm-granite/granite-3.3-2b-instruct and ibm-granite/granite-3.3-8b-instruct (`granite`)";
const OLMO2: &str = "allenai/OLMo-2-0425-1B and allenai/OLMo-2-1124-7B (`olmo2`)";
const PHI: &str = "microsoft/Phi-4-mini-instruct and microsoft/phi-4 (`phi3`)";
const LLAMA: &str =
    "meta-llama/Llama-3.1-8B-Instruct and meta-llama/Llama-3.3-70B-Instruct (`llama`)";
const GEMMA: &str = "google/gemma-3-1b-it (`gemma3_text`) and google/gemma-2-9b-it (`gemma2`)";
const DISTILLED: &str = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B, -14B and -32B (`qwen2`), and \
     deepseek-ai/DeepSeek-R1-Distill-Llama-8B and -70B (`llama`)";
const SMALL: &str = "HuggingFaceTB/SmolLM2-135M (`llama`), Qwen/Qwen2.5-0.5B (`qwen2`) and Qwen/Qwen3-0.6B (`qwen3`)";
const MEDIUM: &str = "mistralai/Mistral-7B-v0.3 (`mistral`), Qwen/Qwen2.5-7B (`qwen2`) and \
     meta-llama/Llama-3.1-8B (`llama`)";

/// What to do about the text part of Gemma 3; the lines were run with transformers 5.23. (`Gemma3ForCausalLM.from_pretrained`
/// alone starts from random weights there.)
const GEMMA3_TEXT: &str = "its text part is `gemma3_text`, which simmer reads; transformers saves it alone, with MODEL as the model:
  from transformers import AutoModelForImageTextToText, AutoTokenizer, Gemma3ForCausalLM
  whole = AutoModelForImageTextToText.from_pretrained(\"MODEL\", dtype=\"auto\")
  text = Gemma3ForCausalLM(whole.config.text_config).to(whole.dtype)
  text.model = whole.model.language_model
  text.tie_weights()
  text.save_pretrained(\"gemma-3-text\")
  AutoTokenizer.from_pretrained(\"MODEL\").save_pretrained(\"gemma-3-text\")
google/gemma-3-270m-it and google/gemma-3-1b-it need none of this";

const GROUPS: &[Group] = &[
    Group {
        is: "a mixture of experts; simmer reads dense models only",
        models: &[
            ("mixtral", MISTRAL),
            ("qwen2_moe", QWEN2),
            ("qwen3_moe", QWEN3),
            ("olmoe", OLMO2),
            ("flex_olmo", OLMO2),
            (
                "gpt_oss",
                "microsoft/phi-4 (`phi3`) and Qwen/Qwen3-14B (`qwen3`)",
            ),
            ("deepseek", DISTILLED),
            ("deepseek_v2", DISTILLED),
            ("deepseek_v3", DISTILLED),
            ("deepseek_v32", DISTILLED),
            ("kimi_k2", DISTILLED),
            ("granitemoe", GRANITE),
            ("granitemoeshared", GRANITE),
            ("phimoe", PHI),
            ("glm4_moe", ""),
            ("glm4_moe_lite", ""),
            ("dbrx", ""),
            ("arctic", ""),
            ("jetmoe", ""),
            ("grok", ""),
            ("ernie4_5_moe", ""),
            ("hunyuan_v1_moe", ""),
            ("bailing_moe", ""),
            ("dots1", ""),
            ("minimax", ""),
            ("minimax_m2", ""),
            ("longcat_flash", ""),
            ("afmoe", ""),
            ("lfm2_moe", ""),
            ("smallthinker", ""),
        ],
        nearest: QWEN3,
    },
    Group {
        is: "a model of images and text",
        models: &[
            ("gemma3", GEMMA3_TEXT),
            ("gemma3n", GEMMA),
            ("gemma3n_text", GEMMA),
            ("gemma4", GEMMA),
            ("gemma4_text", GEMMA),
            ("paligemma", GEMMA),
            ("mistral3", MISTRAL),
            ("pixtral", MISTRAL),
            ("llama4", LLAMA),
            ("llama4_text", LLAMA),
            ("mllama", LLAMA),
            ("mllama_text_model", LLAMA),
            ("phi3_v", PHI),
            ("phi4_multimodal", PHI),
            ("phi4mm", PHI),
            ("qwen2_vl", QWEN2),
            ("qwen2_5_vl", QWEN2),
            ("qwen3_vl", QWEN3),
            ("qwen3_vl_moe", QWEN3),
            ("qwen3_5", QWEN3),
            ("qwen3_5_moe", QWEN3),
            (
                "smolvlm",
                "HuggingFaceTB/SmolLM2-360M-Instruct and -1.7B-Instruct (`llama`)",
            ),
            ("llava", ""),
            ("llava_llama", ""),
            ("llava_mistral", MISTRAL),
            ("llava_qwen", QWEN2),
            ("llava_next", ""),
            ("llava_next_video", ""),
            ("llava_onevision", QWEN2),
            ("vipllava", ""),
            ("video_llava", ""),
            ("idefics", ""),
            ("idefics2", MISTRAL),
            ("idefics3", LLAMA),
            ("internvl", QWEN2),
            ("internvl_chat", QWEN2),
            ("minicpmv", QWEN2),
            ("minicpmo", QWEN2),
            ("molmo", ""),
            ("deepseek_vl", ""),
            ("deepseek_vl_v2", ""),
            ("kimi_vl", ""),
            ("glm4v", ""),
            ("fuyu", ""),
            ("blip-2", ""),
            ("instructblip", ""),
            ("kosmos-2", ""),
            ("emu3", ""),
            ("aria", ""),
            ("ovis", ""),
            ("chameleon", ""),
            ("aya_vision", ""),
            ("cohere2_vision", ""),
            ("florence2", ""),
            ("got_ocr2", ""),
            ("lfm2_vl", ""),
            ("clip", ""),
            ("siglip", ""),
            ("vit", ""),
        ],
        nearest: "the language model that it is built on, usually named on its model card",
    },
    Group {
        is: "a model of sound and text",
        models: &[
            ("qwen2_audio", QWEN2),
            ("qwen2_5_omni", QWEN2),
            ("qwen3_omni_moe", QWEN3),
            ("voxtral", MISTRAL),
            ("granite_speech", GRANITE),
            ("ultravox", LLAMA),
            ("whisper", ""),
            ("wav2vec2", ""),
            ("moshi", ""),
            ("csm", LLAMA),
            ("musicgen", ""),
            ("bark", ""),
        ],
        nearest: "the language model that it is built on, usually named on its model card",
    },
    Group {
        is: "a state-space model, or has other layers than attention",
        models: &[
            ("mamba", ""),
            ("mamba2", ""),
            ("falcon_mamba", ""),
            ("jamba", ""),
            ("zamba", ""),
            ("zamba2", ""),
            ("bamba", ""),
            ("falcon_h1", ""),
            ("nemotron_h", ""),
            ("granitemoehybrid", GRANITE),
            ("qwen3_next", QWEN3),
            ("recurrent_gemma", GEMMA),
            ("rwkv", ""),
            ("rwkv6", ""),
            ("rwkv7", ""),
            ("lfm2", SMALL),
            ("plamo2", ""),
            ("kimi_linear", ""),
            ("olmo_hybrid", OLMO2),
        ],
        nearest: MEDIUM,
    },
    Group {
        is: "an encoder, which does not generate text",
        models: &[
            ("bert", ""),
            ("roberta", ""),
            ("xlm-roberta", ""),
            ("distilbert", ""),
            ("albert", ""),
            ("camembert", ""),
            ("electra", ""),
            ("deberta", ""),
            ("deberta-v2", ""),
            ("modernbert", ""),
            ("eurobert", ""),
            ("mpnet", ""),
            ("nomic_bert", ""),
            ("longformer", ""),
            ("big_bird", ""),
        ],
        nearest: SMALL,
    },
    Group {
        is: "an encoder with a decoder; simmer reads decoders only",
        models: &[
            ("t5", ""),
            ("mt5", ""),
            ("umt5", ""),
            ("longt5", ""),
            ("t5gemma", GEMMA),
            ("switch_transformers", ""),
            ("bart", ""),
            ("mbart", ""),
            ("pegasus", ""),
            ("marian", ""),
            ("m2m_100", ""),
            ("nllb-moe", ""),
            ("blenderbot", ""),
            ("led", ""),
            ("prophetnet", ""),
        ],
        nearest: SMALL,
    },
    Group {
        is: "a decoder of another architecture",
        models: &[
            ("gpt2", SMALL),
            ("gpt_neo", SMALL),
            ("gpt_neox", ""),
            ("gptj", ""),
            ("gpt_bigcode", QWEN2),
            ("starcoder2", QWEN2),
            ("codegen", QWEN2),
            ("opt", ""),
            ("bloom", ""),
            ("falcon", ""),
            ("RefinedWeb", ""),
            ("RefinedWebModel", ""),
            ("mpt", ""),
            ("phi", PHI),
            ("phi-msft", PHI),
            ("phi3small", PHI),
            ("mixformer-sequential", PHI),
            ("stablelm", ""),
            ("stablelm_epoch", ""),
            ("cohere", ""),
            ("cohere2", ""),
            ("olmo", OLMO2),
            ("hf_olmo", OLMO2),
            ("olmo3", OLMO2),
            ("exaone", ""),
            ("exaone4", ""),
            ("glm", ""),
            ("glm4", ""),
            ("chatglm", ""),
            ("internlm", ""),
            ("internlm2", ""),
            ("internlm3", ""),
            ("baichuan", ""),
            ("qwen", QWEN2),
            ("xverse", ""),
            ("minicpm", ""),
            ("minicpm3", ""),
            ("nemotron", ""),
            ("nemotron-nas", LLAMA),
            ("persimmon", ""),
            ("xglm", ""),
            ("ministral", MISTRAL),
            ("ministral3", MISTRAL),
            ("ernie4_5", ""),
            ("hunyuan_v1_dense", ""),
            ("seed_oss", ""),
            ("helium", SMALL),
            ("arcee", ""),
            ("apertus", ""),
            ("bitnet", ""),
            ("diffllama", ""),
            ("vaultgemma", GEMMA),
            ("openelm", SMALL),
            ("mimo", QWEN2),
            ("orion", ""),
            ("aquila", ""),
            ("telechat", ""),
        ],
        nearest: MEDIUM,
    },
];

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
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::family::{self, Family};

    #[test]
    fn no_name_is_read_and_refused_or_occurs_twice() {
        let mut names = BTreeSet::new();
        for (name, nearest) in GROUPS.iter().flat_map(|group| group.models) {
            assert!(names.insert(plain(name)), "{name}");
            assert_eq!(Family::of_model_type(name), None);
            let class = format!("{}ForCausalLM", plain(name));
            assert!(of_class(&class).is_some(), "{class}");
            // a model that is proposed belongs to a family that is read
            let families = nearest.split('`').skip(1).step_by(2);
            for family in families.filter(|_| *nearest != GEMMA3_TEXT) {
                assert!(Family::of_model_type(family).is_some(), "{nearest}");
            }
        }
        for family in family::ALL {
            assert_eq!(of_model_type(family.model_type), None);
        }
    }

    #[test]
    fn classes_name_their_models() {
        for (class, model) in [
            ("Qwen3MoeForCausalLM", "qwen3_moe"),
            ("GPT2LMHeadModel", "gpt2"),
            ("GPTNeoXForCausalLM", "gpt_neox"),
            ("RWForCausalLM", "falcon"),
            ("Gemma3ForConditionalGeneration", "gemma3"),
            ("T5ForConditionalGeneration", "t5"),
            ("Mistral3ForConditionalGeneration", "mistral3"),
        ] {
            assert_eq!(of_class(class), of_model_type(model), "{class}");
            assert!(of_class(class).is_some(), "{class}");
        }
        assert_eq!(of_class("LLaMAForCausalLM"), None);
        assert_eq!(of_class("Model"), None);
    }

    #[test]
    fn the_original_of_a_quantised_copy() {
        assert_eq!(original("Qwen3-8B-AWQ"), Some("Qwen3-8B"));
        assert_eq!(
            original("Llama-3.2-1B-Instruct-unsloth-bnb-4bit"),
            Some("Llama-3.2-1B-Instruct")
        );
        assert_eq!(
            original("Qwen2.5-7B-Instruct-GPTQ-Int4"),
            Some("Qwen2.5-7B-Instruct")
        );
        assert_eq!(original("awq"), None);
    }
}
