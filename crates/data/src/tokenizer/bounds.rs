//! Refuses what a `tokenizer.json` may not contain, although the library accepts it: replacements that make a text grow
//! without bound, and parts that the library reads wrongly or much too slowly.

use serde::Deserialize;
use serde_json::Value;

/// The maximum nesting of parts. Real tokenizers have a sequence of parts, and at most one sequence in it.
const MAX_NESTING: usize = 16;
/// How many times longer replacements may make a text. LLaMA's replace a space by three bytes.
const MAX_GROWTH: f64 = 1000.0;

/// The parts that are checked: all except vocabulary and merges.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Parts {
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: ModelParts,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ModelParts {
    continuing_subword_prefix: Option<String>,
}

/// Checks the parts of a `tokenizer.json`. A file of another kind is left to the library, which refuses it.
pub(super) fn check(file: &[u8]) -> Result<(), String> {
    let parts: Parts = match serde_json::from_slice(file) {
        Ok(parts) => parts,
        // the library would panic
        Err(error) if !error.is_data() => return Err(format!("not a tokenizer: {error}")),
        Err(_) => return Ok(()),
    };
    for (key, part) in [
        ("normalizer", &parts.normalizer),
        ("pre_tokenizer", &parts.pre_tokenizer),
        ("post_processor", &parts.post_processor),
        ("decoder", &parts.decoder),
    ] {
        let nesting = nesting(part);
        if nesting > MAX_NESTING {
            let problem = format!("expected at most {MAX_NESTING} levels, found {nesting}");
            return Err(format!("`{key}`: {problem}"));
        }
        let growth = growth(part);
        if growth > MAX_GROWTH {
            let problem =
                format!("expected text at most {MAX_GROWTH} times as long after its replacements");
            return Err(format!("`{key}`: {problem}, found up to {growth:.0} times"));
        }
    }
    match parts.model.continuing_subword_prefix {
        Some(prefix) if !prefix.is_empty() => Err(format!(
            "`model.continuing_subword_prefix`: expected none, found `{prefix}`"
        )),
        _ => Ok(()),
    }
}

fn nesting(value: &Value) -> usize {
    let below = match value {
        Value::Array(items) => items.iter().map(nesting).max(),
        Value::Object(fields) => fields.values().map(nesting).max(),
        _ => return 0,
    };
    1 + below.unwrap_or(0)
}

/// How many times longer the replacements in a part may make a text, one after another.
fn growth(part: &Value) -> f64 {
    match part {
        Value::Array(items) => items.iter().map(growth).product(),
        Value::Object(fields) => {
            let text = |key: &str| fields.get(key).and_then(Value::as_str);
            let pattern = fields.get("pattern");
            let own = match (pattern, text("content").or(text("prepend"))) {
                // a regular expression may match between any two bytes
                (Some(pattern), Some(content)) => match pattern.get("String") {
                    Some(Value::String(found)) => content.len() as f64 / found.len().max(1) as f64,
                    _ => (content.len() + 1) as f64,
                },
                _ => 1.0,
            };
            own.max(1.0) * fields.values().map(growth).product::<f64>()
        }
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unbounded_parts_are_refused() {
        let check = |file: Value| check(file.to_string().as_bytes());
        let replace =
            |from: Value, to: &str| json!({"type": "Replace", "pattern": from, "content": to});
        let llama = json!([
            {"type": "Prepend", "prepend": "\u{2581}"},
            replace(json!({"String": " "}), "\u{2581}"),
        ]);
        let sequence = |parts: Value| json!({"type": "Sequence", "normalizers": parts});
        assert_eq!(check(json!({"normalizer": sequence(llama)})), Ok(()));
        assert_eq!(check(json!([1])), Ok(()));
        let said = super::check(b"{\"decoder\": {\"type\" 1}}").unwrap_err();
        assert!(
            said.contains("not a tokenizer: expected `:` at line 1"),
            "{said}"
        );

        let doubled = vec![replace(json!({"String": "a"}), "aa"); 64];
        insta::assert_snapshot!(check(json!({"normalizer": sequence(json!(doubled))})).unwrap_err(), @"`normalizer`: expected text at most 1000 times as long after its replacements, found up to 18446744073709551616 times");
        let pattern = replace(json!({"Regex": ""}), &"x".repeat(1000));
        insta::assert_snapshot!(check(json!({"decoder": pattern})).unwrap_err(), @"`decoder`: expected text at most 1000 times as long after its replacements, found up to 1001 times");
        let mut deep = json!({"type": "Lowercase"});
        for _ in 0..20 {
            deep = json!({"normalizers": [deep]});
        }
        insta::assert_snapshot!(check(json!({"normalizer": deep})).unwrap_err(), @"`normalizer`: expected at most 16 levels, found 41");
        let prefix = json!({"model": {"type": "BPE", "continuing_subword_prefix": "##"}});
        insta::assert_snapshot!(check(prefix).unwrap_err(), @"`model.continuing_subword_prefix`: expected none, found `##`");
    }
}
