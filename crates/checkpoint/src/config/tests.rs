use serde_json::json;

use super::*;

fn parse(json: &Value) -> Result<ModelConfig, ConfigError> {
    ModelConfig::from_json(json, Path::new("config.json"))
}

fn llama_7b() -> Value {
    json!({
        "model_type": "llama", "hidden_act": "silu", "vocab_size": 32000,
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "rms_norm_eps": 1e-6, "bos_token_id": 1,
        "eos_token_id": [2, 3], "rope_scaling": null
    })
}

#[test]
fn old_and_new_spellings_mean_the_same() {
    let mut old = llama_7b();
    old["rope_theta"] = json!(500_000.0);
    old["rope_scaling"] = json!({"type": "linear", "factor": 2.0});
    let mut new = llama_7b();
    new["rope_parameters"] = json!({"rope_theta": 500_000.0, "rope_type": "linear", "factor": 2.0});
    assert_eq!(parse(&old).unwrap(), parse(&new).unwrap());
    let config = parse(&old).unwrap();
    assert_eq!(config.rope_scaling, RopeScaling::Linear { factor: 2.0 });
    assert_eq!((config.head_dim, config.num_key_value_heads), (128, 32));
    assert_eq!(config.eos_token_id, [2, 3]);
}

#[test]
fn rope_scaling_is_read_before_rope_parameters() {
    let read = |edit: &dyn Fn(&mut Value)| {
        let mut json = llama_7b();
        json["rope_parameters"] = json!({"rope_theta": 7.0, "rope_type": "linear", "factor": 4.0});
        edit(&mut json);
        let config = parse(&json).unwrap();
        (config.rope_theta, config.rope_scaling)
    };
    // The values that LlamaConfig of transformers 5 has.
    let linear = |factor| RopeScaling::Linear { factor };
    let table = json!({"rope_type": "linear", "factor": 2.0});
    let both = |json: &mut Value| json["rope_scaling"] = table.clone();
    assert_eq!(read(&both), (1e4, linear(2.0)));
    let theta = |json: &mut Value| {
        json["rope_scaling"] = table.clone();
        json["rope_theta"] = json!(9.0);
    };
    assert_eq!(read(&theta), (9.0, linear(2.0)));
    for none in [json!(null), json!({})] {
        let edit = |json: &mut Value| json["rope_scaling"] = none.clone();
        assert_eq!(read(&edit), (7.0, linear(4.0)));
    }
    let own = |json: &mut Value| json["rope_theta"] = json!(9.0);
    assert_eq!(read(&own), (7.0, linear(4.0)));
}

#[test]
fn written_config_reads_back() {
    let mut json = llama_7b();
    json["rope_parameters"] = json!({"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192});
    let config = parse(&json).unwrap();
    assert_eq!(parse(&config.to_json()).unwrap(), config);
}

#[test]
fn errors_name_the_key() {
    let message = |key: &str, value: Value| {
        let mut json = llama_7b();
        json[key] = value;
        parse(&json).unwrap_err().to_string()
    };
    insta::assert_snapshot!(message("hidden_size", json!("big")),
            @r#"config.json: `hidden_size`: expected a positive integer, found "big""#);
    insta::assert_snapshot!(message("model_type", json!("lama")),
            @r#"config.json: `model_type`: expected "llama", "mistral", "qwen2", "qwen3", "smollm3", "phi3", "gemma", "gemma2", "gemma3_text", "olmo2" or "granite"; the nearest is "llama", found "lama""#);
    insta::assert_snapshot!(message("num_key_value_heads", json!(5)),
            @"config.json: `num_key_value_heads`: expected a divisor of num_attention_heads (32), found 5");
}
