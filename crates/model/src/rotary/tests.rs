use std::path::Path;

use serde_json::{Value, json};

use super::*;

/// The cases of transformers; see `tests/reference/rotary.py`.
fn goldens() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/rotary.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A model whose heads have the rotary features of a case, and its keys of `config.json`.
fn config(case: &Value) -> ModelConfig {
    let mut json = json!({
        "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 1, "head_dim": case["dim"]
    });
    let keys = case["keys"].as_object().unwrap();
    // the family that has rotary positions in a part of each head, here in three quarters
    if case["keys"].to_string().contains("partial_rotary_factor") {
        json["model_type"] = json!("phi3");
        json["head_dim"] = json!(size(&case["dim"]) * 4 / 3);
    }
    json.as_object_mut().unwrap().extend(keys.clone());
    ModelConfig::from_json(&json, Path::new("config.json")).unwrap()
}

fn numbers(list: &Value) -> Vec<f32> {
    let list = list.as_array().unwrap().iter();
    list.map(|number| number.as_f64().unwrap() as f32).collect()
}

fn size(number: &Value) -> usize {
    usize::try_from(number.as_u64().unwrap()).unwrap()
}

#[test]
fn frequencies_are_those_of_transformers() {
    for case in goldens() {
        let config = config(&case);
        let settings = RotarySettings::of(&config, Positions::Global);
        let name = &case["name"];
        let factor = case["attention_factor"].as_f64().unwrap();
        let found = settings.attention_factor();
        assert_eq!(found.to_bits(), (factor as f32).to_bits(), "{name}");
        for row in case["rows"].as_array().unwrap() {
            let found = settings.frequencies(size(&row["length"]));
            let expected = numbers(&row["frequencies"]);
            assert_eq!(found.len(), expected.len(), "{name}");
            for (found, expected) in found.into_iter().zip(expected) {
                // PyTorch's powers have an error of one unit in the last place; dynamic scaling has
                // two, one after the other
                let allowed = 4.0 * f32::EPSILON * expected;
                let length = &row["length"];
                assert!(
                    (found - expected).abs() <= allowed,
                    "{name}, length {length}: expected {expected}, found {found}"
                );
            }
        }
    }
}

/// Compares the positions of a golden's row with a row of a table that starts at `start`, and whose first
/// position is `first`.
fn compare(name: &Value, row: &Value, table: &Rotary, [start, first]: [usize; 2]) {
    let tables = [("cos", &table.cos), ("sin", &table.sin)];
    for (function, found) in tables {
        let [_, half] = found.dims();
        let found = found.clone().into_data().try_into_vec::<f32>().unwrap();
        let expected = numbers(&row[function]);
        let positions = row["positions"].as_array().unwrap().iter().map(size);
        for (position, expected) in positions.zip(expected.chunks(half)) {
            let Some(place) = position.checked_sub(first) else {
                continue;
            };
            let found = &found[(start + place) * half..][..half];
            // an angle is a position times a frequency with an error of four units in the last place
            let allowed = (1 + position) as f32 * 6.0 * f32::EPSILON;
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() <= allowed,
                    "{name}, {function} at {position}: expected {expected}, found {found}"
                );
            }
        }
    }
}

#[test]
fn tables_are_those_of_transformers() {
    let device = Device::flex();
    for case in goldens() {
        let config = config(&case);
        let settings = RotarySettings::of(&config, Positions::Global);
        let rows = case["rows"].as_array().unwrap();
        let lengths = rows.iter().map(|row| size(&row["length"]));
        let lengths: Vec<usize> = lengths.collect();
        // rows of several lengths in one packed sequence
        let table = Rotary::new(&settings, &Rows::from_lengths(lengths.clone()), &device);
        let mut start = 0;
        for (row, length) in rows.iter().zip(lengths) {
            compare(&case["name"], row, &table, [start, 0]);
            start += length;
            let alone = Rotary::new(&settings, &Rows::single(length), &device);
            compare(&case["name"], row, &alone, [0, 0]);
            // as in generation with a cache: the row has more keys than tokens
            let seen = length / 2;
            let rest = Rows::continuing(seen, length - seen);
            let rest = Rotary::new(&settings, &rest, &device);
            compare(&case["name"], row, &rest, [0, seen]);
        }
    }
}

#[test]
fn the_length_of_a_row_decides() {
    let scaling = RopeScaling::LongRope {
        short_factor: vec![1.0; 2],
        long_factor: vec![8.0; 2],
        original_max_position_embeddings: 4,
        factor: None,
        attention_factor: Some(1.0),
    };
    let settings = RotarySettings {
        theta: 100.0,
        scaling: &scaling,
        dim: 4,
        max_position_embeddings: 64,
    };
    let device = Device::flex();
    let table = Rotary::new(&settings, &Rows::from_lengths([4, 5]), &device);
    let sin = table.sin.into_data().try_into_vec::<f32>().unwrap();
    let first = |token: usize| sin[2 * token];
    let found = [first(1), first(4 + 1)].map(f32::to_bits);
    assert_eq!(found, [1.0_f32.sin(), 0.125_f32.sin()].map(f32::to_bits));
}
