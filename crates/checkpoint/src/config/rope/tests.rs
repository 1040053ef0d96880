use std::path::Path;

use serde_json::{Value, json};

use super::RopeScaling;
use crate::config::{ConfigError, ModelConfig};

/// A model with 8 pairs of rotary features, and these keys.
fn parse(keys: Value) -> Result<ModelConfig, ConfigError> {
    let mut json = json!({
        "vocab_size": 32, "hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 128
    });
    let keys = keys.as_object().cloned();
    json.as_object_mut().unwrap().extend(keys.unwrap());
    ModelConfig::from_json(&json, Path::new("config.json"))
}

fn scaling(keys: Value) -> RopeScaling {
    parse(keys).unwrap().rope_scaling
}

fn yarn() -> RopeScaling {
    RopeScaling::Yarn {
        factor: 4.0,
        original_max_position_embeddings: 32,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: None,
        mscale: None,
        mscale_all_dim: None,
        truncate: true,
    }
}

fn long_rope() -> RopeScaling {
    RopeScaling::LongRope {
        short_factor: vec![1.5; 8],
        long_factor: vec![4.0; 8],
        original_max_position_embeddings: 32,
        factor: None,
        attention_factor: None,
    }
}

fn all() -> [RopeScaling; 8] {
    let RopeScaling::LongRope {
        short_factor,
        long_factor,
        ..
    } = long_rope()
    else {
        unreachable!()
    };
    [
        RopeScaling::Default,
        RopeScaling::Linear { factor: 2.0 },
        RopeScaling::Dynamic { factor: 2.5 },
        yarn(),
        RopeScaling::Yarn {
            factor: 40.0,
            original_max_position_embeddings: 64,
            beta_fast: 24.0,
            beta_slow: 2.0,
            attention_factor: Some(1.25),
            mscale: Some(0.707),
            mscale_all_dim: Some(1.0),
            truncate: false,
        },
        long_rope(),
        RopeScaling::LongRope {
            short_factor,
            long_factor,
            original_max_position_embeddings: 48,
            factor: Some(8.0),
            attention_factor: Some(1.5),
        },
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64,
        },
    ]
}

#[test]
fn old_and_new_spellings_mean_the_same() {
    let table = json!({"type": "yarn", "factor": 4, "original_max_position_embeddings": 32});
    assert_eq!(scaling(json!({"rope_scaling": table})), yarn());
    let table = json!({
        "rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "beta_fast": null, "mscale": 0,
        "original_max_position_embeddings": 32
    });
    let config = parse(json!({"rope_parameters": table})).unwrap();
    assert_eq!((config.rope_scaling, config.rope_theta), (yarn(), 1e6));
    let table = json!({"type": "yarn", "factor": 4.0, "truncate": true});
    let keys = json!({"rope_scaling": table, "max_position_embeddings": 32});
    assert_eq!(scaling(keys), yarn());

    let divisors = |kind| {
        let mut table = json!({"short_factor": vec![1.5; 8], "long_factor": vec![4; 8]});
        table["type"] = json!(kind);
        table
    };
    for kind in ["su", "longrope", "yarn"] {
        let keys = json!({"rope_scaling": divisors(kind), "original_max_position_embeddings": 32});
        assert_eq!(scaling(keys), long_rope(), "{kind}");
    }
    let mut table = divisors("longrope");
    table["original_max_position_embeddings"] = json!(32);
    assert_eq!(scaling(json!({"rope_parameters": table})), long_rope());
    // the key of the file takes precedence
    table["original_max_position_embeddings"] = json!(64);
    let keys = json!({"rope_parameters": table, "original_max_position_embeddings": 32});
    assert_eq!(scaling(keys), long_rope());
}

#[test]
fn every_kind_reads_back() {
    for scaling in all() {
        let mut config = parse(json!({})).unwrap();
        config.rope_scaling = scaling.clone();
        config.check(Path::new("")).unwrap();
        let read = ModelConfig::from_json(&config.to_json(), Path::new("")).unwrap();
        assert_eq!(read, config);
        // as in a recipe
        let text = serde_json::to_string(&scaling).unwrap();
        assert_eq!(serde_json::from_str::<RopeScaling>(&text).unwrap(), scaling);
        assert!(text.contains(scaling.kind()), "{text}");
    }
    let text = r#"{"yarn": {"factor": 4.0, "original_max_position_embeddings": 32}}"#;
    assert_eq!(serde_json::from_str::<RopeScaling>(text).unwrap(), yarn());
}

#[test]
fn generated_keys_are_those_of_transformers() {
    let mut config = parse(json!({})).unwrap();
    config.rope_scaling = yarn();
    insta::assert_snapshot!(config.to_json()["rope_parameters"], @r#"{"beta_fast":32.0,"beta_slow":1.0,"factor":4.0,"original_max_position_embeddings":32,"rope_theta":10000.0,"rope_type":"yarn","truncate":true}"#);
    config.rope_scaling = long_rope();
    let json = config.to_json();
    insta::assert_snapshot!(json["rope_parameters"], @r#"{"long_factor":[4.0,4.0,4.0,4.0,4.0,4.0,4.0,4.0],"original_max_position_embeddings":32,"rope_theta":10000.0,"rope_type":"longrope","short_factor":[1.5,1.5,1.5,1.5,1.5,1.5,1.5,1.5]}"#);
    // where transformers' Phi-3 reads it
    assert_eq!(json["original_max_position_embeddings"], 32);
}

#[test]
fn errors_name_the_key() {
    let message = |table: Value| {
        let error = parse(json!({"rope_scaling": table})).unwrap_err();
        error.to_string()
    };
    insta::assert_snapshot!(message(json!({"type": "ntk", "factor": 2})),
        @r#"config.json: `rope_scaling.rope_type`: expected "default", "linear", "dynamic", "yarn", "longrope" or "llama3", found "ntk""#);
    insta::assert_snapshot!(message(json!({"type": "dynamic"})),
        @"config.json: `rope_scaling.factor`: expected a positive number, found nothing");
    insta::assert_snapshot!(message(json!({"type": "dynamic", "factor": 0.5})),
        @"config.json: `rope_scaling.factor`: expected a number from 1 to 1000000, found 0.5");
    insta::assert_snapshot!(message(json!({"type": "yarn", "factor": 0.5})),
        @"config.json: `rope_scaling.factor`: expected a number from 1 to 1000000, found 0.5");
    insta::assert_snapshot!(message(json!({"type": "yarn", "factor": "4"})),
        @r#"config.json: `rope_scaling.factor`: expected a positive number, found "4""#);
    insta::assert_snapshot!(message(json!({"type": "yarn", "factor": 4, "beta_fast": 1, "beta_slow": 32})),
        @"config.json: `rope_scaling.beta_fast`: expected a number of at least beta_slow (32), found 1.0");
    insta::assert_snapshot!(message(json!({"type": "yarn", "factor": 4, "truncate": 1})),
        @"config.json: `rope_scaling.truncate`: expected true or false, found 1");
    insta::assert_snapshot!(message(json!({"type": "yarn", "factor": 4, "original_max_position_embeddings": 0})),
        @"config.json: `rope_scaling.original_max_position_embeddings`: expected a positive integer, found 0");
    let long_rope = |short: Value, long: Value| json!({"type": "longrope", "short_factor": short, "long_factor": long});
    insta::assert_snapshot!(message(long_rope(json!(vec![1; 8]), json!(vec![4; 8]))),
        @"config.json: `rope_scaling.original_max_position_embeddings`: expected a positive integer: the context before scaling, in tokens, found nothing");
    insta::assert_snapshot!(message(long_rope(json!(vec![1; 8]), Value::Null)),
        @"config.json: `rope_scaling.long_factor`: expected a list of numbers, found nothing");
    insta::assert_snapshot!(message(json!({"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4})),
        @"config.json: `rope_scaling.original_max_position_embeddings`: expected a positive integer: the context before scaling, in tokens, found nothing");
    let divisors = |short: Value, long: Value| {
        let mut table = long_rope(short, long);
        table["original_max_position_embeddings"] = json!(32);
        message(table)
    };
    insta::assert_snapshot!(divisors(json!([1, 2, 3]), json!(vec![4; 8])),
        @"config.json: `rope_scaling.short_factor`: expected 8 numbers, one for each pair of rotary features, found 3");
    insta::assert_snapshot!(divisors(json!(vec![1; 8]), json!([4, 4, 4, 4, 4, 4, 4, 0])),
        @"config.json: `rope_scaling.long_factor[7]`: expected a number from 0.001 to 1000000, found 0.0");
}
