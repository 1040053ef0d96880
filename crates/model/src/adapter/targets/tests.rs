use std::path::Path;

use serde_json::{Map, Value, json};
use simmer_hint::Hint;

use super::*;
use crate::adapter::unmatched::check_layers;
use simmer_checkpoint::config::ModelConfig;
use simmer_checkpoint::layout::modules;

fn model() -> Vec<ModuleLayout> {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 16,
        "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3,
        "num_attention_heads": 2, "attention_bias": true, "rms_norm_eps": 1e-5,
    });
    modules(&ModelConfig::from_json(&config, Path::new("config.json")).unwrap())
}

fn config(keys: Value) -> AdapterConfig {
    let Value::Object(mut keys) = keys else {
        panic!("an object")
    };
    keys.insert("peft_type".to_owned(), "LORA".into());
    let file = Path::new("adapter_config.json");
    AdapterConfig::from_json(keys, file).unwrap().0
}

fn refused(keys: Value) -> String {
    let error = select(&config(keys), &model(), Unmatched::Refuse).unwrap_err();
    match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    }
}

/// Compares with PEFT's selection, from tests/reference/selection.py.
#[test]
fn the_selection_is_pefts() {
    let goldens = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/goldens/selection.json"
    );
    let goldens: Value = serde_json::from_slice(&std::fs::read(goldens).unwrap()).unwrap();
    let mut base = goldens["model"].as_object().unwrap().clone();
    base.insert("architectures".to_owned(), json!(["LlamaForCausalLM"]));
    base.insert("model_type".to_owned(), "llama".into());
    let base = Value::Object(base);
    let modules = modules(&ModelConfig::from_json(&base, Path::new("config.json")).unwrap());
    let cases = goldens["cases"].as_array().unwrap();
    assert!(cases.len() >= 49);
    for case in cases {
        let chosen = select(&config(case["config"].clone()), &modules, Unmatched::Warn);
        if case.get("error").is_some() {
            assert!(chosen.is_err(), "{case}");
            continue;
        }
        let chosen = chosen.unwrap_or_else(|error| panic!("{case}: {error}"));
        let adapted: Map<String, Value> = chosen
            .adapted
            .iter()
            .map(|module| (module.name.clone(), json!([module.rank, module.scaling])))
            .collect();
        assert_eq!(Value::Object(adapted), case["modules"], "{case}");
        assert_also_trained(&chosen, case);
    }
}

fn assert_also_trained(chosen: &Selection, case: &Value) {
    let trained: Vec<String> = crate::adapter::peft::tensor_shapes(chosen)
        .into_keys()
        .filter(|key| !key.contains(".lora_"))
        .map(|key| key.replace(crate::adapter::peft::KEY_PREFIX, ""))
        .collect();
    // With `bias = "all"` PEFT writes a fully saved module three times.
    let expected: Vec<&str> = case["also_trained"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .filter(|key| !key.contains(".modules_to_save.") && !key.contains(".original_module."))
        .collect();
    assert_eq!(trained, expected, "{case}");
}

#[test]
fn nothing_matched_says_what_there_is() {
    insta::assert_snapshot!(refused(json!({"target_modules": ["q_prog"]})), @r#"target_modules: ["q_prog"] matches no module; the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head; did you mean `q_proj`?"#);
    insta::assert_snapshot!(refused(json!({"target_modules": ["query_key_value"]})), @r#"target_modules: ["query_key_value"] matches no module; the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head"#);
    insta::assert_snapshot!(refused(json!({"target_modules": "q_proj"})), @r#"
        target_modules: "q_proj" matches no module; the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head
        hint: write ["q_proj"]: a string is one regular expression for the whole path of a module, such as model.layers.0.self_attn.q_proj
        "#);
    insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj"], "layers_to_transform": [7]})), @r#"target_modules: ["q_proj"] matches no module (layers_to_transform = [7]); the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head"#);
    insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj"], "exclude_modules": ["q_proj"]})), @r#"target_modules: ["q_proj"] matches no module (exclude_modules = ["q_proj"]); the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head"#);
}

fn phi3() -> Vec<ModuleLayout> {
    let config = json!({
        "model_type": "phi3", "vocab_size": 16, "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 2, "num_attention_heads": 2,
    });
    modules(&ModelConfig::from_json(&config, Path::new("config.json")).unwrap())
}

#[test]
fn modules_of_another_family_are_named() {
    let said = |keys: Value, modules: &[ModuleLayout]| {
        let error = select(&config(keys), modules, Unmatched::Warn).unwrap_err();
        let hint = error.hint().map(|hint| format!("\nhint: {hint}"));
        format!("{error}{}", hint.unwrap_or_default())
    };
    insta::assert_snapshot!(said(json!({"target_modules": ["q_proj", "v_proj"]}), &phi3()), @r#"
        target_modules: ["q_proj", "v_proj"] matches no module; the model's modules end in embed_tokens, o_proj, qkv_proj, gate_up_proj, down_proj, lm_head; did you mean `qkv_proj`?
        hint: write "all-linear" for every linear module of a layer, whatever the family calls them
        "#);
    insta::assert_snapshot!(said(json!({"target_modules": ["qkv_proj", "gate_up_proj"]}), &model()), @r#"
        target_modules: ["qkv_proj", "gate_up_proj"] matches no module; the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head; `qkv_proj` is a module of `phi3`; did you mean `q_proj`?
        hint: write "all-linear" for every linear module of a layer, whatever the family calls them
        "#);
    // PEFT: "Please specify `target_modules` in `peft_config`"
    insta::assert_snapshot!(said(json!({}), &phi3()), @r#"
        target_modules: not set, and PEFT has no default for this family of models; the model's linear modules end in o_proj, qkv_proj, gate_up_proj, down_proj
        hint: write "all-linear" for every linear module of a layer, whatever the family calls them
        "#);
    assert_eq!(
        select(&config(json!({})), &model(), Unmatched::Warn)
            .unwrap()
            .adapted
            .len(),
        6
    );
}

#[test]
fn one_name_of_several_that_matches_nothing() {
    insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj", "v_prj"]})), @"target_modules: `v_prj` matches no module; the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head; did you mean `v_proj`?");
    insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj"], "modules_to_save": ["lm_haed"]})), @"modules_to_save: `lm_haed` matches no module; the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head; did you mean `lm_head`?");
    insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj"], "rank_pattern": {"k_proj": 4}})), @"
    rank_pattern: `k_proj` matches no target module
    hint: add the module to the targets, or remove the pattern
    ");
    insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj"], "alpha_pattern": {"k_porj": 4}})), @"alpha_pattern: `k_porj` matches no module; the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head; did you mean `k_proj`?");
    let keys = json!({"target_modules": ["q_proj", "v_prj"], "exclude_modules": ["x"]});
    let chosen = select(&config(keys), &model(), Unmatched::Warn).unwrap();
    assert_eq!(chosen.adapted.len(), 3);
    assert_eq!(chosen.warnings.len(), 2);
    let keys = json!({"target_modules": ["q_proj"], "exclude_modules": "x.*"});
    let chosen = select(&config(keys), &model(), Unmatched::Warn).unwrap();
    assert!(chosen.warnings[0].starts_with("exclude_modules: `x.*` matches no module"));
    insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj"], "exclude_modules": ["k_porj"]})), @"exclude_modules: `k_porj` matches no module; the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head; did you mean `k_proj`?");
    let layers =
        |layers| config(json!({"target_modules": ["q_proj"], "layers_to_transform": layers}));
    check_layers(&layers(json!([0, 2])), &model()).unwrap();
    let error = check_layers(&layers(json!([0, 9])), &model()).unwrap_err();
    insta::assert_snapshot!(error, @"layers_to_transform: the model has no layer 9: expected layers from 0 to 2");
}

#[test]
fn what_cannot_be_adapted_is_named() {
    insta::assert_snapshot!(refused(json!({"target_modules": ["self_attn"]})), @"target_modules: `model.layers.0.self_attn` is a container of other modules; only linear modules and the embedding can have a low-rank branch");
    insta::assert_snapshot!(refused(json!({"target_modules": ["norm"]})), @"target_modules: `model.norm` is a normalisation layer; only linear modules and the embedding can have a low-rank branch");
    insta::assert_snapshot!(refused(json!({"target_modules": ".*(q_proj"})), @r"target_modules: `.*(q_proj` is not a valid regular expression: Parsing error at position 9: Opening parenthesis without closing parenthesis");
    insta::assert_snapshot!(refused(json!({"target_modules": "all-linear", "layers_to_transform": [1]})), @"layers_to_transform: applies only to a list of targets; write such a list, or the layers into the regular expression");
    insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj"], "layers_pattern": "layers"})), @"layers_pattern: requires layers_to_transform");
    insta::assert_snapshot!(refused(json!({"target_modules": []})), @"target_modules: the list is empty");
    insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj"], "modules_to_save": ["proj"]})), @"modules_to_save: `model.layers.0.self_attn.q_proj` is also in target_modules");
    insta::assert_snapshot!(refused(json!({"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 0}})), @"rank_pattern: `model.layers.0.self_attn.q_proj` has rank 0, expected at least 1");
}

#[test]
fn long_lists_are_condensed() {
    let chosen = |keys| select(&config(keys), &model(), Unmatched::Refuse).unwrap();
    let names = |targets| match targets {
        Targets::Names(names) => names,
        Targets::Regex(pattern) => panic!("{pattern}"),
    };
    let all = chosen(json!({"target_modules": "all-linear"}));
    let ends = [
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ];
    assert_eq!(names(all.target_modules), ends);
    // 20 of 21 modules: names of the same kind as the missing one cannot be shortened.
    let mut most: Vec<String> = all.adapted.into_iter().map(|module| module.name).collect();
    most.retain(|name| name != "model.layers.1.mlp.up_proj");
    let most = chosen(json!({"target_modules": most}));
    let expected = [
        "0.mlp.up_proj",
        "2.mlp.up_proj",
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "v_proj",
    ];
    assert_eq!(names(most.target_modules), expected);
}

/// Selects, and adds the tied head if the file has these keys.
fn tied(keys: &Value, file: &[&str]) -> (Vec<String>, Vec<String>) {
    let config = config(keys.clone());
    let mut selection = select(&config, &model(), Unmatched::Warn).unwrap();
    selection
        .add_tied_head(&config, &|key| file.contains(&key))
        .unwrap();
    let adapted = selection.adapted.iter().map(|module| module.name.clone());
    let saved = selection.saved.iter().map(|module| module.name.clone());
    (adapted.collect(), saved.collect())
}

#[test]
fn a_tied_head_is_selected_if_the_file_has_it() {
    let whole = json!({
        "target_modules": ["layers.0.self_attn.q_proj"], "modules_to_save": ["embed_tokens"],
        "ensure_weight_tying": true,
    });
    let head = "base_model.model.lm_head.weight";
    let (adapted, saved) = tied(&whole, &[head]);
    assert_eq!(adapted.len(), 1);
    assert_eq!(saved, ["model.embed_tokens", "lm_head"]);
    assert_eq!(tied(&whole, &[]).1, ["model.embed_tokens"]);
    let branch = json!({"target_modules": ["embed_tokens"], "ensure_weight_tying": true});
    let (adapted, saved) = tied(&branch, &["base_model.model.lm_head.lora_A.weight"]);
    assert_eq!(adapted, ["model.embed_tokens", "lm_head"]);
    assert!(saved.is_empty());
    let untied = json!({"target_modules": ["embed_tokens"]});
    assert_eq!(
        tied(&untied, &["base_model.model.lm_head.lora_A.weight"])
            .0
            .len(),
        1
    );
}

#[test]
fn a_tied_adapter_is_not_trained_further() {
    let config = config(json!({"target_modules": ["embed_tokens"], "ensure_weight_tying": true}));
    let selection = select(&config, &model(), Unmatched::Warn).unwrap();
    insta::assert_snapshot!(selection.check_trainable(&config).unwrap_err(), @"ensure_weight_tying: adapters whose embedding and output head are tied can be used and merged, but not trained further");
}
